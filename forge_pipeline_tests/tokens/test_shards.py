"""Shards hold every document's tokens exactly once, and are read back by document."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forge_pipeline.errors import StorageError
from forge_pipeline.reporting import SilentProgress
from forge_pipeline.tokens.chat import encode_text, load_tokenizer
from forge_pipeline.tokens.settings import ShardSettings
from forge_pipeline.tokens.shards import ShardReader, token_type, write_shards

WriteDocuments = Callable[[Path, Sequence[tuple[str, str]]], Path]


def test_each_document_is_the_reference_encoding_and_an_end_token(
    corpus: list[Path], shards: list[Path], tokenizer_folder: Path
) -> None:
    reference, reader = load_tokenizer(tokenizer_folder), ShardReader(shards)
    for part, folder in enumerate(corpus):
        documents = pq.read_table(folder / "documents.parquet").to_pylist()
        index = pq.read_table(shards[part] / "index.parquet").to_pylist()
        for row, (document, entry) in enumerate(zip(documents, index, strict=True)):
            assert reader.document(part, row).tolist() == [*encode_text(reference, document["text"]), 0]
            for name in ("doc_id", "split", "source", "format", "language", "bytes"):
                assert entry[name] == document[name]


@given(texts=st.lists(st.text(max_size=40), max_size=12), shard_tokens=st.integers(1, 60))
@settings(deadline=None, max_examples=25)
def test_every_token_of_every_shard_belongs_to_exactly_one_document(
    texts: list[str],
    shard_tokens: int,
    write_documents: WriteDocuments,
    tokenizer_artifact: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    root = tmp_path_factory.mktemp("example")
    part = write_documents(root / "part", [("train", text) for text in texts])
    output = root / "shards"
    output.mkdir()
    write_shards(ShardSettings(shard_tokens=shard_tokens), part, tokenizer_artifact, output, SilentProgress())
    owners = [np.zeros(path.stat().st_size // 2, dtype=int) for path in sorted(output.glob("shard-*.bin"))]
    alone: dict[int, int] = {}
    for row in pq.read_table(output / "index.parquet").to_pylist():
        owners[row["shard"]][row["offset"] : row["offset"] + row["length"]] += 1
        alone[row["shard"]] = alone.get(row["shard"], 0) + 1
    assert all((owner == 1).all() for owner in owners)
    assert all(len(owner) <= shard_tokens or alone[number] == 1 for number, owner in enumerate(owners))


def test_counts_are_those_of_the_index(
    corpus: list[Path], shards: list[Path], tokenizer_artifact: Path, tmp_path: Path
) -> None:
    outcome = write_shards(ShardSettings(), corpus[0], tokenizer_artifact, tmp_path, SilentProgress())
    index = pq.read_table(tmp_path / "index.parquet").to_pylist()
    assert outcome.counts["tokens"] == sum(row["length"] for row in index)
    assert outcome.counts["tokens_test"] == sum(row["length"] for row in index if row["split"] == "test")
    assert outcome.counts["documents"] == len(index)
    assert outcome.counts["shards"] == 1
    assert len(list(shards[0].glob("shard-*.bin"))) > 1
    assert all(check.passed for check in outcome.checks)
    assert sum(outcome.plots[0].series["documents"][1]) == len(index)
    bytes_again = tmp_path / "again"
    bytes_again.mkdir()
    write_shards(ShardSettings(), corpus[0], tokenizer_artifact, bytes_again, SilentProgress())
    for path in sorted(tmp_path.glob("*.*")):
        assert path.read_bytes() == (bytes_again / path.name).read_bytes(), path.name


def test_a_batch_without_documents_makes_an_empty_part(
    shards: list[Path], write_documents: WriteDocuments, tokenizer_artifact: Path, tmp_path: Path
) -> None:
    part = write_documents(tmp_path / "part", [])
    (tmp_path / "shards").mkdir()
    outcome = write_shards(ShardSettings(), part, tokenizer_artifact, tmp_path / "shards", SilentProgress())
    assert outcome.counts["documents"] == 0
    alone, within = ShardReader(shards), ShardReader([shards[0], tmp_path / "shards", shards[1]])
    assert within.documents().doc_ids.equals(alone.documents().doc_ids)
    assert within.document(2, 3).tolist() == alone.document(1, 3).tolist()


def test_documents_of_a_split_are_found_in_order(shards: list[Path]) -> None:
    reader = ShardReader(shards)
    train = reader.documents("train")
    rows = [row for row in reader.index.to_pylist() if row["split"] == "train"]
    assert train.doc_ids.to_pylist() == [row["doc_id"] for row in rows]
    assert train.lengths.tolist() == [row["length"] for row in rows]
    assert [len(train.tokens(number)) for number in range(len(train))] == train.lengths.tolist()
    assert train.tokens(3, 1, 4).tolist() == train.tokens(3)[1:4].tolist()
    with pytest.raises(IndexError):
        train.tokens(3, 0, int(train.lengths[3]) + 1)


def test_ids_beyond_two_bytes_take_four() -> None:
    assert (token_type(4096), token_type(65_535), token_type(65_536)) == ("<u2", "<u2", "<u4")


def test_damaged_or_mismatched_parts_are_refused_with_the_file_named(shards: list[Path], tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(shards[1], damaged)
    shard = damaged / "shard-00000.bin"
    shard.write_bytes(shard.read_bytes()[:-2])
    with pytest.raises(StorageError, match=r"shard-00000\.bin"):
        ShardReader([shards[0], damaged]).document(1, 0)
    header = json.loads((damaged / "header.json").read_text())
    (damaged / "header.json").write_text(json.dumps(header | {"tokenizer_sha256": "0" * 64}))
    with pytest.raises(StorageError, match=r"header\.json"):
        ShardReader([shards[0], damaged])
    (damaged / "header.json").unlink()
    with pytest.raises(StorageError, match=r"header\.json"):
        ShardReader([damaged])
    with pytest.raises(StorageError, match="no token shards"):
        ShardReader([])
