"""What the release stages need to know of the stages before them, read from their records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from forge_pipeline.governance.lineage_view import LineageView
    from forge_pipeline.lineage.stage import StageRun
    from forge_pipeline.release.decision import StageCost
    from forge_pipeline.release.registry import TrainingHistory


def stage_costs(run: StageRun, trained: Sequence[str]) -> dict[str, StageCost]:
    """Seconds and FLOPs of each training stage, from its record."""
    from forge_pipeline.release.decision import StageCost

    records = {name: run.records[name][0] for name in trained}
    return {
        name: StageCost(seconds=record.seconds, flops=float(record.counts["training_flops"]))
        for name, record in records.items()
    }


def training_histories(run: StageRun, trained: Sequence[str]) -> list[TrainingHistory]:
    """The training stages as MLflow is to show them."""
    from forge_pipeline.release.registry import TrainingHistory

    histories = []
    for name in trained:
        (record,) = run.records[name]
        histories.append(
            TrainingHistory(
                stage=name,
                folder=run.one(name),
                fingerprint=record.fingerprint,
                parameters=record.parameters,
                tags={f"version.{package}": version for package, version in record.versions.items()},
            )
        )
    return histories


def lineage_view(run: StageRun) -> LineageView:
    """The lineage of everything that a stage reads."""
    from forge_pipeline.governance.lineage_view import LineageView

    used = [(record.key, record.fingerprint) for records in run.records.values() for record in records]
    return LineageView.of_entries(run.store, used)
