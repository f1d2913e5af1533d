"""A small corpus of real text as token shards, and training runs over it."""

from __future__ import annotations

import hashlib
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from forge_pipeline.models.architecture import ArchitectureSettings
from forge_pipeline.reporting import SilentProgress
from forge_pipeline.tokens.settings import ShardSettings, TokenizerSettings
from forge_pipeline.tokens.shards import write_shards
from forge_pipeline.tokens.tokenizer import train_tokenizer
from forge_pipeline.training.settings import EngineSettings, PretrainingSettings

ARCHITECTURE = ArchitectureSettings(
    hidden_size=64, layers=2, heads=4, key_value_heads=2, intermediate_size=128, context_length=64
)


@dataclass(frozen=True)
class Corpus:
    """Sealed-looking folders of the stages that training reads."""

    tokenizer: Path
    shards: Path


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    root = tmp_path_factory.mktemp("corpus")
    folders = {name: root / name for name in ("training", "tokenizer", "shards")}
    for folder in folders.values():
        folder.mkdir()
    rows = []
    for number, path in enumerate(sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:60]):
        text = path.read_text(encoding="utf-8")
        rows.append(
            {
                "doc_id": hashlib.sha256(path.name.encode()).hexdigest()[:32],
                "split": "validation" if number % 10 == 0 else "train",
                "source": "standard_library",
                "format": "python",
                "language": "en",
                "text": text,
                "bytes": len(text.encode()),
            }
        )
    pq.write_table(pa.Table.from_pylist(rows), folders["training"] / "documents.parquet")
    settings = TokenizerSettings(vocabulary_size=512)
    train_tokenizer(settings, [folders["training"]], folders["tokenizer"], SilentProgress())
    write_shards(ShardSettings(), folders["training"], folders["tokenizer"], folders["shards"], SilentProgress())
    return Corpus(folders["tokenizer"], folders["shards"])


def pretraining(**engine: Any) -> PretrainingSettings:
    defaults: dict[str, Any] = {"steps": 12, "micro_batch": 2, "checkpoint_every": 4, "evaluate_every": 6}
    return PretrainingSettings(
        sequence_length=48,
        sequences_per_step=4,
        validation_tokens=2000,
        engine=EngineSettings(**(defaults | engine)),
    )
