"""A stage: a recipe's settings bound to one library function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from forge_pipeline.reporting import Outcome, Progress
from forge_pipeline.storage import ArtifactKey, ArtifactStore, Record


class Scope(Enum):
    """Which artifacts of another stage an input stands for."""

    WHOLE = "whole"
    """The one artifact of a stage that has no batches."""
    SAME_BATCH = "same batch"
    EARLIER_BATCHES = "earlier batches"
    """All batches before this one, in order: how a growing index is carried on."""
    FIRST_BATCH = "first batch"
    """The batch that founded the corpus: what must not change when documents are added."""
    ALL_BATCHES = "all batches"


@dataclass(frozen=True, order=True)
class StageName:
    """``owner`` is a corpus or a model."""

    owner: str
    stage: str

    def __str__(self) -> str:
        return f"{self.owner}/{self.stage}"


@dataclass(frozen=True)
class Input:
    """``name`` is what the stage's function calls it."""

    name: str
    stage: StageName
    scope: Scope = Scope.WHOLE


@dataclass(frozen=True)
class StageRun:
    """What a stage's function gets: sealed folders to read, an empty one to fill, and where to work."""

    folders: Mapping[str, tuple[Path, ...]]
    records: Mapping[str, tuple[Record, ...]]
    store: ArtifactStore
    output: Path
    work: Path
    progress: Progress

    def one(self, name: str) -> Path:
        """The folder of an input that is a single artifact."""
        (folder,) = self.folders[name]
        return folder

    def many(self, name: str) -> list[Path]:
        """The folders of an input with batches, in batch order."""
        return list(self.folders[name])


@dataclass(frozen=True)
class Stage:
    """One stage of the lineage.

    ``parameters`` is the part of the recipe that the result depends on, as plain JSON: together with
    ``code_version`` and the inputs' fingerprints it is the stage's fingerprint. ``batched`` stages make one
    artifact per batch; ``partitioned`` ones show their batches as Dagster partitions. ``function`` is None for
    a stage whose artifacts come from outside (what has landed). ``checks`` names the checks it reports.
    """

    name: StageName
    group: str
    description: str
    kinds: tuple[str, ...]
    inputs: tuple[Input, ...]
    parameters: Mapping[str, Any]
    code_version: str
    function: Callable[[StageRun], Outcome] | None
    batched: bool = False
    partitioned: bool = False
    checks: tuple[str, ...] = ()

    def key(self, batch: str | None) -> ArtifactKey:
        return ArtifactKey(self.name.owner, self.name.stage, batch)


def in_order(stages: Sequence[Stage]) -> list[Stage]:
    """Stages after their inputs; otherwise in the order given. Raises KeyError for an input nobody makes."""
    by_name = {stage.name: stage for stage in stages}
    placed: dict[StageName, Stage] = {}

    def place(stage: Stage) -> None:
        if stage.name in placed:
            return
        for needed in stage.inputs:
            if needed.stage != stage.name:
                place(by_name[needed.stage])
        placed[stage.name] = stage

    for stage in stages:
        place(stage)
    return list(placed.values())
