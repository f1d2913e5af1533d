"""Tokenised conversations, and how many of them share a row without seeing each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import Tensor

# No target: what torch's cross entropy leaves out by default.
IGNORED = -100
# Rows still open to a further sequence while packing. More would gain nothing: short sequences fill the gaps.
OPEN_ROWS = 64


@dataclass(frozen=True)
class SequenceStore:
    """Token sequences one after the other.

    ``token_ids`` int32 (N,), ``targets`` bool (N,): which tokens the model is to produce; sequence i lies at
    ``offsets[i]:offsets[i + 1]`` (offsets int64).
    """

    token_ids: NDArray[np.int32]
    targets: NDArray[np.bool_]
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, encoded: Sequence[tuple[Sequence[int], Sequence[bool]]]) -> SequenceStore:
        offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
        np.cumsum([len(ids) for ids, _ in encoded], out=offsets[1:])
        token_ids = np.fromiter((i for ids, _ in encoded for i in ids), dtype=np.int32, count=int(offsets[-1]))
        targets = np.fromiter((m for _, mask in encoded for m in mask), dtype=np.bool_, count=int(offsets[-1]))
        return cls(token_ids, targets, offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.offsets)

    def tokens(self, index: int) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        part = slice(self.offsets[index], self.offsets[index + 1])
        return self.token_ids[part], self.targets[part]

    def write(self, path: Path) -> None:
        tensors = {"token_ids": self.token_ids, "targets": self.targets.astype(np.uint8), "offsets": self.offsets}
        save_file(tensors, path)

    @classmethod
    def read(cls, path: Path) -> SequenceStore:
        tensors = load_file(path)
        return cls(tensors["token_ids"], tensors["targets"].astype(np.bool_), tensors["offsets"])


def pack(
    lengths: Sequence[int] | NDArray[np.int64], capacity: int, order: Sequence[int] | NDArray[np.int64]
) -> list[list[int]]:
    """First fit in the given order: rows of sequence indices whose lengths sum to at most ``capacity``.

    A row is closed when OPEN_ROWS newer ones are open. Raises ValueError if one sequence alone is too long.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for index in order:
        length = int(lengths[index])
        if length > capacity:
            raise ValueError(f"sequence {index} has {length} tokens, more than a row's {capacity}")
        start = max(0, len(rows) - OPEN_ROWS)
        place = next((row for row in range(start, len(rows)) if room[row] >= length), None)
        if place is None:
            rows.append([])
            room.append(capacity)
            place = len(rows) - 1
        rows[place].append(int(index))
        room[place] -= length
    return rows


def lay_out(store: SequenceStore, rows: Sequence[Sequence[int]], pad_token_id: int = 0) -> dict[str, Tensor]:
    """Tensors (B, T) int64 of packed rows, T being the longest row's length:

    ``token_ids``; ``position_ids``, which return to 0 where a sequence starts; ``labels``, at each position the
    next token if that is a target of the same sequence, else IGNORED; ``segments``, the running number of the
    sequence in reading order, -1 on padding.
    """
    width = max(sum(int(store.lengths[index]) for index in row) for row in rows)
    shape = (len(rows), width)
    token_ids = np.full(shape, pad_token_id, dtype=np.int64)
    position_ids = np.zeros(shape, dtype=np.int64)
    labels = np.full(shape, IGNORED, dtype=np.int64)
    segments = np.full(shape, -1, dtype=np.int64)
    number = 0
    for row, indices in enumerate(rows):
        end = 0
        for index in indices:
            ids, targets = store.tokens(index)
            start, end = end, end + len(ids)
            token_ids[row, start:end] = ids
            position_ids[row, start:end] = np.arange(len(ids))
            labels[row, start : end - 1] = np.where(targets[1:], ids[1:], IGNORED)
            segments[row, start:end] = number
            number += 1
        # Padding is a sequence of its own, which nothing looks at.
        position_ids[row, end:] = np.arange(width - end)
    arrays = {"token_ids": token_ids, "position_ids": position_ids, "labels": labels, "segments": segments}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def epoch_order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order in which ``count`` things are seen in an epoch."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def indices_of_step(count: int, per_step: int, seed: int, step: int) -> list[int]:
    """Which of ``count`` things make up a step: one permutation after the other, cut into steps."""
    first = step * per_step
    orders: dict[int, NDArray[np.int64]] = {}
    indices = []
    for place in range(first, first + per_step):
        epoch = place // count
        if epoch not in orders:
            orders[epoch] = epoch_order(count, seed, epoch)
        indices.append(int(orders[epoch][place % count]))
    return indices
