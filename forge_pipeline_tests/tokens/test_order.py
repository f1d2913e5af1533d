"""The sample order is a function of (seed, step), and says exactly who is seen when."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forge_pipeline.errors import SourceError
from forge_pipeline.tokens.held_out import held_out_sequences
from forge_pipeline.tokens.order import EXPOSURE_SCHEMA, SampleOrder, permutation
from forge_pipeline.tokens.shards import INDEX_SCHEMA, ShardReader

# Token ids that name their own place: document * PLACES + place in the document.
PLACES = 1000
END_TOKEN = 10**9
LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=25)


@contextmanager
def made_of(lengths: list[int]) -> Iterator[ShardReader]:
    """Two parts of shards with documents of these lengths, all in the train split."""
    with tempfile.TemporaryDirectory() as root:
        parts = []
        half = len(lengths) // 2
        for name, numbers in (("first", range(half)), ("second", range(half, len(lengths)))):
            part = Path(root, name)
            part.mkdir()
            rows, offset = [], 0
            for number in numbers:
                row = {"doc_id": f"{number:032x}", "split": "train", "shard": 0, "offset": offset}
                rows.append(row | {"length": lengths[number], "bytes": 3 * lengths[number]})
                offset += lengths[number]
            pq.write_table(pa.Table.from_pylist(rows, INDEX_SCHEMA), part / "index.parquet")
            tokens = [number * PLACES + place for number in numbers for place in range(lengths[number])]
            (part / "shard-00000.bin").write_bytes(np.array(tokens, dtype="<u4").tobytes())
            header = {"dtype": "uint32", "vocabulary_size": 10**6, "end_token_id": END_TOKEN, "tokenizer_sha256": "0"}
            (part / "header.json").write_text(json.dumps(header))
            parts.append(part)
        yield ShardReader(parts)


@st.composite
def orders(draw: st.DrawFn) -> tuple[list[int], int, int, int]:
    lengths = draw(LENGTHS)
    sequence_length = draw(st.integers(1, min(16, sum(lengths))))
    return lengths, sequence_length, draw(st.integers(1, 8)), draw(st.integers(0, 2**70))


@given(case=orders())
@settings(deadline=None)
def test_an_epoch_reads_every_token_once_but_for_a_tail_shorter_than_a_sequence(
    case: tuple[list[int], int, int, int],
) -> None:
    lengths, length, per_step, seed = case
    with made_of(lengths) as reader:
        order = SampleOrder(reader.documents("train"), length, per_step, seed)
        epochs = 2
        steps = -(-epochs * order.sequences_per_epoch // per_step)
        rows = np.concatenate([order.sequences(step).tokens[:, :-1] for step in range(steps)])
        for epoch in range(epochs):
            mine = rows[epoch * order.sequences_per_epoch : (epoch + 1) * order.sequences_per_epoch]
            seen = Counter(mine.ravel().tolist())
            assert set(seen.values()) == {1}
            assert set(seen) <= {number * PLACES + place for number, n in enumerate(lengths) for place in range(n)}
            assert 0 <= sum(lengths) - len(seen) < length


@given(case=orders(), step=st.integers(0, 12))
@settings(deadline=None)
def test_positions_and_mask_follow_the_documents(case: tuple[list[int], int, int, int], step: int) -> None:
    lengths, length, per_step, seed = case
    with made_of(lengths) as reader:
        rows = SampleOrder(reader.documents("train"), length, per_step, seed).sequences(step)
    assert rows.tokens.shape == (per_step, length + 1)
    assert rows.tokens.dtype == rows.position_ids.dtype == np.int64
    assert rows.position_ids.shape == rows.mask.shape == (per_step, length)
    for tokens, positions, mask in zip(*(part.tolist() for part in rows), strict=True):
        expected = 0
        for column in range(length):
            document, place = divmod(tokens[column], PLACES)
            if column == 0 or document != tokens[column - 1] // PLACES:
                expected = 0
            assert positions[column] == expected
            expected += 1
            is_last = place == lengths[document] - 1
            assert mask[column] == (not is_last)
            if not is_last:
                assert tokens[column + 1] == tokens[column] + 1


@given(case=orders(), step=st.integers(0, 5), world=st.integers(1, 4))
@settings(deadline=None)
def test_the_ranks_share_the_same_step_whatever_their_number(
    case: tuple[list[int], int, int, int], step: int, world: int
) -> None:
    lengths, length, per_rank, seed = case
    with made_of(lengths) as reader:
        order = SampleOrder(reader.documents("train"), length, per_rank * world, seed)
        whole = order.sequences(step)
        other = SampleOrder(reader.documents("train"), length, per_rank * world, seed)
        shares = [other.rank_share(step, rank, world) for rank in reversed(range(world))]
        for together, parts in zip(whole, zip(*reversed(shares), strict=True), strict=True):
            assert {part.shape for part in parts} == {parts[0].shape}
            assert np.array_equal(together, np.concatenate(parts))
        if world > 1:
            with pytest.raises(ValueError, match="cannot be shared"):
                SampleOrder(reader.documents("train"), length, world + 1, seed).rank_share(step, 0, world)


@given(case=orders(), steps=st.integers(0, 20))
@settings(deadline=None)
def test_exposures_and_spans_agree_with_reading_the_sequences(
    case: tuple[list[int], int, int, int], steps: int
) -> None:
    lengths, length, per_step, seed = case
    with made_of(lengths) as reader:
        order = SampleOrder(reader.documents("train"), length, per_step, seed)
        read: dict[int, Counter[int]] = {number: Counter() for number in range(len(lengths))}
        epochs: dict[int, set[int]] = {number: set() for number in range(len(lengths))}
        for step in range(steps):
            inputs = order.sequences(step).tokens[:, :-1]
            from_spans = np.full_like(inputs, -1)
            columns = Counter[int]()
            for span in order.spans(step):
                number = int(span.doc_id, 16)
                column = columns[span.sequence]
                first = number * PLACES + span.start
                from_spans[span.sequence, column : column + span.length] = np.arange(first, first + span.length)
                columns[span.sequence] += span.length
            assert np.array_equal(from_spans, inputs)
            for row, tokens in enumerate(inputs.tolist()):
                for token in tokens:
                    read[token // PLACES][step] += 1
                    epochs[token // PLACES].add((step * per_step + row) // order.sequences_per_epoch)
        table = order.exposure_table(steps)
        assert table.schema == EXPOSURE_SCHEMA
        for number, row in enumerate(table.to_pylist()):
            seen = read[number]
            at, tokens = order.exposures(row["doc_id"], steps)
            assert dict(zip(at.tolist(), tokens.tolist(), strict=True)) == seen
            assert row == {
                "doc_id": f"{number:032x}",
                "first_step": min(seen, default=None),
                "last_step": max(seen, default=None),
                "tokens": sum(seen.values()),
                "epochs": len(epochs[number]),
            }


def test_an_unknown_document_has_no_exposures() -> None:
    with made_of([5, 5]) as reader, pytest.raises(KeyError):
        SampleOrder(reader.documents("train"), 4, 1, 0).exposures("f" * 32, 10)


def test_another_seed_or_epoch_gives_another_order() -> None:
    with made_of([30] * 25) as reader:
        documents = reader.documents("train")
        first, again, other = (SampleOrder(documents, 10, 75, seed).sequences(0).tokens for seed in (1, 1, 2))
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)
        assert not np.array_equal(first, SampleOrder(documents, 10, 75, 1).sequences(1).tokens)


def test_pieces_of_a_long_document_are_spread_over_the_epoch() -> None:
    with made_of([PLACES] + [10] * 900) as reader:
        steps, _ = SampleOrder(reader.documents("train"), 20, 5, 0).exposures("0" * 32, 100)
    assert len(steps) > 30


def test_too_little_text_is_an_error() -> None:
    with made_of([3, 3]) as reader, pytest.raises(SourceError, match="6 training tokens"):
        SampleOrder(reader.documents("train"), 7, 1, 0)


@given(count=st.integers(0, 300), seed=st.integers(0, 2**70))
def test_a_permutation_holds_every_number_once(count: int, seed: int) -> None:
    assert sorted(permutation(count, seed, 3).tolist()) == list(range(count))


def splitmix64(state: int) -> Iterator[int]:
    """The published generator, one number at a time."""
    mask = 2**64 - 1
    while True:
        state = (state + 0x9E3779B97F4A7C15) & mask
        value = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
        yield value ^ (value >> 31)


def test_permutations_are_those_of_splitmix64_and_stay_these() -> None:
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [number for _, number in zip(range(3), splitmix64(1234567), strict=False)] == published
    state = 0
    for part in (12345, 7, 2):
        state = next(splitmix64(state ^ part))
    keys = [key for _, key in zip(range(10), splitmix64(state), strict=False)]
    assert permutation(10, 12345, 7, 2).tolist() == sorted(range(10), key=keys.__getitem__)
    # What an old model saw is computed anew by whoever audits it: these may never change.
    assert permutation(10, 12345, 7, 2).tolist() == [1, 0, 6, 9, 7, 5, 2, 4, 3, 8]
    assert permutation(10, 0, 0, 1).tolist() == [9, 1, 5, 2, 4, 7, 8, 6, 0, 3]


def test_permutations_are_even() -> None:
    places = np.array([permutation(8, seed, 0, 1) for seed in range(4000)])
    counts = np.array([np.bincount(places[:, column], minlength=8) for column in range(8)])
    # 500 expected in each of 64 cells; chi-squared with 49 degrees of freedom is below 86 with p = 0.999.
    assert ((counts - 500) ** 2 / 500).sum() < 86


@given(
    lengths=LENGTHS, length=st.integers(1, 16), overlap=st.integers(0, 15), rows=st.integers(1, 5), limit=st.integers(1)
)
@settings(deadline=None)
def test_held_out_tokens_are_each_predicted_once_with_their_own_document_alone(
    lengths: list[int], length: int, overlap: int, rows: int, limit: int
) -> None:
    overlap = min(overlap, length - 1)
    with made_of(lengths) as reader:
        held_out = held_out_sequences(reader.documents("train"), length, limit, overlap)
        chosen = [int(doc_id, 16) for doc_id in held_out.doc_ids.to_pylist()]
        assert chosen == sorted(chosen)
        assert sum(lengths[number] for number in chosen) == held_out.tokens <= max(limit, min(lengths))
        assert held_out.text_bytes == 3 * held_out.tokens
        assert held_out.unpredicted == len(chosen)
        predicted: Counter[int] = Counter()
        number_of_rows = 0
        for batch in held_out.batches(rows):
            number_of_rows += len(batch.tokens)
            for tokens, positions, mask in zip(*(part.tolist() for part in batch), strict=True):
                for column in np.flatnonzero(mask).tolist():
                    assert tokens[column + 1] == tokens[column] + 1
                    assert tokens[column - positions[column]] == tokens[column] - positions[column]
                    predicted[tokens[column + 1]] += 1
        assert number_of_rows == len(held_out)
        expected = [number * PLACES + place for number in chosen for place in range(1, lengths[number])]
        assert predicted == Counter(expected)
        assert held_out.predicted == len(expected)


def test_nothing_held_out_is_an_error() -> None:
    with made_of([5, 5]) as reader, pytest.raises(SourceError, match="no text in 0"):
        held_out_sequences(reader.documents("test"), 4)


def test_overlap_gives_every_token_that_much_context() -> None:
    with made_of([200]) as reader:
        held_out = held_out_sequences(reader.documents("train"), 32, overlap=24)
        (batch,) = held_out.batches(100)
    first = batch.tokens[:, 1:][batch.mask]
    assert first.tolist() == list(range(1, 200))
    assert batch.position_ids[1:][batch.mask[1:]].min() == 24


def test_bits_per_byte_charge_first_tokens_as_equally_likely() -> None:
    with made_of([11, 11]) as reader:
        held_out = held_out_sequences(reader.documents("train"), 8)
        uniform = np.log(reader.vocabulary_size) * held_out.predicted
        assert held_out.bits_per_byte(uniform) == pytest.approx(22 * np.log2(reader.vocabulary_size) / 66)


@pytest.mark.slow
def test_a_million_documents_are_quick(tmp_path: Path) -> None:
    import time

    number = 1_000_000
    lengths = np.random.default_rng(0).integers(1, 1000, number)
    columns = {
        "doc_id": [f"{value:032x}" for value in range(number)],
        "split": ["train"] * number,
        "shard": np.zeros(number, np.int32),
        "offset": np.cumsum(lengths) - lengths,
        "length": lengths,
        "bytes": lengths,
    }
    empty = {name: [""] * number for name in ("source", "format", "language")}
    table = pa.table({name: (columns | empty)[name] for name in INDEX_SCHEMA.names}, schema=INDEX_SCHEMA)
    pq.write_table(table, tmp_path / "index.parquet")
    header = {"dtype": "uint16", "vocabulary_size": 4096, "end_token_id": 0, "tokenizer_sha256": "0"}
    (tmp_path / "header.json").write_text(json.dumps(header))
    order = SampleOrder(ShardReader([tmp_path]).documents("train"), 1024, 64, 0)
    order.spans(0)
    start = time.process_time()
    for step in range(1, 21):
        order.spans(step)
    assert (time.process_time() - start) / 20 < 0.05
    start = time.process_time()
    table = order.exposure_table(int(1.5 * order.steps_per_epoch))
    assert time.process_time() - start < 20
    assert table.num_rows == number
