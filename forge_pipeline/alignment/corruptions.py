"""Plausible wrong answers: each kind of corruption is one way in which a small model really goes wrong."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from forge_pipeline.alignment.catalog import Entry, call_of
from forge_pipeline.alignment.questions import Question, QuestionMaker
from forge_pipeline.alignment.settings import ExampleKind, PairKind


@dataclass(frozen=True)
class Pair:
    """``sources`` are all entries that the question or the wrong answer draws on."""

    question: Question
    rejected: str
    sources: tuple[Entry, ...]


_Corruption = Callable[[QuestionMaker, Entry, random.Random], Pair | None]
_ATTEMPTS = 8


def corrupt(maker: QuestionMaker, kind: PairKind, entry: Entry) -> Pair | None:
    """A question about ``entry`` and a wrong answer of ``kind`` to it, or None if the entry allows none.

    The wrong answer differs from the right one in more than case and white space.
    """
    pair = _CORRUPTIONS[kind](maker, entry, maker.generator(f"pair {kind}", entry))
    if pair is None or pair.question.answer.casefold().split() == pair.rejected.casefold().split():
        return None
    return pair


def _pair(question: Question, rejected: str, *others: Entry) -> Pair:
    return Pair(question, rejected, (*question.sources, *others))


def _other(maker: QuestionMaker, entry: Entry, draw: random.Random) -> Entry | None:
    """A sibling in the same container if there is one, else any comparable entry; with another summary."""
    siblings = [other for other in maker.siblings(entry) if other.summary != entry.summary]
    if siblings:
        return draw.choice(siblings)
    peers = maker.peers(entry)
    for _ in range(_ATTEMPTS):
        other = draw.choice(peers)
        if other.summary != entry.summary:
            return other
    return None


def _sibling_summary(maker: QuestionMaker, entry: Entry, draw: random.Random) -> Pair | None:
    question = maker.make("section_summary" if entry.is_section else "summary", entry)
    other = _other(maker, entry, draw)
    return _pair(question, other.summary, other) if question and other else None


def _only(corruption: _Corruption, *, section: bool) -> _Corruption:
    """The corruption for sections alone, or for code alone."""

    def restricted(maker: QuestionMaker, entry: Entry, draw: random.Random) -> Pair | None:
        return corruption(maker, entry, draw) if entry.is_section == section else None

    return restricted


def _changed_signature(maker: QuestionMaker, entry: Entry, draw: random.Random) -> Pair | None:
    question = maker.make("signature", entry)
    if question is None or entry.parameters is None or len(entry.parameters) < 2:
        return None
    changed = list(entry.parameters)
    place = draw.randrange(len(changed))
    how = draw.choice(("drop", "rename", "reorder"))
    others: tuple[Entry, ...] = ()
    if how == "drop":
        del changed[place]
    elif how == "rename":
        known = {parameter.name for parameter in changed}
        others = (draw.choice(maker.peers(entry)),)
        names = [p.name for p in others[0].parameters or () if p.name not in known]
        if not names:
            return None
        changed[place] = replace(changed[place], name=draw.choice(names))
    else:
        neighbour = (place + 1) % len(changed)
        changed[place], changed[neighbour] = changed[neighbour], changed[place]
    return _pair(question, call_of(entry.name, changed), *others)


def _wrong_parameter(maker: QuestionMaker, entry: Entry, draw: random.Random) -> Pair | None:
    kind: ExampleKind = draw.choice(("first_parameter", "last_parameter"))
    question = maker.make(kind, entry)
    if question is None or entry.parameters is None:
        return None
    wrong = [parameter.name for parameter in entry.parameters if parameter.name != question.answer]
    return _pair(question, draw.choice(wrong)) if wrong else None


def _wrong_default(maker: QuestionMaker, entry: Entry, draw: random.Random) -> Pair | None:
    question = maker.make("default_value", entry)
    if question is None:
        return None
    defaults = [(entry, p.default) for p in entry.parameters or () if p.default is not None]
    wrong = [(source, default) for source, default in defaults if default != question.answer]
    if not wrong:
        # A signature with one default: one that another signature has.
        drawn = [draw.choice(maker.peers(entry)) for _ in range(_ATTEMPTS)]
        defaults = [(other, p.default) for other in drawn for p in other.parameters or () if p.default is not None]
        wrong = [(source, default) for source, default in defaults if default != question.answer]
    if not wrong:
        return None
    source, default = draw.choice(wrong)
    return _pair(question, default, source)


def _wrong_lookup(maker: QuestionMaker, entry: Entry, draw: random.Random) -> Pair | None:
    question = maker.make("section_lookup" if entry.is_section else "lookup", entry)
    if question is None:
        return None
    return _pair(question, draw.choice([other.name for other in question.sources[1:]]))


def _rambling(maker: QuestionMaker, entry: Entry, draw: random.Random) -> Pair | None:
    question = maker.make("section_summary" if entry.is_section else "summary", entry)
    if question is None:
        return None
    if draw.random() < 0.5:
        return _pair(question, " ".join([question.answer] * draw.randint(2, 3)))
    other = _other(maker, entry, draw)
    return _pair(question, f"{question.answer} {other.summary}", other) if other else None


_CORRUPTIONS: dict[str, _Corruption] = {
    "sibling_summary": _only(_sibling_summary, section=False),
    "changed_signature": _changed_signature,
    "wrong_parameter": _wrong_parameter,
    "wrong_default": _wrong_default,
    "wrong_lookup": _wrong_lookup,
    "sibling_section": _only(_sibling_summary, section=True),
    "rambling": _rambling,
}
