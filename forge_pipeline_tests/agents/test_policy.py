"""The agent stage end to end, in its own training processes."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from forge_pipeline.agents.objective import ROLLOUTS_FILE
from forge_pipeline.agents.policy import train_agent
from forge_pipeline.agents.settings import AgentSettings, PolicySettings
from forge_pipeline.models.files import load_model, save_model
from forge_pipeline.models.mistral import Mistral
from forge_pipeline.reporting import SilentProgress
from forge_pipeline.training.settings import EngineSettings, OptimizerSettings, ScheduleSettings


@pytest.mark.slow
def test_training_writes_a_model_its_rollouts_and_what_people_look_at(
    model: Mistral,
    settings: AgentSettings,
    tasks_folder: Path,
    tokenizer_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORGE_HOME", str(tmp_path / "home"))
    initial, tokenizer, output = tmp_path / "initial", tmp_path / "tokenizer", tmp_path / "output"
    save_model(model, initial / "model", tokenizer_folder)
    tokenizer.mkdir()
    (tokenizer / "tokenizer").symlink_to(tokenizer_folder)
    output.mkdir()
    chosen = settings.model_copy(
        update={"policy": PolicySettings(group_size=2, tasks_per_step=4, sampled_steps=2, kl_coefficient=0.01)}
    )
    engine = EngineSettings(
        steps=3,
        precision="fp32",
        optimizer=OptimizerSettings(kind="adamw", learning_rate=1e-4),
        schedule=ScheduleSettings(kind="constant", warmup_steps=0),
        evaluate_every=3,
    )
    outcome = train_agent(chosen, engine, initial, tasks_folder, tokenizer, output, tmp_path / "work", SilentProgress())
    assert outcome.counts["rollouts"] == 3 * 4 * 2
    assert all(check.passed for check in outcome.checks)
    assert {row["step"] for row in pq.read_table(output / ROLLOUTS_FILE).to_pylist()} == {0, 2}
    history = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in history] == [0, 1, 2]
    assert all(0 <= entry["reward"] <= 1.1 for entry in history)
    assert history[-1]["validation_greedy_success"] == 0.0
    assert load_model(output / "model").config == model.config
    run = json.loads((output / "run.json").read_text())
    assert run["objective"].endswith("GroupRelativePolicyObjective")
