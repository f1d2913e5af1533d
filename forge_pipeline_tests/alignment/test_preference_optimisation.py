from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from forge_pipeline.alignment.preference_optimisation import (
    DirectPreferenceObjective,
    encode_pairs,
    preference_loss,
    train_preferences,
)
from forge_pipeline.alignment.preferences import PAIRS, build_pairs
from forge_pipeline.alignment.sequences import SequenceStore
from forge_pipeline.alignment.settings import PairSettings, PreferenceSettings
from forge_pipeline.corpus.tables import read_table
from forge_pipeline.models.files import load_model, save_model
from forge_pipeline.models.mistral import Mistral
from forge_pipeline.reporting import SilentProgress
from forge_pipeline.training.objective import Batch, TrainingContext
from forge_pipeline.training.settings import EngineSettings, OptimizerSettings, ScheduleSettings

BETA = 0.3


@pytest.fixture
def pairs(write_corpus: Any, tmp_path: Path) -> Path:
    output = tmp_path / "pairs"
    output.mkdir()
    build_pairs(PairSettings(maximum_per_kind=6), [write_corpus(modules=16)], output, SilentProgress())
    return output


@pytest.fixture
def objective_settings(model: Mistral, pairs: Path, tokenizer: Path, tmp_path: Path) -> dict[str, Any]:
    save_model(model, tmp_path / "base" / "model", tokenizer / "tokenizer")
    encoded = encode_pairs(read_table(pairs, PAIRS).to_pylist(), tokenizer / "tokenizer")
    fitting = [half for pair in encoded if max(len(ids) for ids, _ in pair) <= 128 for half in pair]
    SequenceStore.of(fitting).write(tmp_path / "pairs.safetensors")
    return {
        "sequences": str(tmp_path / "pairs.safetensors"),
        "reference_model": str(tmp_path / "base" / "model"),
        "beta": BETA,
        "chosen_weight": 0.0,
        "pairs_per_step": 5,
        "row_tokens": 128,
        "steps": 2,
    }


def context_of(model: torch.nn.Module, tokenizer: Path, rank: int = 0, world_size: int = 1) -> TrainingContext:
    return TrainingContext(model, torch.device("cpu"), tokenizer, 5, rank, world_size, 4, lambda value: value)


def naive_log_prob(model: Mistral, store: SequenceStore, index: int) -> float:
    ids, targets = (part.tolist() for part in store.tokens(index))
    log_probs = torch.log_softmax(model(torch.tensor([ids]))[0].detach().double(), -1)
    return sum(float(log_probs[place - 1, ids[place]]) for place in range(1, len(ids)) if targets[place])


def test_the_loss_is_the_paper_s_formula() -> None:
    margins = torch.tensor([0.0, 1.0, -2.0, 30.0])
    expected = [-math.log(1 / (1 + math.exp(-value))) for value in margins.tolist()]
    assert preference_loss(margins).tolist() == pytest.approx(expected, abs=1e-6)
    assert preference_loss(torch.tensor([-200.0])).tolist() == pytest.approx([200.0])


def test_an_untrained_policy_agrees_with_its_reference_to_the_last_bit(
    model: Mistral, tokenizer: Path, objective_settings: dict[str, Any]
) -> None:
    objective = DirectPreferenceObjective(objective_settings, context_of(model, tokenizer))
    for step in range(2):
        for batch in objective.micro_batches(step):
            loss, extra = objective.loss(batch)
            assert extra["margin"] == 0.0
            assert float(loss.detach()) == pytest.approx(math.log(2) * batch.weight)


def test_the_loss_of_a_moved_policy_is_that_of_the_sequences_one_by_one(
    model: Mistral, tokenizer: Path, objective_settings: dict[str, Any]
) -> None:
    objective = DirectPreferenceObjective(objective_settings, context_of(model, tokenizer))
    with torch.no_grad():
        for place, parameter in enumerate(model.parameters()):
            parameter.mul_(1.0 + 0.02 * (place % 5))
    reference = load_model(Path(objective_settings["reference_model"]))
    expected = []
    batches = objective.micro_batches(0)
    for pair in (int(pair) for batch in batches for pair in batch.tensors["pairs"]):
        moved = [naive_log_prob(model, objective.store, 2 * pair + half) for half in (0, 1)]
        still = [naive_log_prob(reference, objective.store, 2 * pair + half) for half in (0, 1)]
        margin = BETA * ((moved[0] - still[0]) - (moved[1] - still[1]))
        expected.append(math.log1p(math.exp(-margin)))
    found = sum(float(objective.loss(batch)[0].detach()) for batch in batches)
    assert sum(batch.weight for batch in batches) == len(expected) == 5
    assert found == pytest.approx(sum(expected), rel=1e-4)


def test_the_chosen_answers_own_loss_is_added_per_token(
    model: Mistral, tokenizer: Path, objective_settings: dict[str, Any]
) -> None:
    plain, weighted = (
        DirectPreferenceObjective(objective_settings | {"chosen_weight": weight}, context_of(model, tokenizer))
        for weight in (0.0, 0.5)
    )
    for batch in plain.micro_batches(0):
        expected = 0.0
        for pair in batch.tensors["pairs"].tolist():
            length = int(plain.store.tokens(2 * pair)[1].sum())
            expected -= 0.5 * naive_log_prob(model, plain.store, 2 * pair) / length
        difference = float((weighted.loss(batch)[0] - plain.loss(batch)[0]).detach())
        assert difference == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("world_size", [2, 5, 7])
def test_ranks_share_the_pairs_of_a_step(
    model: Mistral, tokenizer: Path, objective_settings: dict[str, Any], world_size: int
) -> None:
    def counted(batches: list[Batch]) -> list[int]:
        return [int(pair) for batch in batches if batch.weight for pair in batch.tensors["pairs"]]

    alone = DirectPreferenceObjective(objective_settings, context_of(model, tokenizer))
    ranks = [
        DirectPreferenceObjective(objective_settings, context_of(model, tokenizer, rank, world_size))
        for rank in range(world_size)
    ]
    shares = [rank.micro_batches(1) for rank in ranks]
    assert len({len(share) for share in shares}) == 1
    assert sorted(pair for share in shares for pair in counted(share)) == sorted(counted(alone.micro_batches(1)))
    idle = [batch for share in shares for batch in share if not batch.weight]
    assert bool(idle) == (world_size != 5)
    for rank, share in zip(ranks, shares, strict=True):
        assert all(float(rank.loss(batch)[0].detach()) == 0.0 for batch in share if not batch.weight)


def test_training_widens_the_margin(model: Mistral, tokenizer: Path, objective_settings: dict[str, Any]) -> None:
    objective = DirectPreferenceObjective(objective_settings, context_of(model, tokenizer))
    optimizer = torch.optim.AdamW(model.parameters(), 0.003)
    for _ in range(6):
        optimizer.zero_grad()
        for batch in objective.micro_batches(0):
            objective.loss(batch)[0].backward()
        optimizer.step()
    after = [objective.loss(batch) for batch in objective.micro_batches(0)]
    assert sum(extra["margin"] for _, extra in after) > 0.5
    assert sum(extra["accuracy"] for _, extra in after) == 5


@pytest.mark.slow
def test_preference_training_writes_a_model_that_prefers_the_true_answers(
    model: Mistral, tokenizer: Path, pairs: Path, tmp_path: Path
) -> None:
    save_model(model, tmp_path / "base" / "model", tokenizer / "tokenizer")
    (tmp_path / "out").mkdir()
    settings = PreferenceSettings(
        pairs_per_step=8,
        engine=EngineSettings(
            steps=20,
            optimizer=OptimizerSettings(kind="adamw", learning_rate=0.003),
            schedule=ScheduleSettings(warmup_steps=2),
            precision="fp32",
        ),
    )
    outcome = train_preferences(
        settings, tmp_path / "base", pairs, tokenizer, tmp_path / "out", tmp_path / "work", SilentProgress()
    )
    history = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert history[0]["loss"] == pytest.approx(math.log(2))
    assert history[-1]["loss"] < history[0]["loss"]
    fitting, left_out = outcome.counts["pairs"], outcome.counts["pairs_too_long"]
    assert isinstance(fitting, int)
    assert isinstance(left_out, int)
    assert fitting + left_out == read_table(pairs, PAIRS).num_rows
    assert outcome.checks[0].passed == (fitting >= 9 * left_out)
    load_model(tmp_path / "out" / "model")
