"""Held-out documents as sequences to score, with the byte count that makes bits per byte exact."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forge_pipeline.errors import SourceError
from forge_pipeline.tokens.shards import DocumentSet
from forge_pipeline.tokens.stream import Sequences, TokenStream


class HeldOutSequences:
    """Whole documents, laid end to end in document order and scored once, token by token.

    ``doc_ids`` string (n,); ``text_bytes`` what they hold; ``tokens`` with their end tokens; ``predicted`` how many
    of the tokens the masks of all batches select; ``unpredicted`` the others, the first of each document.
    """

    def __init__(self, stream: TokenStream, sequence_length: int, overlap: int) -> None:
        self._stream = stream
        self._length = sequence_length
        self._overlap = overlap
        stride = sequence_length - overlap
        rows = 1 + max(0, -(-(stream.tokens - sequence_length) // stride))
        self._positions: NDArray[np.int64] = np.arange(rows) * stride
        self.doc_ids = stream.documents.doc_ids.take(stream.order)
        self.text_bytes = int(stream.documents.text_bytes[stream.order].sum())
        self.tokens = stream.tokens
        self.unpredicted = len(stream.order)
        self.predicted = self.tokens - self.unpredicted

    def __len__(self) -> int:
        """How many sequences there are."""
        return len(self._positions)

    def batches(self, rows: int) -> Iterator[Sequences]:
        """All sequences, ``rows`` at a time (the last time perhaps fewer)."""
        for start in range(0, len(self._positions), rows):
            found = self._stream.sequences(self._positions[start : start + rows], self._length)
            # What a sequence repeats of the one before it is context, already scored there.
            found.mask[1 if start == 0 else 0 :, : self._overlap] = False
            yield found

    def bits_per_byte(self, nats: float) -> float:
        """Bits per byte of text, from the summed loss of all predicted tokens.

        What nothing predicts, the first token of a document, is charged as one of equally likely tokens, so that
        the figure is that of a code from which the documents could be restored, like a compressor's.
        """
        vocabulary = self._stream.documents.reader.vocabulary_size
        return (nats / math.log(2) + self.unpredicted * math.log2(vocabulary)) / self.text_bytes


def held_out_sequences(
    documents: DocumentSet, sequence_length: int, max_tokens: int | None = None, overlap: int = 0
) -> HeldOutSequences:
    """Sequences over ``documents``, or over a sample of whole documents of at most ``max_tokens``.

    The sample takes documents by ascending doc_id, a digest, and passes over those that no longer fit: it is the
    same for every model. Where none fits, it is the shortest document alone. Documents without text are left out.
    With ``overlap`` > 0 each sequence begins with that many tokens of the one before, so that no token is predicted
    from less context than that, unless its document begins there. Raises SourceError if there is nothing to score.
    """
    if not 0 <= overlap < sequence_length:
        raise ValueError(f"an overlap of {overlap} does not fit into sequences of {sequence_length}")
    limit = int(documents.lengths.sum()) if max_tokens is None else max_tokens
    chosen = np.sort(_fitting(documents, limit))
    if not len(chosen):
        raise SourceError(f"there is no text in {len(documents)} held-out documents", fix="hold out more documents")
    return HeldOutSequences(TokenStream(documents, chosen), sequence_length, overlap)


def _fitting(documents: DocumentSet, limit: int) -> NDArray[np.int64]:
    doc_ids: list[Any] = documents.doc_ids.to_pylist()
    with_text = np.flatnonzero(documents.text_bytes).tolist()
    chosen: list[int] = []
    used = 0
    for number in sorted(with_text, key=doc_ids.__getitem__):
        if used + documents.lengths[number] <= limit:
            chosen.append(number)
            used += int(documents.lengths[number])
    if with_text and not chosen:
        chosen = [min(with_text, key=documents.lengths.__getitem__)]
    return np.asarray(chosen, dtype=np.int64)
