"""Checks a safetensors file by its header and its numbers, without torch.

Format: https://github.com/huggingface/safetensors (8 bytes little-endian header length, JSON header with dtype,
shape and data offsets of each tensor, then the data without gaps).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from forge_pipeline.errors import StorageError

# The reference implementation's own limit, against a header that asks for all memory.
LARGEST_HEADER = 100_000_000
BYTES_OF = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I64": 8, "I32": 4, "I8": 1, "U8": 1}
# For each float format: the integer it is stored in, and the bits that are all ones in NaN and infinity.
EXPONENT_OF: dict[str, tuple[np.dtype[Any], int]] = {
    "F64": (np.dtype("<u8"), 0x7FF0000000000000),
    "F32": (np.dtype("<u4"), 0x7F800000),
    "F16": (np.dtype("<u2"), 0x7C00),
    "BF16": (np.dtype("<u2"), 0x7F80),
}
SCAN_VALUES = 1 << 22
FIX = "run the training stage that wrote it again"


@dataclass(frozen=True)
class Tensor:
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int  # in bytes from the start of the file
    end: int

    @property
    def values(self) -> int:
        return math.prod(self.shape)


def read_header(path: Path) -> list[Tensor]:
    """The tensors of a safetensors file, sorted by their place in it.

    Raises StorageError unless the header is whole and the tensors cover the file's data exactly, each with as
    many bytes as its shape and dtype ask for.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(LARGEST_HEADER, size - 8):
            raise StorageError(f"not a safetensors file: a header of {length} bytes", where=str(path), fix=FIX)
        try:
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            tensors = [_tensor(name, entry, 8 + length) for name, entry in header.items()]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StorageError(
                f"a safetensors header that cannot be read: {error}", where=str(path), fix=FIX
            ) from error
    tensors.sort(key=lambda tensor: (tensor.start, tensor.name))
    position = 8 + length
    for tensor in tensors:
        if tensor.start != position or tensor.end - tensor.start != tensor.values * BYTES_OF[tensor.dtype]:
            raise StorageError(
                f"the tensor {tensor.name!r} ({tensor.dtype}, {list(tensor.shape)}) lies at bytes {tensor.start} to "
                f"{tensor.end}, which does not fit",
                where=str(path),
                fix=FIX,
            )
        position = tensor.end
    if position != size:
        raise StorageError(f"{size - position} bytes behind the last tensor", where=str(path), fix=FIX)
    return tensors


def refuse_numbers_that_are_not_finite(path: Path, tensors: list[Tensor]) -> None:
    """Raises StorageError, naming the tensor, if any of its values is NaN or infinite."""
    data = np.memmap(path, dtype=np.uint8, mode="r")
    for tensor in tensors:
        if tensor.dtype not in EXPONENT_OF:
            continue
        integer, exponent = EXPONENT_OF[tensor.dtype]
        for start in range(tensor.start, tensor.end, SCAN_VALUES * integer.itemsize):
            end = min(start + SCAN_VALUES * integer.itemsize, tensor.end)
            # Copied: a tensor may start at any byte, and an unaligned view is slow.
            values = np.frombuffer(data[start:end].tobytes(), dtype=integer)
            if np.any((values & integer.type(exponent)) == integer.type(exponent)):
                raise StorageError(
                    f"the tensor {tensor.name!r} holds a value that is not a finite number",
                    where=str(path),
                    fix="the training diverged; lower its learning rate and run it again",
                )


def _tensor(name: str, entry: dict[str, object], base: int) -> Tensor:
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype not in BYTES_OF or not isinstance(dtype, str):
        raise ValueError(f"unknown dtype {dtype!r} of {name!r}")
    if not isinstance(shape, list) or not isinstance(offsets, list) or len(offsets) != 2:
        raise TypeError(f"{name!r} has no shape or no offsets")
    if any(type(number) is not int or number < 0 for number in [*shape, *offsets]):
        raise ValueError(f"{name!r} has a shape or an offset that is not a natural number")
    return Tensor(name, dtype, tuple(shape), base + offsets[0], base + offsets[1])
