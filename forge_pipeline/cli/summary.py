"""The tables that `forge run` ends with."""

from __future__ import annotations

from typing import Any

from forge_pipeline.cli import output
from forge_pipeline.cli.terminal import summary_view
from forge_pipeline.reporting import Scalar, Table

STAGES = {"base_model": "base", "sft_model": "SFT", "aligned_model": "DPO", "agent_model": "RL"}
DROPS_SHOWN = 12


def show_summary(summary: dict[str, Any]) -> None:
    """Print the summary of `lineage.summary.summarise`."""
    sections: list[Table | tuple[str, dict[str, Scalar]]] = [_documents(summary["documents"])]
    sections.append(("Tokens", {name.replace("tokens_", ""): value for name, value in summary["tokens"].items()}))
    if summary["training"]:
        sections.append(_training(summary["training"]))
    if summary["evaluation"]:
        sections.append(_evaluation(summary["evaluation"]))
    if "release" in summary:
        sections.append(("Release", summary["release"] | summary.get("registered", {})))
    places: dict[str, Scalar] = {
        name: summary[key] for name, key in (("model", "model_folder"), ("audit page", "audit_page")) if key in summary
    }
    commands = {f"to {name}": command for name, command in summary["commands"].items()}
    sections.append(("Where it is, and what next", places | commands))
    output.console().print(summary_view(summary["model"], sections))


def _documents(documents: dict[str, Any]) -> tuple[str, dict[str, Scalar]]:
    drops = list(documents["dropped"].items())
    shown: dict[str, Scalar] = {
        "files": documents["files"],
        "documents in": documents["in"],
        "documents kept": documents["kept"],
        "files in quarantine": documents["quarantined"],
    }
    shown |= {f"dropped by {rule}": count for rule, count in drops[:DROPS_SHOWN]}
    if len(drops) > DROPS_SHOWN:
        shown["dropped by other rules"] = sum(count for _, count in drops[DROPS_SHOWN:])
    return "Documents", shown


def _training(training: dict[str, dict[str, Any]]) -> Table:
    rows = [
        {
            "stage": STAGES[stage],
            "steps": counts.get("steps"),
            "first loss": counts.get("first_loss"),
            "final loss": counts.get("final_loss"),
            "seconds": counts["seconds"],
        }
        for stage, counts in training.items()
    ]
    return Table.of("Training", rows)


def _evaluation(evaluation: dict[str, list[dict[str, Any]]]) -> Table:
    """One row a measure, one column a stage: value, 95% interval and n."""
    metrics = list(dict.fromkeys(row["metric"] for rows in evaluation.values() for row in rows))
    cells = {(stage, row["metric"]): row for stage, rows in evaluation.items() for row in rows}

    def cell(stage: str, metric: str) -> str:
        row = cells.get((stage, metric))
        return f"{row['value']:.3f} ({row['low']:.3f}-{row['high']:.3f})" if row else "-"

    rows: list[dict[str, Scalar]] = []
    for metric in metrics:
        sizes = [cells[stage, metric]["n"] for stage in evaluation if (stage, metric) in cells]
        row: dict[str, Scalar] = {"held-out measure": metric.replace("_", " "), "n": max(sizes)}
        rows.append(row | {f"after {STAGES[stage]}": cell(stage, metric) for stage in evaluation})
    return Table.of("Evaluation, with 95% intervals", rows)
