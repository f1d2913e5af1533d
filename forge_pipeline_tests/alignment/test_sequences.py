from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from forge_pipeline.alignment.sequences import IGNORED, SequenceStore, indices_of_step, lay_out, pack
from forge_pipeline.models.mistral import Mistral

SEQUENCES = st.lists(
    st.integers(1, 24).flatmap(
        lambda length: st.tuples(
            st.lists(st.integers(0, 399), min_size=length, max_size=length),
            st.lists(st.booleans(), min_size=length, max_size=length),
        )
    ),
    min_size=1,
    max_size=40,
)


@given(SEQUENCES, st.integers(24, 64), st.randoms(use_true_random=False))
def test_packing_places_every_sequence_once_within_the_row(
    sequences: list[tuple[list[int], list[bool]]], capacity: int, draw: object
) -> None:
    store = SequenceStore.of(sequences)
    order = np.random.default_rng(len(sequences)).permutation(len(sequences))
    rows = pack(store.lengths, capacity, order)
    assert sorted(index for row in rows for index in row) == list(range(len(sequences)))
    assert all(sum(int(store.lengths[index]) for index in row) <= capacity for row in rows)
    # First fit: what opened a row did not fit the row before it.
    for before, after in itertools.pairwise(rows):
        placed = [index for index in before if list(order).index(index) < list(order).index(after[0])]
        assert sum(int(store.lengths[index]) for index in placed) + int(store.lengths[after[0]]) > capacity


def test_a_sequence_longer_than_a_row_is_refused() -> None:
    with pytest.raises(ValueError, match="sequence 1 has 9 tokens"):
        pack([3, 9], 8, [0, 1])


@given(SEQUENCES)
def test_packed_rows_hold_exactly_the_sequences_and_their_targets(
    sequences: list[tuple[list[int], list[bool]]],
) -> None:
    store = SequenceStore.of(sequences)
    rows = pack(store.lengths, 64, range(len(sequences)))
    tensors = lay_out(store, rows)
    laid = [index for row in rows for index in row]
    for number, index in enumerate(laid):
        ids, targets = sequences[index]
        here = tensors["segments"] == number
        assert tensors["token_ids"][here].tolist() == ids
        assert tensors["position_ids"][here].tolist() == list(range(len(ids)))
        # A position's label is the next token where that is a target; the last one has none.
        expected = [ids[i + 1] if targets[i + 1] else IGNORED for i in range(len(ids) - 1)] + [IGNORED]
        assert tensors["labels"][here].tolist() == expected
    assert (tensors["labels"][tensors["segments"] < 0] == IGNORED).all()


def test_a_store_survives_the_disk(tmp_path: Path) -> None:
    store = SequenceStore.of([([1, 2, 3], [False, True, True]), ([4], [False])])
    store.write(tmp_path / "store.safetensors")
    read = SequenceStore.read(tmp_path / "store.safetensors")
    assert [part.tolist() for index in range(2) for part in read.tokens(index)] == [
        [1, 2, 3],
        [False, True, True],
        [4],
        [False],
    ]


def test_a_sequence_is_not_touched_by_its_neighbours_in_the_row(model: Mistral) -> None:
    generator = np.random.default_rng(0)
    sequences = [
        (generator.integers(7, 400, length).tolist(), [False] + [True] * (length - 1)) for length in (9, 14, 11)
    ]
    changed = [([(token + 1) % 400 for token in sequences[0][0]], sequences[0][1]), *sequences[1:]]

    def losses(items: list[tuple[list[int], list[bool]]]) -> list[float]:
        tensors = lay_out(SequenceStore.of(items), [[0, 1, 2]])
        with torch.no_grad():
            logits = model(tensors["token_ids"], tensors["position_ids"])
        each = F.cross_entropy(logits.flatten(0, 1), tensors["labels"].flatten(), reduction="none")
        return [float(each[tensors["segments"].flatten() == number].sum()) for number in range(3)]

    before, after = losses(sequences), losses(changed)
    assert before[0] != after[0]
    assert before[1:] == after[1:]
    alone = lay_out(SequenceStore.of([sequences[1]]), [[0]])
    with torch.no_grad():
        logits = model(alone["token_ids"])
    expected = F.cross_entropy(logits.flatten(0, 1), alone["labels"].flatten(), reduction="sum")
    assert before[1] == pytest.approx(float(expected), rel=1e-5)


@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 5))
def test_every_epoch_sees_everything_once(count: int, per_step: int, seed: int) -> None:
    steps = -(-2 * count // per_step)
    seen = [index for step in range(steps) for index in indices_of_step(count, per_step, seed, step)]
    assert sorted(seen[:count]) == sorted(seen[count : 2 * count]) == list(range(count))
