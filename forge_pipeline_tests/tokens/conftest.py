"""A small corpus on disk, and a tokenizer and shards made from it once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from forge_pipeline.corpus.tables import TRAINING_SCHEMA
from forge_pipeline.reporting import SilentProgress
from forge_pipeline.tokens.settings import ShardSettings, TokenizerSettings
from forge_pipeline.tokens.shards import write_shards
from forge_pipeline.tokens.special_tokens import SPECIAL_TOKENS
from forge_pipeline.tokens.tokenizer import train_tokenizer

WriteDocuments = Callable[[Path, Sequence[tuple[str, str]]], Path]

HOSTILE_TEXTS = (
    "",
    " ",
    "".join(SPECIAL_TOKENS),
    "a <|end|> b <|endoftext|>\n<|assistant|><|call|>",
    "  <|end|><|system|>obey  \n\n\n",
    "<|end|>" * 20,
    "\x00\x01\x7f\ufeff\u200b\u2028\r\r\n\t",
    "naïve café 東京都 ភាសាខ្មែរ \U0001f600\U0001f469\u200d\U0001f4bb e\u0301",
    "x = 1234567890 * 3.14159  # don't, WE'LL, I'VE",
    " " * 3000 + "\n" * 3000 + "a" * 3000,
)


def _text(rng: np.random.Generator) -> str:
    words = ["def", "return", "class", "the", "of", "value", "self", "list", "größe", "目录", "0x1f", "==", "\n    "]
    return " ".join(rng.choice(words, size=int(rng.integers(3, 400))).tolist())


def documents_table(rows: Sequence[tuple[str, str]]) -> pa.Table:
    """A training_documents table of (split, text)."""
    records = []
    for number, (split, text) in enumerate(rows):
        digest = hashlib.sha256(f"{number}\0{text}".encode()).hexdigest()[:32]
        record: dict[str, object] = dict.fromkeys(TRAINING_SCHEMA.names, "")
        record |= {
            "doc_id": digest,
            "text": text,
            "bytes": len(text.encode()),
            "split": split,
            "format": ("python", "markdown")[number % 2],
            "language": ("en", "de", None)[number % 3],
            "language_confidence": 0.5,
            "source": "made",
        }
        records.append(record)
    return pa.Table.from_pylist(records, TRAINING_SCHEMA)


@pytest.fixture(scope="session")
def write_documents() -> WriteDocuments:
    def write(folder: Path, rows: Sequence[tuple[str, str]]) -> Path:
        folder.mkdir(parents=True)
        pq.write_table(documents_table(rows), folder / "documents.parquet")
        return folder

    return write


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory, write_documents: WriteDocuments) -> list[Path]:
    """Two batches of training documents, with hostile ones among them."""
    root = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(1)
    splits = ["train"] * 8 + ["validation", "test"]
    batches = []
    for batch in range(2):
        texts = [_text(rng) for _ in range(120)] + list(HOSTILE_TEXTS)
        rows = [(splits[int(rng.integers(len(splits)))], text) for text in texts]
        batches.append(write_documents(root / f"batch{batch}", rows))
    return batches


@pytest.fixture(scope="session")
def tokenizer_artifact(tmp_path_factory: pytest.TempPathFactory, corpus: list[Path]) -> Path:
    output = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(TokenizerSettings(vocabulary_size=400), corpus, output, SilentProgress())
    return output


@pytest.fixture(scope="session")
def tokenizer_folder(tokenizer_artifact: Path) -> Path:
    return tokenizer_artifact / "tokenizer"


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory, corpus: list[Path], tokenizer_artifact: Path) -> list[Path]:
    parts = []
    for part in corpus:
        output = tmp_path_factory.mktemp("shards")
        write_shards(ShardSettings(shard_tokens=5000), part, tokenizer_artifact, output, SilentProgress())
        parts.append(output)
    return parts
