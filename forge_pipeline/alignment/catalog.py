"""The corpus's catalog as examples and questions need it: entries, their parameters, and what is held out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from forge_pipeline.corpus.signatures import Parameter, parse_parameters
from forge_pipeline.corpus.tables import CATALOG, DOCUMENTS, read_table

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SUMMARY_CHARACTERS = 240
_WORD = re.compile(r"\w+")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])\s*")
# Thai and Lao, Myanmar, Khmer, kana and CJK: scripts in which words are not separated.
_UNSPACED_BLOCKS = (("\u0e00", "\u0eff"), ("\u1000", "\u109f"), ("\u1780", "\u17ff"), ("\u3040", "\u9fff"))
_HEADING_MARKS = " #=*"
_UNDERLINE = re.compile(r"[=\-~^*#+\"'`.]{3,}")


@dataclass(frozen=True)
class Entry:
    """One row of the catalog.

    ``parameters`` leaves out the receiver (self, cls); it is None for classes (whose signature names their bases)
    and where the signature is no Python signature.
    ``excerpt`` is the beginning of a section's own text, empty for code.
    """

    entry_id: str
    name: str
    kind: str
    container: str
    returns: str
    summary: str
    doc_id: str
    split: str
    parameters: tuple[Parameter, ...] | None
    excerpt: str = ""

    @property
    def is_section(self) -> bool:
        return self.kind == "section"

    @property
    def call(self) -> str:
        """The entry as one calls it: `name(first, second=1)`."""
        return call_of(self.name, self.parameters or ())

    @property
    def material(self) -> str:
        """All that the entry says, for comparison with other entries."""
        parameters = " ".join(str(parameter) for parameter in self.parameters or ())
        return " \n ".join((self.name, parameters, self.summary, self.excerpt))


def call_of(name: str, parameters: Sequence[Parameter]) -> str:
    """A call as Python writes it, with the bare star before the first keyword-only parameter."""
    written = [str(parameter) for parameter in parameters]
    keywords = [place for place, parameter in enumerate(parameters) if parameter.keyword_only]
    if keywords and not any(parameter.star == "*" for parameter in parameters):
        written.insert(keywords[0], "*")
    return f"{name}({', '.join(written)})"


def read_entries(training: Sequence[Path], excerpt_characters: int) -> list[Entry]:
    """The entries of all batches, ordered by container, name and id, each described thing once.

    The same thing may be described twice (a source file and a page made from it): a held-out description comes
    before one for training, then the lowest id. Training entries without a summary are left out; held-out ones
    stay, because what they are called must not be trained on either.
    """
    entries: dict[tuple[str, str, str], Entry] = {}
    for folder in training:
        rows = [row for row in read_table(folder, CATALOG).to_pylist() if row["name"]]
        rows = [row for row in rows if row["summary"] or row["split"] != TRAIN]
        texts = _section_texts(folder, {row["doc_id"] for row in rows if row["kind"] == "section"})
        for row in rows:
            entry = _entry(row, texts.get(row["doc_id"], ""), excerpt_characters)
            key = (entry.container, entry.name, "section" if entry.is_section else "code")
            if key not in entries or _precedence(entry) < _precedence(entries[key]):
                entries[key] = entry
    return sorted(entries.values(), key=lambda entry: (entry.container, entry.name, entry.entry_id))


def usable(entries: Iterable[Entry], split: str) -> list[Entry]:
    """The entries of a split that one can ask about."""
    return [entry for entry in entries if entry.split == split and entry.summary]


def _precedence(entry: Entry) -> tuple[bool, str]:
    return entry.split == TRAIN, entry.entry_id


def _section_texts(folder: Path, doc_ids: set[str]) -> dict[str, str]:
    if not doc_ids:
        return {}
    table = read_table(folder, DOCUMENTS, ["doc_id", "text"])
    table = table.filter(pc.is_in(table["doc_id"], value_set=pa.array(sorted(doc_ids), pa.string())))
    return {row["doc_id"]: row["text"] for row in table.to_pylist()}


def _entry(row: dict[str, object], text: str, excerpt_characters: int) -> Entry:
    section = row["kind"] == "section"
    name = _one_line(str(row["name"]))
    body = section_body(text[int(str(row["start"])) : int(str(row["end"]))], name) if section else ""
    return Entry(
        entry_id=str(row["entry_id"]),
        name=name,
        kind=str(row["kind"]),
        container=_one_line(str(row["container"] or "")),
        returns=_one_line(str(row["returns"] or "")),
        summary=first_sentence(str(row["summary"] or "")),
        doc_id=str(row["doc_id"]),
        split=str(row["split"]),
        parameters=None if row["kind"] in ("section", "class") else parse_parameters(str(row["signature"] or "")),
        excerpt=shorten(body, excerpt_characters),
    )


def section_body(text: str, heading: str) -> str:
    """A section's text without its heading and the line drawn under it, white space made single."""
    lines = text.strip().splitlines()
    plain = heading.strip(_HEADING_MARKS).casefold()
    while lines and (
        _one_line(lines[0]).strip(_HEADING_MARKS).casefold() in (plain, "") or _UNDERLINE.fullmatch(lines[0].strip())
    ):
        del lines[0]
    return _one_line(" ".join(lines))


def first_sentence(text: str) -> str:
    """The first sentence on one line, cut at a word if it is very long."""
    return shorten(_SENTENCE_END.split(_one_line(text), maxsplit=1)[0], SUMMARY_CHARACTERS)


def shorten(text: str, characters: int) -> str:
    """At most ``characters`` of ``text``, cut between words where there are any."""
    if len(text) <= characters:
        return text
    cut = text[:characters]
    border = cut.rfind(" ")
    return cut[:border] if border > characters // 2 else cut


def _one_line(text: str) -> str:
    return " ".join(text.split())


def words_of(text: str) -> list[str]:
    """Lower-case words; a character each in scripts that write no spaces, where a sentence is one long word."""
    words: list[str] = []
    for word in _WORD.findall(text.casefold()):
        words.extend(word if _unspaced(word) else (word,))
    return words


def _unspaced(word: str) -> bool:
    return any(first <= character <= last for character in word for first, last in _UNSPACED_BLOCKS)


def word_runs(text: str, length: int) -> Iterator[str]:
    """Every run of ``length`` consecutive words."""
    words = words_of(text)
    for start in range(len(words) - length + 1):
        yield " ".join(words[start : start + length])


class HeldOut:
    """What must not be trained on: entries of the validation and test splits.

    A text overlaps if it shares ``overlap_words`` consecutive words with a held-out entry; an entry also if it
    has the name and container of a held-out one, or its name and its summary.
    """

    def __init__(self, entries: Iterable[Entry], overlap_words: int) -> None:
        self.overlap_words = overlap_words
        self._names: set[tuple[str, str]] = set()
        self._summaries: set[tuple[str, str]] = set()
        self._runs: set[str] = set()
        for entry in entries:
            if entry.split == TRAIN:
                continue
            self._names.add((entry.name.casefold(), entry.container.casefold()))
            if entry.summary:
                self._summaries.add((entry.name.casefold(), entry.summary.casefold()))
            self._runs.update(word_runs(entry.material, overlap_words))

    def holds(self, entry: Entry) -> bool:
        name = entry.name.casefold()
        return (name, entry.container.casefold()) in self._names or (name, entry.summary.casefold()) in self._summaries

    def overlaps(self, texts: Iterable[str]) -> bool:
        return any(run in self._runs for text in texts for run in word_runs(text, self.overlap_words))
