"""Documents laid end to end, cut into sequences of one length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from forge_pipeline.tokens.shards import DocumentSet


class Sequences(NamedTuple):
    """``tokens`` int64 (n, T + 1): inputs are ``tokens[:, :-1]``, targets ``tokens[:, 1:]``.

    ``position_ids`` int64 (n, T) start at 0 with each document and each sequence. ``mask`` bool (n, T) says which
    targets count: not the first token of a document, which would be predicted from the end of another.
    """

    tokens: NDArray[np.int64]
    position_ids: NDArray[np.int64]
    mask: NDArray[np.bool_]


@dataclass(frozen=True)
class Spans:
    """Pieces of documents inside sequences, all int64 (m,), ordered by sequence and column.

    Piece i is tokens ``start[i]`` to ``start[i] + length[i]`` of document ``document[i]``, and lies at
    ``column[i]`` of the sequence in row ``row[i]``.
    """

    row: NDArray[np.int64]
    column: NDArray[np.int64]
    document: NDArray[np.int64]
    start: NDArray[np.int64]
    length: NDArray[np.int64]


class TokenStream:
    """The documents of ``documents`` in ``order`` (int64 (n,): a permutation of some of them), end to end."""

    def __init__(self, documents: DocumentSet, order: NDArray[np.int64]) -> None:
        self.documents = documents
        self.order = order
        self.starts = np.concatenate([[0], np.cumsum(documents.lengths[order])])

    @property
    def tokens(self) -> int:
        return int(self.starts[-1])

    def spans(self, positions: NDArray[np.int64], width: int) -> Spans:
        """What lies in the ``width`` tokens from each of ``positions`` (int64 (n,)); O(log documents) each."""
        stops = np.minimum(positions + width, self.tokens)
        first = np.searchsorted(self.starts, positions, side="right") - 1
        last = np.searchsorted(self.starts, stops - 1, side="right") - 1
        counts = last - first + 1
        row = np.repeat(np.arange(len(positions)), counts)
        place = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts) + first[row]
        begin = np.maximum(self.starts[place], positions[row])
        end = np.minimum(self.starts[place + 1], stops[row])
        return Spans(row, begin - positions[row], self.order[place], begin - self.starts[place], end - begin)

    def sequences(self, positions: NDArray[np.int64], length: int) -> Sequences:
        """Sequences of ``length`` inputs from each of ``positions``.

        Past the end of the stream, inputs are end-of-document tokens, a document of their own, and masked.
        """
        rows = len(positions)
        tokens = np.full((rows, length + 1), self.documents.reader.end_token_id, dtype=np.int64)
        spans = self.spans(positions, length + 1)
        for row, column, document, start, size in zip(
            *(part.tolist() for part in (spans.row, spans.column, spans.document, spans.start, spans.length)),
            strict=True,
        ):
            tokens[row, column : column + size] = self.documents.tokens(document, start, start + size)
        is_input = spans.column < length
        row, column = spans.row[is_input], spans.column[is_input]
        first_column = np.zeros((rows, length), dtype=np.int64)
        first_column[row, column] = column
        mask = np.ones((rows, length), dtype=np.bool_)
        stop = column + spans.length[is_input]
        closes = spans.start[is_input] + spans.length[is_input] == self.documents.lengths[spans.document[is_input]]
        closes &= stop <= length
        mask[row[closes], stop[closes] - 1] = False
        for short in np.flatnonzero(positions + length > self.tokens).tolist():
            filled = self.tokens - int(positions[short])
            first_column[short, filled] = filled
            mask[short, filled:] = False
        position_ids = np.arange(length) - np.maximum.accumulate(first_column, axis=1)
        return Sequences(tokens, position_ids, mask)
