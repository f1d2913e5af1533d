"""A fingerprint names a value by its content. It refuses what it cannot name stably."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence

from forge_pipeline.errors import StorageError


def canonical_json(value: object) -> str:
    """JSON with one spelling for each value: sorted keys, no spaces, ASCII only.

    Raises StorageError for anything whose JSON would depend on the process that writes it (sets, floats that
    are not finite, objects, keys that are not strings), naming the place inside ``value``.
    """
    _refuse_unstable(value, "$")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def fingerprint_of(value: object) -> str:
    """SHA-256 (64 hex digits) of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical_json(value).encode("ascii")).hexdigest()


def _refuse_unstable(value: object, place: str) -> None:
    # bool before int, and exact types: a subclass (an Enum, a NumPy scalar) may print differently elsewhere.
    if value is None or type(value) in (bool, int, str):
        return
    if type(value) is float:
        if not math.isfinite(value):
            raise StorageError(f"{value!r} has no stable fingerprint", where=place, fix="use a finite number")
        return
    if isinstance(value, Mapping):
        for key, item in value.items():
            if type(key) is not str:
                raise StorageError(
                    f"the key {key!r} is not a string", where=place, fix="use strings as keys: JSON has no others"
                )
            _refuse_unstable(item, f"{place}.{key}")
        return
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray)):
        for index, item in enumerate(value):
            _refuse_unstable(item, f"{place}[{index}]")
        return
    raise StorageError(
        f"a {type(value).__name__} has no stable fingerprint",
        where=place,
        fix="give plain JSON values: None, bool, int, float, str, lists and dicts with string keys",
    )
