from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from forge_pipeline.alignment.examples import EXAMPLES, build_examples
from forge_pipeline.alignment.sequences import IGNORED, SequenceStore, lay_out
from forge_pipeline.alignment.settings import ExampleSettings, SupervisedSettings
from forge_pipeline.alignment.supervised import (
    PACKING,
    SupervisedObjective,
    encode_examples,
    masked_examples,
    train_supervised,
)
from forge_pipeline.corpus.tables import read_table
from forge_pipeline.errors import TrainingError
from forge_pipeline.models.files import load_model, save_model
from forge_pipeline.models.mistral import Mistral
from forge_pipeline.reporting import SilentProgress
from forge_pipeline.training.objective import TrainingContext
from forge_pipeline.training.settings import EngineSettings, OptimizerSettings, ScheduleSettings

ROW_TOKENS = 128
CONVERSATION = {
    "kind": "demonstration",
    "messages": json.dumps(
        [
            {"role": "system", "content": "Use the tools."},
            {"role": "user", "content": "Where is open_file_3?"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"type": "function", "function": {"name": "find", "arguments": {"name": "open_file"}}}],
            },
            {"role": "tool", "content": "package.module_3"},
            {"role": "assistant", "content": "In package.module_3."},
        ]
    ),
    "tools": json.dumps(
        [
            {
                "type": "function",
                "function": {"name": "find", "description": "Finds.", "parameters": {"properties": {"name": {}}}},
            }
        ]
    ),
}


@pytest.fixture
def examples(write_corpus: Any, tmp_path: Path) -> Path:
    output = tmp_path / "examples"
    output.mkdir()
    settings = ExampleSettings(maximum_per_kind=20, validation_examples=12)
    build_examples(settings, [write_corpus(modules=16)], None, output, SilentProgress())
    return output


def context_of(model: torch.nn.Module, tokenizer: Path, rank: int = 0, world_size: int = 1) -> TrainingContext:
    return TrainingContext(model, torch.device("cpu"), tokenizer, 5, rank, world_size, 2, lambda value: value)


@pytest.fixture
def objective_settings(examples: Path, tokenizer: Path, tmp_path: Path) -> dict[str, Any]:
    encoded = encode_examples(read_table(examples, EXAMPLES).to_pylist(), tokenizer / "tokenizer")
    SequenceStore.of([item for item in encoded if len(item[0]) <= ROW_TOKENS]).write(tmp_path / "s.safetensors")
    return {"sequences": str(tmp_path / "s.safetensors"), "row_tokens": ROW_TOKENS, "rows_per_step": 5}


def test_the_loss_is_on_what_the_assistant_says(tokenizer: Path) -> None:
    table = masked_examples(
        [CONVERSATION],
        SequenceStore.of(encode_examples([CONVERSATION], tokenizer / "tokenizer")),
        tokenizer / "tokenizer",
    )
    text = str(table.rows[0][table.columns.index("text")])
    assert [part.split("⟧")[0] for part in text.split("⟦")[1:]] == [
        '<|call|>find {"name":"open_file"}<|end|>',
        "In package.module_3.<|end|>",
    ]


@pytest.mark.slow
def test_the_loss_mask_is_the_chat_template_s_own(tokenizer: Path, examples: Path) -> None:
    from transformers import AutoTokenizer

    reference = AutoTokenizer.from_pretrained(tokenizer / "tokenizer")
    rows = [CONVERSATION, *read_table(examples, EXAMPLES).to_pylist()[:40]]
    for row, (ids, mask) in zip(rows, encode_examples(rows, tokenizer / "tokenizer"), strict=True):
        expected = reference.apply_chat_template(
            json.loads(row["messages"]),
            tools=json.loads(row["tools"]) or None,
            return_assistant_tokens_mask=True,
            return_dict=True,
        )
        assert ids == expected["input_ids"]
        assert [int(value) for value in mask] == expected["assistant_masks"]


def test_the_objective_s_loss_is_the_sum_over_targets(
    model: Mistral, tokenizer: Path, objective_settings: dict[str, Any]
) -> None:
    objective = SupervisedObjective(objective_settings, context_of(model, tokenizer))
    (first, *_) = objective.micro_batches(0)
    loss, extra = objective.loss(first)
    expected = correct = 0.0
    for index in _sequences_of(objective, first.tensors):
        ids, targets = (part.tolist() for part in objective.store.tokens(index))
        log_probs = torch.log_softmax(model(torch.tensor([ids]))[0].detach(), -1)
        for place in range(1, len(ids)):
            if targets[place]:
                expected -= float(log_probs[place - 1, ids[place]])
                correct += float(log_probs[place - 1].argmax() == ids[place])
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-4)
    assert extra["accuracy"] == correct
    assert first.weight == float((first.tensors["labels"] != IGNORED).sum())


def _sequences_of(objective: SupervisedObjective, tensors: dict[str, torch.Tensor]) -> list[int]:
    """Which rows of the objective a micro-batch holds, found by its tokens."""
    found = []
    for row in range(len(tensors["token_ids"])):
        for indices in objective.rows:
            laid = lay_out(objective.store, [indices])["token_ids"][0]
            if (
                torch.equal(laid, tensors["token_ids"][row, : len(laid)])
                and not tensors["token_ids"][row, len(laid) :].any()
            ):
                found.extend(indices)
                break
    return found


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_ranks_share_a_step_without_overlap_and_with_equally_many_batches(
    model: Mistral, tokenizer: Path, objective_settings: dict[str, Any], world_size: int
) -> None:
    alone = SupervisedObjective(objective_settings, context_of(model, tokenizer))
    ranks = [
        SupervisedObjective(objective_settings, context_of(model, tokenizer, rank, world_size))
        for rank in range(world_size)
    ]
    for step in (0, 3, 40):
        shares = [rank.micro_batches(step) for rank in ranks]
        assert len({len(share) for share in shares}) == 1
        whole = sum(float(alone.loss(batch)[0].detach()) for batch in alone.micro_batches(step))
        parts = sum(
            float(rank.loss(batch)[0].detach()) for rank, share in zip(ranks, shares, strict=True) for batch in share
        )
        assert parts == pytest.approx(whole, rel=1e-5)
        assert sum(batch.weight for share in shares for batch in share) == sum(
            batch.weight for batch in alone.micro_batches(step)
        )


def test_a_few_steps_on_one_batch_teach_it(model: Mistral, tokenizer: Path, objective_settings: dict[str, Any]) -> None:
    objective = SupervisedObjective(objective_settings, context_of(model, tokenizer))
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    losses = []
    for _ in range(25):
        batch = objective.micro_batches(0)[0]
        loss, _ = objective.loss(batch)
        losses.append(float(loss.detach()) / batch.weight)
        optimizer.zero_grad()
        (loss / batch.weight).backward()
        optimizer.step()
    assert losses[-1] < 0.6 * losses[0]


def test_validation_is_the_mean_over_target_tokens(
    model: Mistral, tokenizer: Path, objective_settings: dict[str, Any]
) -> None:
    settings = objective_settings | {"validation": objective_settings["sequences"]}
    objective = SupervisedObjective(settings, context_of(model, tokenizer))
    total = tokens = 0.0
    for index in range(len(objective.store)):
        tensors = lay_out(objective.store, [[index]])
        logits = model(tensors["token_ids"]).flatten(0, 1)
        total += float(F.cross_entropy(logits, tensors["labels"].flatten(), reduction="sum").detach())
        tokens += float((tensors["labels"] != IGNORED).sum())
    with torch.no_grad():
        assert objective.evaluate(0)["loss"] == pytest.approx(total / tokens, rel=1e-4)


def engine(steps: int) -> EngineSettings:
    return EngineSettings(
        steps=steps,
        optimizer=OptimizerSettings(kind="adamw", learning_rate=0.01),
        schedule=ScheduleSettings(warmup_steps=2),
        precision="fp32",
        evaluate_every=10,
    )


def test_examples_that_fit_no_row_stop_the_training(
    model: Mistral, tokenizer: Path, examples: Path, tmp_path: Path
) -> None:
    save_model(model, tmp_path / "base" / "model", tokenizer / "tokenizer")
    settings = SupervisedSettings(row_tokens=16, engine=engine(1))
    (tmp_path / "out").mkdir()
    with pytest.raises(TrainingError, match="fits a row of 16 tokens"):
        train_supervised(
            settings, tmp_path / "base", examples, tokenizer, tmp_path / "out", tmp_path / "work", SilentProgress()
        )


@pytest.mark.slow
def test_supervised_training_writes_a_better_model_and_its_records(
    model: Mistral, tokenizer: Path, examples: Path, tmp_path: Path
) -> None:
    save_model(model, tmp_path / "base" / "model", tokenizer / "tokenizer")
    output = tmp_path / "out"
    output.mkdir()
    outcome = train_supervised(
        SupervisedSettings(rows_per_step=4, engine=engine(20)),
        tmp_path / "base",
        examples,
        tokenizer,
        output,
        tmp_path / "work",
        SilentProgress(),
    )
    assert {path.name for path in output.iterdir()} >= {"model", "metrics.jsonl", "run.json", PACKING}
    load_model(output / "model")
    losses = [json.loads(line)["loss"] for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0]
    packing = read_table(output, PACKING)
    assert packing.num_rows == outcome.counts["examples"]
    assert max(packing["row"].to_pylist()) + 1 == outcome.counts["rows"]
    assert outcome.counts["validation_loss"] is not None
