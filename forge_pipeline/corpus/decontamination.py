"""What is evaluated on must not be trained on: word n-grams that training text shares with evaluation items.

After Brown et al. 2020 (arXiv:2005.14165, appendix C): runs of 13 words in common, boilerplate excepted. There the
collision and its surroundings are removed; here the line (in code) or the paragraph (in prose) that holds it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from forge_pipeline.corpus import tables
from forge_pipeline.corpus.readers.formats import CODE_FORMATS, RECORD_FORMATS
from forge_pipeline.corpus.settings import DecontaminationSettings
from forge_pipeline.corpus.shingles import WORD, Hashes, ngram_hashes, word_hashes

# Evaluation items of a part, for the training documents of later batches; and n-grams of its training text, for the
# held-out documents of later batches.
EVALUATION_NGRAMS = "evaluation_ngrams.parquet"
TRAINING_NGRAMS = "training_ngrams.npy"
_EVALUATION_SCHEMA = tables.schema_of(
    length=pa.int32(),
    hash=pa.uint64(),
    doc_id=pa.dictionary(pa.int32(), pa.string()),
)
# One n-gram in four stands for the training text: those whose hash ends in 00.
_SAMPLED_BITS = np.uint64(3)
_PARAGRAPH_BREAK = re.compile(r"\n[ \t]*\n")


@dataclass(frozen=True)
class Cut:
    """Characters ``start`` to ``end`` share ``words`` words with the evaluation item in ``doc_id``."""

    start: int
    end: int
    words: int
    doc_id: str


class EvaluationNgrams:
    """For each length in words, the hashes of evaluation items and the held-out document that each is from."""

    def __init__(self, settings: DecontaminationSettings) -> None:
        self._settings = settings
        self._added: list[tuple[int, Hashes, str]] = []
        self._tables: dict[int, tuple[Hashes, list[str]]] = {}

    def add_document(self, doc_id: str, text: str) -> None:
        self._add(self._settings.ngram_words, ngram_hashes(word_hashes(text), self._settings.ngram_words), doc_id)

    def add_item(self, doc_id: str, text: str) -> None:
        """A question or the like. One shorter than an n-gram is searched for whole, unless it is too short."""
        words = word_hashes(text)
        if len(words) >= self._settings.minimum_item_words:
            length = min(len(words), self._settings.ngram_words)
            self._add(length, ngram_hashes(words, length), doc_id)

    def add_part(self, part: Path) -> None:
        """The items of an earlier batch."""
        table = tables.read_table(part, EVALUATION_NGRAMS)
        lengths = table["length"].to_numpy()
        hashes = table["hash"].to_numpy()
        doc_ids = np.array(tables.column(table, "doc_id"), dtype=object)
        for length in np.unique(lengths).tolist():
            chosen = lengths == length
            for doc_id in dict.fromkeys(doc_ids[chosen].tolist()):
                self._add(length, hashes[chosen & (doc_ids == doc_id)], doc_id)

    def write(self, path: Path) -> None:
        rows = [
            {"length": length, "hash": value, "doc_id": doc_id}
            for length, (hashes, doc_ids) in sorted(self._ready().items())
            for value, doc_id in zip(hashes.tolist(), doc_ids, strict=True)
        ]
        pq.write_table(pa.Table.from_pylist(rows, _EVALUATION_SCHEMA), path, compression="zstd")

    def found_in(self, words: Hashes) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """For each length with a match: the places in ``words`` (hashes) where one begins, and its row."""
        found = {}
        for length, (hashes, _) in self._ready().items():
            ngrams = ngram_hashes(words, length)
            rows = np.minimum(np.searchsorted(hashes, ngrams), len(hashes) - 1)
            places = np.flatnonzero(hashes[rows] == ngrams)
            if len(places):
                found[length] = (places, rows[places])
        return found

    def doc_id(self, length: int, row: int) -> str:
        return self._ready()[length][1][row]

    def rows(self) -> dict[int, int]:
        """How many hashes there are of each length."""
        return {length: len(hashes) for length, (hashes, _) in self._ready().items()}

    def _add(self, length: int, hashes: Hashes, doc_id: str) -> None:
        if len(hashes):
            self._added.append((length, hashes, doc_id))
            self._tables = {}

    def _ready(self) -> dict[int, tuple[Hashes, list[str]]]:
        if not self._tables:
            for length in sorted({length for length, _, _ in self._added}):
                chosen = [(hashes, doc_id) for other, hashes, doc_id in self._added if other == length]
                # Of equal hashes, unique keeps the first: the item added first.
                hashes, first = np.unique(np.concatenate([hashes for hashes, _ in chosen]), return_index=True)
                owners = np.repeat(np.arange(len(chosen)), [len(hashes) for hashes, _ in chosen])[first]
                self._tables[length] = (hashes, [chosen[owner][1] for owner in owners.tolist()])
        return self._tables


def find_cuts(
    documents: Iterable[tuple[Mapping[str, Any], Hashes]],
    evaluation: EvaluationNgrams,
    settings: DecontaminationSettings,
) -> dict[str, list[Cut]]:
    """What to cut from training documents (doc_id, text, format; and their words' hashes), by doc_id. Spans are apart
    and in order.

    An n-gram in more of these documents than ``common_documents`` is boilerplate and cuts nothing.
    """
    touched: list[tuple[Mapping[str, Any], dict[int, tuple[np.ndarray, np.ndarray]]]] = []
    counts = {length: np.zeros(rows, dtype=np.int64) for length, rows in evaluation.rows().items()}
    for document, words in documents:
        found = evaluation.found_in(words)
        if found:
            touched.append((document, found))
            for length, (_, rows) in found.items():
                counts[length][np.unique(rows)] += 1
    cuts = {}
    for document, found in touched:
        rare = {
            length: (places[keep], rows[keep])
            for length, (places, rows) in found.items()
            if (keep := counts[length][rows] <= settings.common_documents).any()
        }
        if rare:
            cuts[document["doc_id"]] = _cuts(document, rare, evaluation)
    return cuts


def _cuts(
    document: Mapping[str, Any], found: dict[int, tuple[np.ndarray, np.ndarray]], evaluation: EvaluationNgrams
) -> list[Cut]:
    text = document["text"]
    words = [match.span() for match in WORD.finditer(text)]
    by_line = document["format"] in CODE_FORMATS or document["format"] in RECORD_FORMATS
    spans = []
    for length, (places, rows) in found.items():
        for place, row in zip(places.tolist(), rows.tolist(), strict=True):
            start, end = words[place][0], words[place + length - 1][1]
            start, end = _lines(text, start, end) if by_line else _paragraphs(text, start, end)
            spans.append(Cut(start, end, length, evaluation.doc_id(length, row)))
    spans.sort(key=lambda cut: (cut.start, -cut.end, cut.doc_id))
    merged: list[Cut] = []
    for cut in spans:
        if merged and cut.start < merged[-1].end:
            last = merged[-1]
            merged[-1] = Cut(last.start, max(last.end, cut.end), max(last.words, cut.words), last.doc_id)
        else:
            merged.append(cut)
    return merged


def _lines(text: str, start: int, end: int) -> tuple[int, int]:
    after = text.find("\n", end)
    return text.rfind("\n", 0, start) + 1, len(text) if after < 0 else after + 1


def _paragraphs(text: str, start: int, end: int) -> tuple[int, int]:
    window = max(0, start - 20_000)
    before = max((match.end() for match in _PARAGRAPH_BREAK.finditer(text, window, start)), default=window)
    after = _PARAGRAPH_BREAK.search(text, end)
    return before, after.end() if after else len(text)


def without(text: str, cuts: Sequence[Cut]) -> str:
    """The text less its cuts."""
    parts, end = [], 0
    for cut in cuts:
        parts.append(text[end : cut.start])
        end = cut.end
    return "".join([*parts, text[end:]])


def moved(start: int, end: int, cuts: Sequence[Cut]) -> tuple[int, int] | None:
    """Where characters ``start`` to ``end`` lie after the cuts; None if a cut touches them."""
    removed = 0
    for cut in cuts:
        if cut.start >= end:
            break
        if cut.end > start:
            return None
        removed += cut.end - cut.start
    return start - removed, end - removed


def sampled_ngrams(words: Hashes, length: int) -> Hashes:
    """A quarter of a text's different n-grams, chosen by their hashes, sorted."""
    hashes = ngram_hashes(words, length)
    return np.unique(hashes[(hashes & _SAMPLED_BITS) == 0])


def training_index(samples: Sequence[Hashes], common_documents: int) -> Hashes:
    """The sampled n-grams of the training documents, less boilerplate, sorted: what later held-out documents
    are looked up in."""
    hashes, counts = np.unique(np.concatenate([np.empty(0, dtype=np.uint64), *samples]), return_counts=True)
    index: Hashes = hashes[counts <= common_documents]
    return index


def seen_share(ngrams: Hashes, parts: Sequence[Hashes]) -> float:
    """The share of a document's sampled n-grams that the training text of earlier batches has."""
    if not len(ngrams):
        return 0.0
    seen = np.zeros(len(ngrams), dtype=bool)
    for part in parts:
        if len(part):
            seen |= part[np.minimum(np.searchsorted(part, ngrams), len(part) - 1)] == ngrams
    return float(seen.mean())
