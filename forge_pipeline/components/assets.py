"""A stage as a software-defined asset."""

# No `from __future__ import annotations`: Dagster reads the annotation of ``context`` as an object.

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import dagster as dg

from forge_pipeline.components.metadata import artifact_metadata, check_result
from forge_pipeline.components.progress import DagsterProgress, display
from forge_pipeline.lineage.execution import Lineage, Unit
from forge_pipeline.lineage.open import Project
from forge_pipeline.lineage.stage import Stage, StageName
from forge_pipeline.release.tracking import RunTracker
from forge_pipeline.storage import Record

# Single-run backfills are marked beta; a person running `forge` cannot do anything about that.
warnings.filterwarnings("ignore", category=dg.BetaWarning)

# Stages that train: their metrics go to MLflow while they run.
TRAINING_KIND = "deepspeed"
OpenProject = Callable[[], Project]


def asset_key(name: StageName) -> dg.AssetKey:
    return dg.AssetKey([name.owner, name.stage])


def batch_partitions(corpus: str) -> dg.DynamicPartitionsDefinition:
    """One partition per batch of a corpus."""
    return dg.DynamicPartitionsDefinition(name=f"{corpus}_batches")


def stage_assets(stages: Sequence[Stage], open_project: OpenProject) -> list[dg.AssetsDefinition]:
    return [stage_asset(stage, open_project) for stage in stages]


def stage_asset(stage: Stage, open_project: OpenProject) -> dg.AssetsDefinition:
    """The asset of one stage. Materializing it makes, or finds already sealed, the stage's artifacts."""
    key = asset_key(stage.name)

    @dg.asset(
        key=key,
        group_name=stage.group,
        description=stage.description,
        kinds=set(stage.kinds),
        deps=[asset_key(needed.stage) for needed in stage.inputs if needed.stage != stage.name],
        code_version=stage.code_version,
        partitions_def=batch_partitions(stage.name.owner) if stage.partitioned else None,
        # One run for any number of batches: a run costs seconds, a batch may take less.
        backfill_policy=dg.BackfillPolicy.single_run() if stage.partitioned else None,
        check_specs=[dg.AssetCheckSpec(name, asset=key) for name in stage.checks],
        owners=None,
        tags={"forge/owner": stage.name.owner},
    )
    def materialize(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        project = open_project()
        if stage.function is None:
            register_batches(context.instance, project, stage.name.owner, DagsterProgress(context.log, None))
        lineage = project.lineage()
        units = lineage.units(stage)
        if stage.partitioned:
            chosen = set(context.partition_keys)
            units = [unit for unit in units if unit.batch in chosen]
        made = _make_all(context, lineage, stage, units)
        return _result(project, stage, made)

    return materialize


def _make_all(
    context: dg.AssetExecutionContext, lineage: Lineage, stage: Stage, units: Sequence[Unit]
) -> list[tuple[Record, bool]]:
    shown = display()
    shown.stage_started(str(stage.name))
    try:
        made = [_make(context, lineage, unit) for unit in units]
    except BaseException:
        shown.stage_finished(str(stage.name), "failed")
        raise
    shown.stage_finished(str(stage.name), "done" if any(now for _, now in made) else "reused")
    return made


def register_batches(
    instance: dg.DagsterInstance, project: Project, corpus: str, progress: DagsterProgress
) -> list[str]:
    """Register what has landed and let Dagster know of every batch; returns all batches in order."""
    batches = project.batches(corpus)
    batches.register(progress)
    names = batches.names()
    show_partitions(instance, corpus, names)
    return names


def show_partitions(instance: dg.DagsterInstance, corpus: str, names: Sequence[str]) -> None:
    """Let the corpus's partitions be exactly these batches."""
    definition = batch_partitions(corpus).name
    assert definition is not None
    shown = instance.get_dynamic_partitions(definition)
    for name in shown:
        if name not in names:
            instance.delete_dynamic_partition(definition, name)
    instance.add_dynamic_partitions(definition, [name for name in names if name not in shown])


def _make(context: dg.AssetExecutionContext, lineage: Lineage, unit: Unit) -> tuple[Record, bool]:
    if unit.stage.function is None:
        record = lineage.record(unit)
        assert record is not None
        return record, True
    with _tracked(context, lineage, unit) as tracker:
        return lineage.make(unit, DagsterProgress(context.log, tracker))


@contextmanager
def _tracked(context: dg.AssetExecutionContext, lineage: Lineage, unit: Unit) -> Iterator[RunTracker | None]:
    """An MLflow run around a stage that trains, unless its model exists already."""
    if TRAINING_KIND not in unit.stage.kinds or lineage.record(unit) is not None:
        yield None
        return
    tracker = RunTracker(os.environ["MLFLOW_TRACKING_URI"], experiment=unit.stage.name.owner)
    tags = {"forge.fingerprint": lineage.fingerprint(unit), "dagster.run_id": context.run_id}
    tracker.start(unit.stage.name.stage, unit.stage.parameters, tags)
    status = "KILLED"
    try:
        yield tracker
        status = "FINISHED"
    except Exception:
        status = "FAILED"
        raise
    finally:
        tracked = tracker.finish(status)  # type: ignore[arg-type]
        if tracked.problem:
            context.log.warning(f"MLflow does not have all of this training: {tracked.problem}")


def _result(project: Project, stage: Stage, made: list[tuple[Record, bool]]) -> dg.MaterializeResult:
    """What the asset page shows: the newest batch's report, and the figures of all batches."""
    if not made:
        return dg.MaterializeResult(asset_key=asset_key(stage.name), metadata={"batches": 0})
    record, _ = made[-1]
    outcome = project.store.outcome(record)
    path = str(project.store.read(record))
    metadata = artifact_metadata(record, outcome, path, made_now=any(now for _, now in made))
    if stage.batched:
        metadata["batches"] = dg.MetadataValue.int(len(made))
        metadata["newest batch"] = dg.MetadataValue.text(record.key.batch or "")
    given = {check.name: check for check in outcome.checks}
    return dg.MaterializeResult(
        asset_key=asset_key(stage.name),
        metadata=metadata,
        data_version=dg.DataVersion(record.fingerprint),
        check_results=[check_result(given[name], asset_key(stage.name)) for name in stage.checks],
    )
