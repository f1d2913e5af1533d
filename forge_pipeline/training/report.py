"""What every training stage reports: cost, speed and the loss curve."""

from __future__ import annotations

from typing import Any

from forge_pipeline.models.architecture import ModelConfig
from forge_pipeline.reporting import Plot, Scalar, Table
from forge_pipeline.training.launch import TrainingSummary

# A plotted curve has at most this many points.
POINTS = 200


def training_counts(
    summary: TrainingSummary, config: ModelConfig, tokens: int, sequence_length: int
) -> dict[str, Scalar]:
    """The headline figures of a training stage.

    ``training_flops`` follows the usual estimate, 6 N + 12 L d T for each token (Chowdhery et al. 2022, PaLM,
    appendix B), with N the parameters without the input embedding.
    """
    embedding = 0 if config.tie_embeddings else config.vocabulary_size * config.hidden_size
    per_token = 6 * (config.parameters() - embedding) + 12 * config.layers * config.hidden_size * sequence_length
    first = [entry["loss"] for entry in summary.history[:10]]
    last = [entry["loss"] for entry in summary.history[-10:]]
    return {
        "parameters": config.parameters(),
        "steps": summary.steps,
        "tokens_seen": tokens,
        "training_flops": float(per_token * tokens),
        "first_loss": sum(first) / len(first),
        "final_loss": sum(last) / len(last),
        "training_seconds": round(summary.seconds, 1),
    }


def loss_plot(summary: TrainingSummary, title: str, unit: str) -> Plot:
    return metric_plot(summary, title, unit, "loss")


def metric_plot(summary: TrainingSummary, title: str, unit: str, metric: str) -> Plot:
    """A metric over the steps: averaged over short stretches, so that the curve can be read."""
    points = [(entry["step"], entry[metric]) for entry in summary.history if metric in entry]
    stretch = max(1, len(points) // POINTS)
    steps: list[Any] = []
    values: list[float] = []
    for start in range(0, len(points), stretch):
        part = points[start : start + stretch]
        steps.append(int(part[-1][0]))
        values.append(sum(value for _, value in part) / len(part))
    return Plot(title, "line", "step", unit, {metric: (steps, values)})


def speed_table(summary: TrainingSummary, counts: dict[str, Scalar]) -> Table:
    """Where the time went."""
    seconds = sum(entry.get("seconds", 0.0) for entry in summary.history)
    return Table.of(
        "Training",
        [
            {
                "steps": summary.steps,
                "final loss": counts["final_loss"],
                "units per second": round(summary.mean("units_per_second"), 1),
                "seconds in steps": round(seconds, 1),
                "seconds in all": round(summary.seconds, 1),
                "data wait": round(summary.mean("data_wait"), 4),
            }
        ],
    )
