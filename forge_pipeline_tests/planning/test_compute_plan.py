"""The plan's arithmetic agrees with a real model, and is the same wherever it is made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from forge_pipeline.models.architecture import ArchitectureSettings, ModelConfig
from forge_pipeline.planning.accelerators import ACCELERATORS
from forge_pipeline.planning.arithmetic import (
    activation_bytes,
    executed_flops_per_token,
    flops_per_token,
    memory_by_part,
    parameters_by_component,
)
from forge_pipeline.planning.compute_plan import make_plan, plan_compute, workload_of
from forge_pipeline.planning.machine import measure_machine
from forge_pipeline.planning.settings import CorpusCounts, MachineSpeed, PlanningSettings, TrainingWorkload
from forge_pipeline.reporting import SilentProgress
from forge_pipeline.tokens.shards import INDEX_SCHEMA
from forge_pipeline.training.settings import EngineSettings, PretrainingSettings

WORKLOAD = TrainingWorkload(
    steps=100, sequence_length=128, sequences_per_step=8, micro_batch=4, precision="fp32", optimizer="adamw"
)
SPEED = MachineSpeed(fp32=0.1, bf16=0.3)


def shape(**changes: Any) -> ModelConfig:
    return ModelConfig.build(ArchitectureSettings(**changes), vocabulary_size=4096)


def given_shape(**changes: Any) -> ModelConfig:
    """Llama 2 7B, whose size is published."""
    return ModelConfig(
        **(
            {
                "vocabulary_size": 32_000,
                "hidden_size": 4096,
                "layers": 32,
                "heads": 32,
                "key_value_heads": 32,
                "intermediate_size": 11_008,
                "context_length": 4096,
                "rope_theta": 10_000.0,
                "tie_embeddings": False,
            }
            | changes
        )
    )


@pytest.fixture
def token_shards(tmp_path: Path) -> Path:
    """The index and header of token shards: the plan reads no token."""
    part = tmp_path / "shards"
    part.mkdir()
    rows = [
        {"doc_id": f"{n}", "split": split, "shard": 0, "offset": 0, "length": 10_000, "bytes": 33_000}
        for n, split in enumerate(["train"] * 5 + ["test"])
    ]
    pq.write_table(pa.Table.from_pylist(rows, INDEX_SCHEMA), part / "index.parquet")
    header = {"dtype": "uint16", "vocabulary_size": 4096, "end_token_id": 0, "tokenizer_sha256": "0"}
    (part / "header.json").write_text(json.dumps(header))
    return part


def pretraining(**engine: Any) -> dict[str, Any]:
    return PretrainingSettings(engine=EngineSettings(steps=100, **engine)).model_dump()


@pytest.mark.parametrize("tie", [True, False])
def test_parameters_are_those_of_the_real_model_component_by_component(tie: bool) -> None:
    from forge_pipeline.models.mistral import Mistral

    config = shape(hidden_size=96, heads=6, key_value_heads=3, layers=3, intermediate_size=160, tie_embeddings=tie)
    counted = dict.fromkeys(parameters_by_component(config), 0)
    places = {"embed_tokens": "embedding", "self_attn": "attention", "mlp": "feed_forward", "lm_head": "head"}
    for name, parameter in Mistral(config).named_parameters():
        component = next((places[place] for place in places if place in name), "norms")
        counted[component] += parameter.numel()
    assert parameters_by_component(config) == counted
    assert sum(counted.values()) == config.parameters()


def test_published_figures_come_out() -> None:
    llama = given_shape()
    assert sum(parameters_by_component(llama).values()) == 6_738_415_616
    # 7B parameters on 100B tokens: 4.2e21 FLOPs without attention.
    without_attention = flops_per_token(llama, 0) * 100e9
    assert without_attention == pytest.approx(4.04e21, rel=0.01)
    assert flops_per_token(llama, 4096) - flops_per_token(llama, 0) == 12 * 32 * 4096 * 4096


@pytest.mark.parametrize("tie", [True, False])
def test_flops_are_those_of_the_matrix_products(tie: bool) -> None:
    """Against PyTorch's own counter, which counts matrix products: all parameters but norms and, where it is not
    the head too, the embedding."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from forge_pipeline.models.mistral import Mistral

    config = shape(hidden_size=128, heads=4, key_value_heads=4, layers=2, intermediate_size=256, tie_embeddings=tie)
    tokens = torch.zeros(2, 64, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        Mistral(config)(tokens).sum().backward()
    parts = parameters_by_component(config)
    no_product = parts["norms"] + (0 if tie else parts["embedding"])
    assert counter.get_total_flops() == (flops_per_token(config, 64) - 6 * no_product) * tokens.numel()


def one_block(config: ModelConfig, workload: TrainingWorkload) -> int:
    """Activations and cast weights of a single block, which checkpointing computes again in the backward pass."""
    plain = workload.model_copy(update={"gradient_checkpointing": False})
    less = ModelConfig(**(config.to_json() | {"layers": config.layers - 1}))
    with_it, without = (memory_by_part(each, plain, fused_attention=False) for each in (config, less))
    return sum(with_it[part] - without[part] for part in ("activations", "cast_weights"))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_activations_are_about_what_the_backward_pass_keeps(precision: str, checkpointing: bool) -> None:
    import torch
    from torch.nn import functional as F

    from forge_pipeline.models.initialisation import initialise
    from forge_pipeline.models.mistral import Mistral

    config = shape(hidden_size=128, layers=6, intermediate_size=352)
    workload = WORKLOAD.model_copy(update={"precision": precision, "gradient_checkpointing": checkpointing})
    model = Mistral(config, gradient_checkpointing=checkpointing)
    model.compute_dtype = torch.bfloat16 if precision == "bf16" else None
    model.train()
    initialise(model, 0)
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in parameters:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    tokens = torch.zeros(workload.micro_batch, workload.sequence_length, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = model(tokens)
        F.cross_entropy(logits.float().flatten(0, 1), tokens.flatten())
    measured = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    parts = memory_by_part(config, workload, fused_attention=False)
    expected = parts["activations"] + parts["cast_weights"]
    # Not kept, but there at the peak: the gradient of the logits and, in bf16, the logits before they are widened.
    expected -= config.vocabulary_size * tokens.numel() * (4 if precision == "fp32" else 4 + 2)
    if checkpointing:
        expected -= one_block(config, workload)
    assert measured == pytest.approx(expected, rel=0.05)


def test_weights_gradients_and_optimizer_state_are_exact_and_zero_divides_them() -> None:
    config = shape()
    total = config.parameters()
    parts = parameters_by_component(config)
    matrices = parts["attention"] + parts["feed_forward"]
    for stage, (weights, gradients, optimizer) in enumerate([(4, 4, 8), (4, 4, 2), (4, 1, 2), (1, 1, 2)]):
        memory = memory_by_part(
            config, WORKLOAD.model_copy(update={"world_size": 4, "zero_stage": stage}), fused_attention=True
        )
        assert (memory["weights"], memory["gradients"], memory["optimizer"]) == (
            weights * total,
            gradients * total,
            optimizer * total,
        )
    muon = memory_by_part(config, WORKLOAD.model_copy(update={"optimizer": "muon"}), fused_attention=True)
    assert muon["optimizer"] == 8 * total - 4 * matrices


@given(
    layers=st.integers(1, 8),
    length=st.integers(1, 4096),
    rows=st.integers(1, 64),
    precision=st.sampled_from(["fp32", "bf16"]),
)
def test_checkpointing_trades_memory_for_operations(layers: int, length: int, rows: int, precision: str) -> None:
    config = shape(layers=layers)
    plain = WORKLOAD.model_copy(update={"sequence_length": length, "micro_batch": rows, "precision": precision})
    saving = plain.model_copy(update={"gradient_checkpointing": True})
    element = 2 if precision == "bf16" else 4
    without, with_it = (activation_bytes(config, each, fused_attention=True) for each in (plain, saving))
    assert with_it <= without + layers * config.hidden_size * element * length * rows
    assert executed_flops_per_token(config, saving) == pytest.approx(4 / 3 * executed_flops_per_token(config, plain))


def test_hours_and_cost_follow_from_the_peak() -> None:
    workload = WORKLOAD.model_copy(
        update={"steps": 24_414, "sequence_length": 4096, "sequences_per_step": 1000, "precision": "bf16"}
    )
    settings = PlanningSettings(
        accelerators=("H100 SXM", "L4"),
        utilisation_low=0.4,
        utilisation_high=0.4,
        accelerator_count=8,
        price_per_hour={"H100 SXM": 2.0},
    )
    corpus = CorpusCounts(documents=1, tokens=50 * 10**9, text_bytes=200 * 10**9)
    plan = make_plan(settings, given_shape(), workload, corpus)
    h100, l4 = plan["accelerators"]
    # 100B tokens on 7B parameters, attention included: about 3,300 H100-hours at 40%.
    assert h100["hours_low"] == h100["hours_high"]
    assert 8 * h100["hours_low"] == pytest.approx(3300, rel=0.05)
    assert h100["cost_low"] == pytest.approx(8 * 2.0 * h100["hours_low"])
    assert h100["currency"] == "USD"
    assert (l4["cost_low"], l4["currency"]) == (None, None)
    assert l4["hours_low"] / h100["hours_low"] == pytest.approx(ACCELERATORS["H100 SXM"].bf16 / ACCELERATORS["L4"].bf16)
    assert not l4["fits"]
    assert plan["data"]["epochs"] == pytest.approx(2, rel=0.001)
    assert plan["data"]["compute_optimal_tokens"] == 20 * 6_738_415_616


def test_the_stage_writes_the_same_bytes_and_reports_this_machine(token_shards: Path, tmp_path: Path) -> None:
    architecture = ArchitectureSettings().model_dump()
    texts = []
    for name, speed in (("first", SPEED), ("second", MachineSpeed(fp32=9.0, bf16=9.0))):
        (tmp_path / name).mkdir()
        settings = PlanningSettings(machine_speed=speed)
        outcome = plan_compute(settings, architecture, pretraining(), [token_shards], tmp_path / name, SilentProgress())
        texts.append((tmp_path / name / "plan.json").read_bytes())
    assert texts[0] == texts[1]
    plan = json.loads(texts[0])
    assert plan["data"]["train_tokens"] == 50_000
    assert plan["data"]["train_bytes"] == 5 * 33_000
    assert outcome.counts["parameters"] == ModelConfig.build(ArchitectureSettings(), 4096).parameters()
    executed = plan["flops"]["executed_training"]
    assert outcome.counts["machine_seconds_low"] == round(executed / (9e12 * 0.8), 1)
    assert [table.title for table in outcome.tables] == [
        "Parameters",
        "Memory of one process",
        "Time and cost",
        "Data",
    ]
    repetition = next(check for check in outcome.checks if check.name == "data_is_not_worn_out")
    assert repetition.value == plan["data"]["epochs"] == 100 * 8 * 256 / 50_000
    assert not repetition.passed


def test_the_workload_is_read_from_the_recipe() -> None:
    workload = workload_of(
        pretraining(
            micro_batch=64,
            world_size=2,
            precision="fp32",
            gradient_checkpointing=True,
            optimizer={"kind": "adamw"},
            zero_stage=2,
        )
    )
    assert workload.micro_batch == 4
    assert (workload.zero_stage, workload.world_size, workload.optimizer) == (2, 2, "adamw")
    assert workload.tokens == 100 * 8 * 256


def test_the_machine_is_measured() -> None:
    import torch

    speed = measure_machine()
    left = torch.ones(512, 512)
    assert torch.matmul(left, left)[0, 0] == 512
    for value in (speed.fp32, speed.bf16):
        assert 1e-4 < value < 1e4
        assert np.isfinite(value)


def test_unknown_accelerators_are_refused() -> None:
    with pytest.raises(ValidationError, match="not a known accelerator"):
        PlanningSettings(accelerators=("H1000",))
    with pytest.raises(ValidationError, match="not a known accelerator"):
        PlanningSettings(price_per_hour={"H1000": 1.0})
    with pytest.raises(ValidationError, match="above"):
        PlanningSettings(utilisation_low=0.6)
