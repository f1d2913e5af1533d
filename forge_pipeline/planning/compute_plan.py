"""The compute plan stage: parameters, operations, memory, time, cost and data, before training starts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from forge_pipeline.models.architecture import ArchitectureSettings, ModelConfig
from forge_pipeline.planning.accelerators import ACCELERATORS
from forge_pipeline.planning.arithmetic import (
    executed_flops_per_token,
    flops_per_token,
    fused_attention_on_cpu,
    memory_by_part,
    parameters_by_component,
)
from forge_pipeline.planning.machine import measure_machine
from forge_pipeline.planning.settings import CorpusCounts, MachineSpeed, PlanningSettings, TrainingWorkload
from forge_pipeline.reporting import Check, Outcome, Plot, Progress, Table
from forge_pipeline.reporting.outcome import Scalar
from forge_pipeline.tokens.shards import ShardReader

CODE_VERSION = "1"
PLAN = "plan.json"
# Hoffmann et al. 2022 (arXiv 2203.15556): for a given amount of computation, about 20 tokens a parameter.
TOKENS_PER_PARAMETER = 20
# Muennighoff et al. 2023 (arXiv 2305.16264): up to about 4 epochs, repeated tokens are worth almost as much as new.
EPOCHS_WORTH_REPEATING = 4
GIGABYTE = 1e9


def plan_compute(
    settings: PlanningSettings,
    architecture: Mapping[str, Any],
    pretraining: Mapping[str, Any],
    token_shards: Sequence[Path],
    output: Path,
    progress: Progress,
) -> Outcome:
    """Write `plan.json` into ``output`` and return the plan as tables, with this machine's time.

    ``architecture`` and ``pretraining`` are a recipe's settings as plain values, ``token_shards`` the folders of
    that stage. `plan.json` is arithmetic on these and nothing else: what is measured here (the machine's free
    memory, and its speed unless ``settings.machine_speed`` is given) is in the outcome alone.
    """
    shards = ShardReader(list(token_shards))
    config = ModelConfig.build(ArchitectureSettings.model_validate(architecture), shards.vocabulary_size)
    workload = workload_of(pretraining)
    train = shards.documents("train")
    corpus = CorpusCounts(documents=len(train), tokens=int(train.lengths.sum()), text_bytes=int(train.text_bytes.sum()))
    plan = make_plan(settings, config, workload, corpus)
    (output / PLAN).write_text(json.dumps(plan, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    speed = settings.machine_speed
    if speed is None:
        with progress.task("measuring matrix products"):
            speed = measure_machine()
    return _outcome(settings, workload, plan, machine_time(settings, config, workload, speed))


def workload_of(pretraining: Mapping[str, Any]) -> TrainingWorkload:
    """What decides time and memory among the settings of pre-training."""
    engine = pretraining["engine"]
    return TrainingWorkload(
        steps=engine["steps"],
        sequence_length=pretraining["sequence_length"],
        sequences_per_step=pretraining["sequences_per_step"],
        micro_batch=min(engine["micro_batch"], pretraining["sequences_per_step"] // engine["world_size"]),
        precision=engine["precision"],
        optimizer=engine["optimizer"]["kind"],
        gradient_checkpointing=engine["gradient_checkpointing"],
        world_size=engine["world_size"],
        zero_stage=engine["zero_stage"],
    )


def make_plan(
    settings: PlanningSettings, config: ModelConfig, workload: TrainingWorkload, corpus: CorpusCounts
) -> dict[str, Any]:
    """The plan as plain JSON. Bytes, FLOPs and hours unless a name says otherwise."""
    components = parameters_by_component(config)
    total = sum(components.values())
    model_flops = flops_per_token(config, workload.sequence_length)
    executed = executed_flops_per_token(config, workload)
    memory = memory_by_part(config, workload, fused_attention=fused_attention_on_cpu(workload))
    return {
        "parameters": components | {"total": total},
        "flops": {
            "formula": "6 N + 12 L d T per token; 4/3 of it is executed with gradient checkpointing",
            "per_token": model_flops,
            "executed_per_token": executed,
            "training": model_flops * workload.tokens,
            "executed_training": executed * workload.tokens,
        },
        "memory": memory | {"total": sum(memory.values())},
        "accelerators": [_on_accelerator(name, settings, config, workload) for name in settings.accelerators],
        "data": _data(total, workload, corpus),
        "workload": workload.model_dump(mode="json"),
        "architecture": config.to_json(),
    }


def machine_time(
    settings: PlanningSettings, config: ModelConfig, workload: TrainingWorkload, speed: MachineSpeed
) -> dict[str, float]:
    """Seconds of training, from the fastest to the slowest to expect, and the speed they follow from."""
    flops = executed_flops_per_token(config, workload) * workload.tokens
    peak = speed.of(workload.precision) * 1e12
    return {
        "tflops": speed.of(workload.precision),
        "seconds_low": flops / (peak * settings.machine_utilisation_high),
        "seconds_high": flops / (peak * settings.machine_utilisation_low),
    }


def _on_accelerator(
    name: str, settings: PlanningSettings, config: ModelConfig, workload: TrainingWorkload
) -> dict[str, Any]:
    device = ACCELERATORS[name]
    peak = (device.bf16 if workload.precision == "bf16" else device.fp32) * 1e12 * settings.accelerator_count
    flops = executed_flops_per_token(config, workload) * workload.tokens
    low, high = (flops / (peak * share) / 3600 for share in (settings.utilisation_high, settings.utilisation_low))
    placed = workload.model_copy(update={"world_size": settings.accelerator_count})
    memory = sum(memory_by_part(config, placed, fused_attention=True).values())
    price = settings.price_per_hour.get(name)
    cost = None if price is None else [hours * settings.accelerator_count * price for hours in (low, high)]
    return {
        "name": name,
        "count": settings.accelerator_count,
        "hours_low": low,
        "hours_high": high,
        "cost_low": cost[0] if cost else None,
        "cost_high": cost[1] if cost else None,
        "currency": settings.currency if cost else None,
        "memory": memory,
        "fits": memory <= device.memory_gb * GIGABYTE,
    }


def _data(parameters: int, workload: TrainingWorkload, corpus: CorpusCounts) -> dict[str, Any]:
    return {
        "documents": corpus.documents,
        "train_tokens": corpus.tokens,
        "train_bytes": corpus.text_bytes,
        "bytes_per_token": corpus.text_bytes / corpus.tokens if corpus.tokens else None,
        "trained_tokens": workload.tokens,
        "epochs": workload.tokens / corpus.tokens if corpus.tokens else None,
        "tokens_per_parameter": workload.tokens / parameters,
        "compute_optimal_tokens": TOKENS_PER_PARAMETER * parameters,
        # What these tokens, repeated as often as is worth it, can fill.
        "parameters_that_the_data_fills": EPOCHS_WORTH_REPEATING * corpus.tokens // TOKENS_PER_PARAMETER,
    }


def _outcome(
    settings: PlanningSettings, workload: TrainingWorkload, plan: dict[str, Any], machine: dict[str, float]
) -> Outcome:
    data, memory = plan["data"], plan["memory"]
    epochs = data["epochs"]
    parts = [name for name in memory if name != "total"]
    return Outcome(
        counts={
            "parameters": plan["parameters"]["total"],
            "flops_per_token": plan["flops"]["per_token"],
            "training_tokens": workload.tokens,
            "training_flops": plan["flops"]["training"],
            "memory_bytes": memory["total"],
            "tokens_per_parameter": round(data["tokens_per_parameter"], 3),
            "epochs": None if epochs is None else round(epochs, 3),
            "machine_seconds_low": round(machine["seconds_low"], 1),
            "machine_seconds_high": round(machine["seconds_high"], 1),
        },
        checks=[_memory_check(memory["total"], workload), _repetition_check(epochs)],
        tables=[
            Table.of(
                "Parameters", [{"component": name, "parameters": size} for name, size in plan["parameters"].items()]
            ),
            Table.of(
                "Memory of one process",
                [{"part": name, "MB": round(size / 1e6, 1)} for name, size in memory.items()],
            ),
            Table.of("Time and cost", _time_rows(settings, workload, plan, machine)),
            Table.of("Data", _data_rows(data)),
        ],
        plots=[
            Plot(
                "Memory of one process",
                "bar",
                "part",
                "MB",
                {"": (parts, [memory[name] / 1e6 for name in parts])},
            )
        ],
    )


def _memory_check(needed: int, workload: TrainingWorkload) -> Check:
    import psutil

    # Every process of a run on this machine needs its own.
    available = psutil.virtual_memory().available
    return Check(
        "fits_this_machine",
        needed * workload.world_size <= available,
        "the processes of training need no more memory (bytes) than this machine has free",
        needed * workload.world_size,
        available,
    )


def _repetition_check(epochs: float | None) -> Check:
    return Check(
        "data_is_not_worn_out",
        epochs is not None and epochs <= EPOCHS_WORTH_REPEATING,
        "no token is repeated more often than repetition is worth (Muennighoff et al. 2023)",
        epochs,
        EPOCHS_WORTH_REPEATING,
    )


def _time_rows(
    settings: PlanningSettings, workload: TrainingWorkload, plan: dict[str, Any], machine: dict[str, float]
) -> list[dict[str, Scalar]]:
    measured = "measured" if settings.machine_speed is None else "given"
    rows: list[dict[str, Scalar]] = [
        {
            "on": f"this machine ({measured}: {machine['tflops'] * 1000:.0f} GFLOP/s in {workload.precision})",
            "time": _range(machine["seconds_low"], machine["seconds_high"]),
            "cost": "",
            "memory fits": "",
        }
    ]
    for entry in plan["accelerators"]:
        cost = ""
        if entry["cost_low"] is not None:
            cost = f"{entry['cost_low']:,.2f} to {entry['cost_high']:,.2f} {entry['currency']}"
        rows.append(
            {
                "on": f"{entry['count']} x {entry['name']}",
                "time": _range(entry["hours_low"] * 3600, entry["hours_high"] * 3600),
                "cost": cost,
                "memory fits": "yes" if entry["fits"] else f"no: {entry['memory'] / GIGABYTE:.1f} GB",
            }
        )
    return rows


def _data_rows(data: dict[str, Any]) -> list[dict[str, Scalar]]:
    return [
        {"figure": "tokens in the training split", "value": data["train_tokens"]},
        {"figure": "tokens trained on", "value": data["trained_tokens"]},
        {"figure": "epochs", "value": None if data["epochs"] is None else round(data["epochs"], 2)},
        {"figure": "tokens per parameter", "value": round(data["tokens_per_parameter"], 2)},
        {
            "figure": f"compute-optimal tokens ({TOKENS_PER_PARAMETER} per parameter)",
            "value": data["compute_optimal_tokens"],
        },
        {
            "figure": f"parameters that the data fills in {EPOCHS_WORTH_REPEATING} epochs",
            "value": data["parameters_that_the_data_fills"],
        },
    ]


def _range(low: float, high: float) -> str:
    """Seconds as people say them: "40 to 110 s", "1.5 to 2.4 h"."""
    for size, unit in ((86_400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if high >= 2 * size:
            return f"{low / size:.3g} to {high / size:.3g} {unit}"
    return f"{low:.3g} to {high:.3g} s"
