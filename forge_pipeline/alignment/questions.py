"""Questions about catalog entries, whose answers follow from the catalog or from the question's own text.

The same phrasings serve the supervised examples, the preference pairs and the held-out questions, each over its
own pool of entries.
"""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from forge_pipeline.alignment.catalog import Entry, call_of, first_sentence, shorten
from forge_pipeline.alignment.settings import ExampleKind

# A choice question is answered from what the model knows (four options); a reading question from its own text.
CHOICE_KINDS: frozenset[str] = frozenset(("summary", "signature", "name", "section_summary", "section_heading"))
OPTIONS = 4
LISTED = 3
LISTED_CHARACTERS = 60
ANSWER_CHARACTERS = 40
SENTENCE_CHARACTERS = 120
NEAREST = 12


@dataclass(frozen=True)
class Question:
    """``options`` holds OPTIONS answers, the right one at ``answer_index``; it is empty for reading questions
    and where the pool has too few entries. ``sources`` are all entries that the text draws on."""

    kind: ExampleKind
    entry: Entry
    prompt: str
    answer: str
    sources: tuple[Entry, ...]
    options: tuple[str, ...] = ()
    answer_index: int = -1


def digest(*parts: object) -> str:
    """64 hex digits that name the parts; orders and seeds what must not depend on the order of anything."""
    return hashlib.sha256("\0".join(str(part) for part in parts).encode()).hexdigest()


class QuestionMaker:
    """Makes questions over one pool of entries. What it makes is a function of the pool and the seed."""

    def __init__(self, entries: Sequence[Entry], seed: int) -> None:
        self.entries = entries
        self.seed = seed
        self._peers: dict[bool, list[Entry]] = {
            section: [entry for entry in entries if entry.is_section == section] for section in (False, True)
        }
        self._siblings: dict[tuple[bool, str], list[Entry]] = defaultdict(list)
        for entry in entries:
            self._siblings[entry.is_section, entry.container].append(entry)

    def order(self, kind: str) -> list[Entry]:
        """The pool in the order in which questions of ``kind`` are drawn from it."""
        return sorted(self.entries, key=lambda entry: digest(self.seed, kind, entry.entry_id))

    def generator(self, kind: str, entry: Entry) -> random.Random:
        return random.Random(int(digest(self.seed, "draw", kind, entry.entry_id)[:16], 16))

    def make(self, kind: ExampleKind, entry: Entry) -> Question | None:
        """A question of ``kind`` about ``entry``, or None if the entry does not lend itself to one."""
        if entry.is_section != kind.startswith("section_"):
            return None
        return _MAKERS[kind](self, kind, entry, self.generator(kind, entry))

    def siblings(self, entry: Entry) -> list[Entry]:
        """Other entries of the same container."""
        return [other for other in self._siblings[entry.is_section, entry.container] if other is not entry]

    def peers(self, entry: Entry) -> list[Entry]:
        """All entries of the pool that are comparable, itself included: code for code, sections for a section."""
        return self._peers[entry.is_section]

    def with_options(self, question: Question, answer_of: Callable[[Entry], str | None]) -> Question:
        """The question with three wrong answers: of the same container first, then of like length.

        ``answer_of`` says what another entry would answer (None: it has nothing to say).
        """
        draw = self.generator(question.kind + " options", question.entry)
        near = self.siblings(question.entry)
        draw.shuffle(near)
        length = len(question.answer)
        far = [(answer_of(other), other) for other in self.peers(question.entry) if other is not question.entry]
        alike = sorted(
            ((abs(len(answer) - length), other.entry_id, other) for answer, other in far if answer is not None),
            key=lambda item: item[:2],
        )[:NEAREST]
        draw.shuffle(alike)
        options, seen = [question.answer], {question.answer.casefold()}
        for other in [*near, *(other for _, _, other in alike)]:
            answer = answer_of(other)
            if answer is not None and answer.casefold() not in seen and len(options) < OPTIONS:
                options.append(answer)
                seen.add(answer.casefold())
        if len(options) < OPTIONS:
            return question
        draw.shuffle(options)
        return Question(
            question.kind,
            question.entry,
            question.prompt,
            question.answer,
            question.sources,
            tuple(options),
            options.index(question.answer),
        )

    def options_for(self, question: Question) -> Question:
        """The question with its options, if it is of a kind that has any."""
        if question.kind in ("summary", "section_summary"):
            return self.with_options(question, lambda other: other.summary)
        if question.kind in ("name", "section_heading"):
            return self.with_options(question, lambda other: other.name)
        if question.kind == "signature":
            # Other entries' parameters under this entry's name: the name gives nothing away.
            name = question.entry.name
            return self.with_options(
                question, lambda other: call_of(name, other.parameters) if other.parameters else None
            )
        return question

    # -- the kinds -----------------------------------------------------------------------------------------

    def _summary(self, kind: ExampleKind, entry: Entry, draw: random.Random) -> Question | None:
        prompt = draw.choice(
            (
                f"What does the {entry.kind} `{_shown(entry)}`{_of(entry)} do?",
                f"Describe `{_shown(entry)}`{_of(entry)} in one sentence.",
                f"What is `{_shown(entry)}`{_of(entry)} for?",
            )
        )
        return _question(kind, entry, prompt, entry.summary)

    def _signature(self, kind: ExampleKind, entry: Entry, draw: random.Random) -> Question | None:
        if not entry.parameters:
            return None
        prompt = draw.choice(
            (
                f"What is the signature of `{entry.name}`{_of(entry)}?",
                f"How is `{entry.name}`{_of(entry)} called?",
            )
        )
        return _question(kind, entry, prompt, entry.call)

    def _name(self, kind: ExampleKind, entry: Entry, draw: random.Random) -> Question | None:
        prompt = f"Which {entry.kind}{_of(entry)} is described so: {entry.summary}"
        return _question(kind, entry, prompt, entry.name)

    def _parameter(self, kind: ExampleKind, entry: Entry, draw: random.Random) -> Question | None:
        if entry.parameters is None or len(entry.parameters) < 2:
            return None
        which, index = ("first", 0) if kind == "first_parameter" else ("last", -1)
        prompt = draw.choice(
            (f"`{entry.call}`\nWhat is the {which} parameter?", f"Name the {which} parameter of `{entry.call}`.")
        )
        return _question(kind, entry, prompt, entry.parameters[index].name)

    def _default_value(self, kind: ExampleKind, entry: Entry, draw: random.Random) -> Question | None:
        # None is so common a default that a model could score by always saying it.
        chosen = [p for p in entry.parameters or () if p.default not in (None, "None")]
        chosen = [p for p in chosen if len(p.default or "") <= ANSWER_CHARACTERS]
        if not chosen:
            return None
        parameter = draw.choice(chosen)
        prompt = draw.choice(
            (
                f"`{entry.call}`\nWhat is the default of `{parameter.name}`?",
                f"What is `{parameter.name}` by default in `{entry.call}`?",
            )
        )
        return _question(kind, entry, prompt, parameter.default or "")

    def _parameter_count(self, kind: ExampleKind, entry: Entry, draw: random.Random) -> Question | None:
        if entry.parameters is None or len(entry.parameters) < 2:
            return None
        return _question(kind, entry, f"`{entry.call}`\nHow many parameters are there?", str(len(entry.parameters)))

    def _returns(self, kind: ExampleKind, entry: Entry, draw: random.Random) -> Question | None:
        if entry.parameters is None or not 0 < len(entry.returns) <= ANSWER_CHARACTERS:
            return None
        return _question(kind, entry, f"`{entry.call} -> {entry.returns}`\nWhat does it return?", entry.returns)

    def _lookup(self, kind: ExampleKind, entry: Entry, draw: random.Random) -> Question | None:
        siblings, peers = self.siblings(entry), self.peers(entry)
        draw.shuffle(siblings)
        drawn = [*siblings[:LISTED], *draw.sample(peers, min(len(peers), 4 * LISTED))]
        listed = [entry]
        for other in drawn:
            lines = {shorten(item.summary, LISTED_CHARACTERS).casefold() for item in (*listed, other)}
            names = {item.name.casefold() for item in (*listed, other)}
            if len(listed) < LISTED and len(lines) == len(names) == len(listed) + 1:
                listed.append(other)
        if len(listed) < LISTED:
            return None
        others = tuple(listed[1:])
        draw.shuffle(listed)
        rows = "\n".join(f"- {item.name}: {shorten(item.summary, LISTED_CHARACTERS)}" for item in listed)
        wanted = shorten(entry.summary, LISTED_CHARACTERS)
        return _question(kind, entry, f"{rows}\nWhich of these is described so: {wanted}", entry.name, others)

    def _section_summary(self, kind: ExampleKind, entry: Entry, draw: random.Random) -> Question | None:
        of = f' of "{entry.container}"' if entry.container else ""
        prompt = draw.choice(
            (f'What does the section "{entry.name}"{of} say?', f'What is the section "{entry.name}"{of} about?')
        )
        return _question(kind, entry, prompt, entry.summary)

    def _section_heading(self, kind: ExampleKind, entry: Entry, draw: random.Random) -> Question | None:
        if not entry.excerpt:
            return None
        return _question(kind, entry, f"{entry.excerpt}\nWhat is the heading of this section?", entry.name)

    def _section_start(self, kind: ExampleKind, entry: Entry, draw: random.Random) -> Question | None:
        sentence = first_sentence(entry.excerpt)
        if (
            not sentence
            or len(sentence) > SENTENCE_CHARACTERS
            or len(entry.excerpt) < len(sentence) + ANSWER_CHARACTERS
        ):
            return None
        return _question(kind, entry, f"{entry.excerpt}\nQuote the first sentence of this section.", sentence)


def _of(entry: Entry) -> str:
    return f" of {entry.container}" if entry.container else ""


def _shown(entry: Entry) -> str:
    return entry.call if entry.parameters is not None else entry.name


def _question(kind: ExampleKind, entry: Entry, prompt: str, answer: str, others: Sequence[Entry] = ()) -> Question:
    return Question(kind, entry, prompt, answer, (entry, *others))


_MAKERS: dict[str, Callable[[QuestionMaker, ExampleKind, Entry, random.Random], Question | None]] = {
    "summary": QuestionMaker._summary,
    "signature": QuestionMaker._signature,
    "name": QuestionMaker._name,
    "first_parameter": QuestionMaker._parameter,
    "last_parameter": QuestionMaker._parameter,
    "default_value": QuestionMaker._default_value,
    "parameter_count": QuestionMaker._parameter_count,
    "returns": QuestionMaker._returns,
    "lookup": QuestionMaker._lookup,
    "section_summary": QuestionMaker._section_summary,
    "section_heading": QuestionMaker._section_heading,
    "section_start": QuestionMaker._section_start,
    "section_lookup": QuestionMaker._lookup,
}
