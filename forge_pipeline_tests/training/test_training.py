"""Real training processes: the same run whatever happens to them, and nothing left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from forge_pipeline.errors import MachineError, TrainingError
from forge_pipeline.reporting import SilentProgress
from forge_pipeline.storage import Home
from forge_pipeline.training.launch import train
from forge_pipeline.training.lease import lease
from forge_pipeline.training.pretraining import train_base_model
from forge_pipeline.training.run import TrainingRun
from forge_pipeline.training.settings import PretrainingSettings
from forge_pipeline_tests.training.conftest import ARCHITECTURE, Corpus, pretraining

pytestmark = pytest.mark.slow


def run(settings: PretrainingSettings, corpus: Corpus, root: Path, name: str = "run") -> Path:
    output = root / f"{name}-{len(list(root.glob(f'{name}-*')))}"
    output.mkdir(parents=True)
    train_base_model(
        settings, ARCHITECTURE, [corpus.shards], corpus.tokenizer, output, root / f"{name}.work", SilentProgress()
    )
    return output


def losses(output: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (output / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def uninterrupted(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(pretraining(), corpus, tmp_path_factory.mktemp("uninterrupted"))


def test_it_learns_and_leaves_a_model_and_who_was_read_when(uninterrupted: Path) -> None:
    curve = losses(uninterrupted)
    assert len(curve) == 12
    assert curve[-1] < curve[0] - 0.5
    assert {path.name for path in uninterrupted.iterdir()} == {
        "exposure.parquet",
        "metrics.jsonl",
        "model",
        "run.json",
    }


def test_the_same_run_gives_the_same_bytes(uninterrupted: Path, corpus: Corpus, tmp_path: Path) -> None:
    again = run(pretraining(), corpus, tmp_path)
    for name in ("metrics.jsonl", "model/model.safetensors", "exposure.parquet"):
        assert (again / name).read_bytes() == (uninterrupted / name).read_bytes(), name


TRAINER = """
import sys
from pathlib import Path
from forge_pipeline.reporting import SilentProgress
from forge_pipeline.training.pretraining import train_base_model
from forge_pipeline.training.settings import PretrainingSettings
from forge_pipeline.models.architecture import ArchitectureSettings

settings, architecture, shards, tokenizer, root = sys.argv[1:]

class Told(SilentProgress):
    def metrics(self, step, values):
        print(step, flush=True)

output = Path(root) / "killed"
output.mkdir(exist_ok=True)
train_base_model(
    PretrainingSettings.model_validate_json(settings),
    ArchitectureSettings.model_validate_json(architecture),
    [Path(shards)], Path(tokenizer), output, Path(root) / "run.work", Told(),
)
"""


def start_launcher(settings: PretrainingSettings, corpus: Corpus, root: Path) -> subprocess.Popen[str]:
    arguments = [settings.model_dump_json(), ARCHITECTURE.model_dump_json(), str(corpus.shards), str(corpus.tokenizer)]
    return subprocess.Popen([sys.executable, "-c", TRAINER, *arguments, str(root)], stdout=subprocess.PIPE, text=True)


def workers(root: Path) -> list[int]:
    """Process ids of the training processes that work under ``root``."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().decode()
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if "forge_pipeline.training.worker" in command and str(root) in command and state != "Z":
            found.append(int(folder.name))
    return found


def wait_until_gone(root: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while workers(root) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert workers(root) == []


@pytest.mark.parametrize("victim", ["launcher", "worker"])
def test_a_killed_run_leaves_no_process_and_resumes_to_the_same_bytes(
    victim: str, uninterrupted: Path, corpus: Corpus, tmp_path: Path
) -> None:
    launcher = start_launcher(pretraining(), corpus, tmp_path)
    assert launcher.stdout is not None
    steps = [int(launcher.stdout.readline()) for _ in range(7)]
    assert steps[-1] == 6
    assert workers(tmp_path)
    os.kill(launcher.pid if victim == "launcher" else workers(tmp_path)[0], signal.SIGKILL)
    launcher.wait(20)
    wait_until_gone(tmp_path, 10)

    resumed = run(pretraining(), corpus, tmp_path)
    log = (tmp_path / "run.work" / "logs" / "rank-0.log").read_text()
    # The training may have been ahead of what its launcher had told.
    assert re.search(r"resuming at step [48]\b", log)
    assert losses(resumed) == losses(uninterrupted)
    assert (resumed / "model/model.safetensors").read_bytes() == (
        uninterrupted / "model/model.safetensors"
    ).read_bytes()


def test_a_stopped_run_leaves_a_checkpoint_of_its_last_step(
    uninterrupted: Path, corpus: Corpus, tmp_path: Path
) -> None:
    launcher = start_launcher(pretraining(checkpoint_every=1000), corpus, tmp_path)
    assert launcher.stdout is not None
    for _ in range(3):
        launcher.stdout.readline()
    launcher.send_signal(signal.SIGINT)
    launcher.wait(20)
    wait_until_gone(tmp_path, 10)
    resumed = run(pretraining(checkpoint_every=1000), corpus, tmp_path)
    assert "resuming at step" in (tmp_path / "run.work" / "logs" / "rank-0.log").read_text()
    assert losses(resumed) == losses(uninterrupted)


@pytest.mark.parametrize(
    "engine",
    [{"gradient_checkpointing": True}, {"micro_batch": 4}, {"world_size": 2}, {"world_size": 2, "micro_batch": 1}],
)
def test_how_a_step_is_computed_does_not_change_the_losses(
    engine: Mapping[str, int], uninterrupted: Path, corpus: Corpus, tmp_path: Path
) -> None:
    # In float32 the ways of summing differ by rounding alone; Muon's bf16 iteration would amplify that.
    settings = {"precision": "fp32", "optimizer": {"kind": "adamw", "learning_rate": 0.003}}
    plain = losses(run(pretraining(**settings), corpus, tmp_path, "plain"))
    other = losses(run(pretraining(**settings, **engine), corpus, tmp_path, "other"))
    assert other == pytest.approx(plain, abs=1e-4)


@pytest.mark.parametrize("stage", [1, 2])
def test_zero_stages_agree(stage: int, corpus: Corpus, tmp_path: Path) -> None:
    settings = {"precision": "fp32", "optimizer": {"kind": "adamw", "learning_rate": 0.003}}
    plain = losses(run(pretraining(**settings), corpus, tmp_path, "plain"))
    partitioned = losses(run(pretraining(**settings, zero_stage=stage, world_size=2), corpus, tmp_path, "zero"))
    assert partitioned == pytest.approx(plain, abs=1e-4)


def test_a_failing_rank_is_one_error_with_the_end_of_its_log(corpus: Corpus, tmp_path: Path) -> None:
    broken = TrainingRun(
        objective="forge_pipeline.training.pretraining:PretrainingObjective",
        objective_settings={"token_shards": [str(tmp_path / "nowhere")]},
        initial_model=str(tmp_path / "no model"),
        tokenizer=str(corpus.tokenizer / "tokenizer"),
        engine=pretraining().engine,
    )
    with pytest.raises(TrainingError, match="no model"):
        train(broken, tmp_path / "work", tmp_path, SilentProgress())


def test_nobody_trains_while_another_holds_the_lease(tmp_path: Path) -> None:
    path = Home.locate().leases / "test.lock"
    # The second opens the file anew, as another process would.
    with lease(path, 0), pytest.raises(MachineError, match=str(os.getpid())), lease(path, 0.3):
        pass
    with lease(path, 0):
        pass
