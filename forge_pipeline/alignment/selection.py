"""What may become an example or a pair: the entries they are drawn from, and the tests that each must pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forge_pipeline.alignment.catalog import TRAIN, Entry, HeldOut, read_entries, usable
from forge_pipeline.alignment.conversations import Problem
from forge_pipeline.errors import SourceError
from forge_pipeline.reporting import Progress, Table


@dataclass
class Refusals:
    """Why what could have been an example or a pair is none. One count for each reason."""

    held_out_entries: int = 0
    overlapping: int = 0
    duplicate: int = 0
    too_long: int = 0
    malformed: int = 0

    @property
    def total(self) -> int:
        return sum(vars(self).values())

    def table(self) -> Table:
        counts = vars(self).items()
        return Table.of("Refused", [{"reason": name.replace("_", " "), "refused": count} for name, count in counts])


@dataclass(frozen=True)
class Material:
    """The entries of a corpus, and what of them must not be trained on."""

    entries: list[Entry]
    held_out: HeldOut

    @classmethod
    def read(
        cls, training: Sequence[Path], excerpt_characters: int, overlap_words: int, progress: Progress
    ) -> Material:
        """The material of the corpus's batches. Raises SourceError if there is none."""
        if not training:
            raise SourceError("no batch of training documents", fix="run the corpus's stages first")
        with progress.task("Reading the catalog"):
            entries = read_entries(training, excerpt_characters)
            return cls(entries, HeldOut(entries, overlap_words))

    def trainable(self, refusals: Refusals) -> list[Entry]:
        """The entries to train on; those that repeat a held-out one are counted as refused."""
        offered = usable(self.entries, TRAIN)
        kept = [entry for entry in offered if not self.held_out.holds(entry)]
        refusals.held_out_entries = len(offered) - len(kept)
        return kept

    def leaks(self, rows: Iterable[dict[str, Any]], texts: Callable[[dict[str, Any]], Iterable[str]]) -> int:
        """How many rows are about an entry that is not for training, or repeat words of a held-out one.

        ``texts`` gives all that a row would train on. A row without an entry is judged by its texts alone.
        """
        train_ids = {None, *(entry.entry_id for entry in self.entries if entry.split == TRAIN)}
        return sum(row["entry_id"] not in train_ids or self.held_out.overlaps(texts(row)) for row in rows)


@dataclass
class Selection:
    """Lets each candidate pass once, if nothing is wrong with it, and counts the refusals.

    ``held_out`` is what a candidate must not overlap with; None where the candidates are held out themselves.
    """

    held_out: HeldOut | None = None
    refusals: Refusals = field(default_factory=Refusals)
    _passed: set[str] = field(default_factory=set, init=False)

    def passes(self, key: str, texts: Iterable[str], problem: Problem | None) -> bool:
        """Whether the candidate named ``key`` is taken. It counts under the first reason that speaks against it."""
        if problem == "malformed":
            self.refusals.malformed += 1
        elif problem == "too_long":
            self.refusals.too_long += 1
        elif key in self._passed:
            self.refusals.duplicate += 1
        elif self.held_out is not None and self.held_out.overlaps(texts):
            self.refusals.overlapping += 1
        else:
            self._passed.add(key)
            return True
        return False
