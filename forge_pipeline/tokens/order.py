"""The sample order: which tokens make up the sequences of a step, as a function of (seed, step) alone.

An epoch lays the training documents end to end in a seeded order, cuts that stream into sequences of one length
and takes the sequences in a second seeded order, so that a long document's pieces are spread over the epoch.
Epochs follow one another without end, each with orders of its own. Every token is the input of at most one
sequence an epoch; the tail of the stream, shorter than one sequence, is left off, and falls on other documents
in every epoch.

How many processes train does not enter: `rank_share` cuts a step that is already decided.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from forge_pipeline.errors import SourceError
from forge_pipeline.tokens.shards import DocumentSet
from forge_pipeline.tokens.stream import Sequences, TokenStream

_EXPOSURE_FIELDS: list[tuple[str, pa.DataType]] = [
    ("doc_id", pa.string()),
    # Null for a document that no step has seen.
    ("first_step", pa.int64()),
    ("last_step", pa.int64()),
    ("tokens", pa.int64()),
    ("epochs", pa.int64()),
]
EXPOSURE_SCHEMA = pa.schema(_EXPOSURE_FIELDS)
_DOCUMENTS, _SEQUENCES = 1, 2
_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1
_EPOCHS_KEPT = 2


class Span(NamedTuple):
    """``length`` tokens of a document from token ``start``, as inputs of sequence ``sequence`` of a step."""

    sequence: int
    doc_id: str
    start: int
    length: int


@dataclass(frozen=True)
class _Epoch:
    """``stream`` and the order of its sequences; ``slot_of`` and ``place_of`` are the inverse permutations."""

    stream: TokenStream
    sequences: NDArray[np.int64]
    slot_of: NDArray[np.int64]
    place_of: NDArray[np.int64]


class SampleOrder:
    """The order for one set of documents. Raises SourceError if they do not fill one sequence."""

    def __init__(self, documents: DocumentSet, sequence_length: int, sequences_per_step: int, seed: int) -> None:
        total = int(documents.lengths.sum())
        if total < sequence_length:
            raise SourceError(
                f"{total} training tokens do not fill one sequence of {sequence_length}",
                fix="add documents, or lower sequence_length",
            )
        self.documents = documents
        self.sequence_length = sequence_length
        self.sequences_per_step = sequences_per_step
        self.seed = seed
        self.sequences_per_epoch = total // sequence_length
        self._epochs: dict[int, _Epoch] = {}

    @property
    def steps_per_epoch(self) -> float:
        return self.sequences_per_epoch / self.sequences_per_step

    def sequences(self, step: int) -> Sequences:
        """All sequences of ``step``."""
        return self._read(self._numbers(step))

    def rank_share(self, step: int, rank: int, world_size: int) -> Sequences:
        """The sequences of ``step`` that rank ``rank`` of ``world_size`` trains on, the same number for each rank.

        The shares of all ranks, in order, are `sequences(step)`. Raises ValueError if they cannot be equal.
        """
        share, rest = divmod(self.sequences_per_step, world_size)
        if rest:
            raise ValueError(f"{self.sequences_per_step} sequences a step cannot be shared by {world_size} ranks")
        return self._read(self._numbers(step)[rank * share : (rank + 1) * share])

    def spans(self, step: int) -> list[Span]:
        """Which tokens of which documents the sequences of ``step`` hold as inputs."""
        found: list[Span] = []
        for rows, epoch, positions in self._by_epoch(self._numbers(step)):
            spans = epoch.stream.spans(positions, self.sequence_length)
            doc_ids: list[Any] = self.documents.doc_ids.take(spans.document).to_pylist()
            sequences = rows[spans.row].tolist()
            found += map(Span, sequences, doc_ids, spans.start.tolist(), spans.length.tolist())
        return found

    def exposures(self, doc_id: str, steps: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The steps before ``steps`` that hold tokens of a document, ascending, and how many each holds.

        Raises KeyError for a document that is not among the training documents.
        """
        number = pc.index(self.documents.doc_ids, doc_id).as_py()
        if number < 0:
            raise KeyError(doc_id)
        chosen = np.array([number])
        parts = [self._exposed(epoch, chosen, steps) for epoch in range(self._epochs_in(steps))]
        seen = np.concatenate([np.zeros(0, np.int64), *(step for _, step, _ in parts)])
        tokens = np.concatenate([np.zeros(0, np.int64), *(count for _, _, count in parts)])
        distinct, inverse = np.unique(seen, return_inverse=True)
        return distinct, np.bincount(inverse, weights=tokens, minlength=len(distinct)).astype(np.int64)

    def exposure_table(self, steps: int) -> pa.Table:
        """For every training document, what the steps before ``steps`` have seen of it (EXPOSURE_SCHEMA)."""
        number = len(self.documents)
        first = np.full(number, np.iinfo(np.int64).max)
        last = np.full(number, -1, dtype=np.int64)
        tokens = np.zeros(number, dtype=np.int64)
        epochs = np.zeros(number, dtype=np.int64)
        everything = np.arange(number)
        for epoch in range(self._epochs_in(steps)):
            document, step, count = self._exposed(epoch, everything, steps)
            np.minimum.at(first, document, step)
            np.maximum.at(last, document, step)
            here = np.zeros(number, dtype=np.int64)
            np.add.at(here, document, count)
            tokens += here
            epochs += here > 0
        unseen = tokens == 0
        columns = [
            self.documents.doc_ids,
            pa.array(first, mask=unseen),
            pa.array(last, mask=unseen),
            pa.array(tokens),
            pa.array(epochs),
        ]
        return pa.table(columns, schema=EXPOSURE_SCHEMA)

    def _numbers(self, step: int) -> NDArray[np.int64]:
        """The sequences of a step, counted from the beginning of training over all epochs."""
        if step < 0:
            raise ValueError(f"step {step} is before the first")
        return step * self.sequences_per_step + np.arange(self.sequences_per_step)

    def _by_epoch(self, numbers: NDArray[np.int64]) -> list[tuple[NDArray[np.int64], _Epoch, NDArray[np.int64]]]:
        """(rows of ``numbers``, their epoch, where their sequences begin in its stream), for each epoch met."""
        epoch_of, slot = np.divmod(numbers, self.sequences_per_epoch)
        found = []
        for number in np.unique(epoch_of).tolist():
            rows = np.flatnonzero(epoch_of == number)
            epoch = self._epoch(number)
            found.append((rows, epoch, epoch.sequences[slot[rows]] * self.sequence_length))
        return found

    def _read(self, numbers: NDArray[np.int64]) -> Sequences:
        parts = [
            epoch.stream.sequences(positions, self.sequence_length) for _, epoch, positions in self._by_epoch(numbers)
        ]
        # Rows ascend from epoch to epoch, so that joining the parts restores their order.
        return parts[0] if len(parts) == 1 else Sequences(*(np.concatenate(part) for part in zip(*parts, strict=True)))

    def _epoch(self, number: int) -> _Epoch:
        if number not in self._epochs:
            while len(self._epochs) >= _EPOCHS_KEPT:
                del self._epochs[next(iter(self._epochs))]
            order = permutation(len(self.documents), self.seed, number, _DOCUMENTS)
            sequences = permutation(self.sequences_per_epoch, self.seed, number, _SEQUENCES)
            self._epochs[number] = _Epoch(
                TokenStream(self.documents, order), sequences, _inverse(sequences), _inverse(order)
            )
        return self._epochs[number]

    def _epochs_in(self, steps: int) -> int:
        return -(-steps * self.sequences_per_step // self.sequences_per_epoch)

    def _exposed(
        self, number: int, documents: NDArray[np.int64], steps: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """(document, step, tokens) of each piece of ``documents`` that epoch ``number`` puts before ``steps``."""
        epoch, length = self._epoch(number), self.sequence_length
        place = epoch.place_of[documents]
        begin = epoch.stream.starts[place]
        end = np.minimum(epoch.stream.starts[place + 1], self.sequences_per_epoch * length)
        inside = begin < end
        documents, begin, end = documents[inside], begin[inside], end[inside]
        first = begin // length
        counts = (end - 1) // length - first + 1
        owner = np.repeat(np.arange(len(documents)), counts)
        sequence = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts) + first[owner]
        tokens = np.minimum(end[owner], (sequence + 1) * length) - np.maximum(begin[owner], sequence * length)
        step = (number * self.sequences_per_epoch + epoch.slot_of[sequence]) // self.sequences_per_step
        early = step < steps
        return documents[owner[early]], step[early], tokens[early]


def permutation(count: int, *key: int) -> NDArray[np.int64]:
    """A permutation of ``count`` numbers, a function of the integers in ``key``.

    Numbers are sorted by SplitMix64 (Steele et al. 2014, OOPSLA): a bijection of 64-bit integers, so that no two
    sort keys are equal and any correct sort gives this order, with any release of NumPy.
    """
    state = 0
    for part in key:
        state = _mix((state ^ part & _MASK) + _GOLDEN & _MASK)
    counter = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN) + np.uint64(state)
    counter = (counter ^ counter >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    counter = (counter ^ counter >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return np.argsort(counter ^ counter >> np.uint64(31)).astype(np.int64)


def _mix(value: int) -> int:
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & _MASK
    return value ^ value >> 31


def _inverse(order: NDArray[np.int64]) -> NDArray[np.int64]:
    inverse = np.empty_like(order)
    inverse[order] = np.arange(len(order))
    return inverse
