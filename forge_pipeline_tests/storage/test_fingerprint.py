"""A fingerprint is stable, tells values apart, and refuses what it cannot name."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge_pipeline.errors import StorageError
from forge_pipeline.storage import fingerprint_of
from forge_pipeline.storage.fingerprint import canonical_json

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), json_values))
def test_the_order_of_keys_does_not_matter(value: dict[str, object]) -> None:
    assert fingerprint_of(value) == fingerprint_of(dict(reversed(value.items())))


@given(json_values, json_values)
def test_different_values_have_different_fingerprints(first: object, second: object) -> None:
    assert (fingerprint_of(first) == fingerprint_of(second)) == (canonical_json(first) == canonical_json(second))


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"a": {"b": {1, 2}}}, r"\$\.a\.b"),
        ({"a": [1.0, float("nan")]}, r"\$\.a\[1\]"),
        ({1: "a"}, r"\$"),
        (np.float32(1), r"\$"),
        (b"bytes", r"\$"),
    ],
)
def test_an_unstable_value_is_refused_with_its_place(value: object, place: str) -> None:
    with pytest.raises(StorageError, match=place):
        fingerprint_of(value)


def test_another_process_computes_the_same() -> None:
    value = {"b": [1, 2.5, None], "a": "ü"}
    program = f"from forge_pipeline.storage import fingerprint_of; print(fingerprint_of({value!r}))"
    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"}
    ).stdout
    assert printed.strip() == fingerprint_of(value)
