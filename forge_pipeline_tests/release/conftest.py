"""A tiny model with a real tokenizer and chat template, evaluations of it, and an MLflow database made once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from forge_pipeline.evaluation.results import RESULT_SCHEMA
from forge_pipeline.release.decision import StageCost, decide_release
from forge_pipeline.release.facts import LineageFacts, SourceFacts, StageFacts
from forge_pipeline.release.package import package_model
from forge_pipeline.release.settings import ReleaseSettings, ServingSettings, Threshold
from forge_pipeline.reporting import SilentProgress

SETTINGS = ReleaseSettings(
    registered_model="assistant",
    thresholds=(Threshold(metric="accuracy", at_least=0.5),),
    serving=ServingSettings(prompts=("What is a list?", "And a dict?"), max_new_tokens=6),
)
FACTS = LineageFacts(
    model="assistant",
    corpus="docs",
    batches=2,
    documents=1234,
    training_tokens=56789,
    tokens_seen=99999,
    sources=(
        SourceFacts(
            source="lib | <script>alert(1)</script>",
            licence="PSF-2.0",
            owner="",
            purpose="",
            landed=3,
            documents=2,
            tokens=56789,
        ),
    ),
    stages=(StageFacts(stage="sft_model", fingerprint="f" * 64, seconds=12.5, parameters={"engine.steps": 3}),),
    fingerprints={"docs/landing_files[0001]": "a" * 64},
)
Results = Mapping[str, tuple[float, float, float]]


def write_evaluation(folder: Path, results: Results) -> Path:
    """An evaluation artifact with metric -> (value, low, high) over 100 questions."""
    folder.mkdir(parents=True)
    rows = [
        {"metric": metric, "value": value, "low": low, "high": high, "n": 100, "unit": "questions", "detail": ""}
        for metric, (value, low, high) in results.items()
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=RESULT_SCHEMA), folder / "results.parquet")
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model artifact: `model/` in the Hugging Face layout, `metrics.jsonl`."""
    from forge_pipeline.models.architecture import ArchitectureSettings, ModelConfig
    from forge_pipeline.models.files import new_model, save_model
    from forge_pipeline.tokens.settings import TokenizerSettings
    from forge_pipeline.tokens.tokenizer import learn, save_tokenizer

    folder = tmp_path_factory.mktemp("sft_model")
    tokenizer = learn(TokenizerSettings(vocabulary_size=300), iter([["def join(a, b): return a + b"] * 20]))
    (folder / "tokenizer").mkdir()
    save_tokenizer(tokenizer, folder / "tokenizer")
    shape = ArchitectureSettings(
        hidden_size=32, layers=1, heads=2, key_value_heads=1, intermediate_size=32, context_length=256
    )
    model = new_model(ModelConfig.build(shape, tokenizer.get_vocab_size()), seed=1)
    save_model(model, folder / "model", folder / "tokenizer")
    shutil.rmtree(folder / "tokenizer")
    steps = [{"step": step, "loss": 8.0 / step, "tokens": 100 * step} for step in range(1, 6)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    return folder


@dataclass(frozen=True)
class Release:
    """The artifacts of one release."""

    model: Path
    decision: Path
    package: Path


MakeRelease = Callable[..., Release]


@pytest.fixture
def make_release(tiny_model: Path, tmp_path: Path) -> MakeRelease:
    """`make_release("name", accuracy=0.7)`: decided and packaged; the gate asks for 0.5."""

    def make(name: str, *, accuracy: float = 0.7) -> Release:
        root = tmp_path / name
        evaluation = write_evaluation(root / "evaluation", {"accuracy": (accuracy, accuracy - 0.1, accuracy + 0.1)})
        decision, package = root / "decision", root / "package"
        decision.mkdir()
        package.mkdir()
        costs = {"sft_model": StageCost(seconds=10.0, flops=1e9)}
        decide_release(SETTINGS, {"sft_model": evaluation}, costs, decision, SilentProgress())
        package_model(SETTINGS, tiny_model, decision, FACTS, package, SilentProgress())
        return Release(tiny_model, decision, package)

    return make


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's migrations take seconds: run once, then the file is copied."""
    from forge_pipeline.release.mlflow_connection import connect

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    connect(f"sqlite:///{path}")
    return path


@pytest.fixture
def tracking_uri(empty_database: Path, tmp_path: Path) -> str:
    path = tmp_path / "mlflow" / "mlflow.db"
    path.parent.mkdir()
    shutil.copyfile(empty_database, path)
    return f"sqlite:///{path}"
