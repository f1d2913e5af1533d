"""Plan, run and seal: what is stale, and making it."""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import metadata

from forge_pipeline.errors import MachineError, StorageError
from forge_pipeline.lineage.stage import Scope, Stage, StageName, StageRun, in_order
from forge_pipeline.reporting import Progress
from forge_pipeline.storage import ArtifactKey, ArtifactStore, Record, fingerprint_of
from forge_pipeline.storage.store import Origin

# The packages whose version a reader of a record may want to know.
RECORDED_PACKAGES = ("forge-pipeline", "torch", "deepspeed", "tokenizers", "pyarrow", "numpy", "datasketch", "ftfy")
LEAST_FREE_BYTES = 2 << 30
LEAST_FREE_VARIABLE = "FORGE_LEAST_FREE_BYTES"


@dataclass(frozen=True)
class Unit:
    """One artifact to be made: a stage, and which of its batches."""

    stage: Stage
    batch: str | None

    @property
    def key(self) -> ArtifactKey:
        return self.stage.key(self.batch)


class Lineage:
    """The stages of one or more recipes over one store, for the batches that have landed.

    ``batches`` maps a corpus to its batches in order. Fingerprints follow from these alone: planning reads no
    document, and says before anything runs what would run.
    """

    def __init__(self, stages: Sequence[Stage], store: ArtifactStore, batches: Mapping[str, Sequence[str]]) -> None:
        self.stages = in_order(stages)
        self.by_name = {stage.name: stage for stage in self.stages}
        self.store = store
        self.batches = {corpus: tuple(names) for corpus, names in batches.items()}
        self._fingerprints: dict[ArtifactKey, str] = {}

    # -- planning ------------------------------------------------------------------------------------------

    def units(self, stage: Stage) -> list[Unit]:
        """The artifacts of a stage, in batch order."""
        if not stage.batched:
            return [Unit(stage, None)]
        return [Unit(stage, batch) for batch in self.batches.get(stage.name.owner, ())]

    def inputs(self, unit: Unit) -> dict[str, list[Unit]]:
        """The artifacts that each input of a unit stands for."""
        found = {}
        for needed in unit.stage.inputs:
            candidates = self.units(self.by_name[needed.stage])
            names = [candidate.batch for candidate in candidates]
            if needed.scope is Scope.SAME_BATCH:
                candidates = [candidates[names.index(unit.batch)]]
            elif needed.scope is Scope.EARLIER_BATCHES:
                candidates = candidates[: names.index(unit.batch)]
            elif needed.scope is Scope.FIRST_BATCH:
                candidates = candidates[:1]
            found[needed.name] = candidates
        return found

    def fingerprint(self, unit: Unit) -> str:
        """What the unit's artifact is called, whether or not it exists yet."""
        known = self._fingerprints.get(unit.key)
        if known is not None:
            return known
        if unit.stage.function is None:
            record = self.store.current(unit.key)
            if record is None:
                raise StorageError(f"{unit.key} has not landed", fix="scan the landing folder again")
            fingerprint = record.fingerprint
        else:
            fingerprint = fingerprint_of(
                {
                    "artifact": str(unit.key),
                    "code": unit.stage.code_version,
                    "parameters": unit.stage.parameters,
                    "inputs": {
                        name: [self.fingerprint(needed) for needed in units]
                        for name, units in self.inputs(unit).items()
                    },
                }
            )
        self._fingerprints[unit.key] = fingerprint
        return fingerprint

    def record(self, unit: Unit) -> Record | None:
        """The sealed artifact of the unit, if it has been made."""
        return self.store.find(unit.key, self.fingerprint(unit))

    def stale(self, names: Iterable[StageName] | None = None) -> list[Unit]:
        """The units that are not sealed, of the named stages (of all, by default) and what these need."""
        wanted = self.upstream(names) if names is not None else set(self.by_name)
        return [
            unit
            for stage in self.stages
            if stage.name in wanted
            for unit in self.units(stage)
            if self.record(unit) is None
        ]

    def upstream(self, names: Iterable[StageName]) -> set[StageName]:
        """The named stages and all that they are made from."""
        reached: set[StageName] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name not in reached:
                reached.add(name)
                waiting.extend(needed.stage for needed in self.by_name[name].inputs)
        return reached

    # -- running -------------------------------------------------------------------------------------------

    def make(self, unit: Unit, progress: Progress) -> tuple[Record, bool]:
        """The unit's artifact, made now unless it is sealed already; the flag says whether it was made now.

        Its inputs must be sealed. If the stage fails, its work folder stays, and the next call resumes there.
        """
        fingerprint = self.fingerprint(unit)
        with self._alone(unit, progress):
            existing = self.store.find(unit.key, fingerprint)
            if existing is not None:
                self.store.make_current(existing)
                return existing, False
            return self._make(unit, fingerprint, progress), True

    def _make(self, unit: Unit, fingerprint: str, progress: Progress) -> Record:
        assert unit.stage.function is not None
        check_free_space(self.store)
        records = {name: self._sealed(unit, units) for name, units in self.inputs(unit).items()}
        output = self.store.begin(unit.key, fingerprint)
        run = StageRun(
            folders={name: tuple(self.store.read(record) for record in found) for name, found in records.items()},
            records=records,
            store=self.store,
            output=output,
            work=self.store.work_folder(unit.key, fingerprint),
            progress=progress,
        )
        created = datetime.now(UTC).isoformat(timespec="seconds")
        began = time.perf_counter()
        outcome = unit.stage.function(run)
        origin = Origin(
            code_version=unit.stage.code_version,
            parameters=unit.stage.parameters,
            inputs={
                name: tuple((record.key, record.fingerprint) for record in found) for name, found in records.items()
            },
            created=created,
            seconds=time.perf_counter() - began,
            versions=versions(),
        )
        return self.store.seal(unit.key, fingerprint, output, origin, outcome)

    @contextmanager
    def _alone(self, unit: Unit, progress: Progress) -> Iterator[None]:
        """Two runs that want the same artifact make it once: the second waits, and finds it sealed."""
        path = self.store.work_folder(unit.key, self.fingerprint(unit)).with_suffix(".lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                progress.note(f"waiting for another run that is making {unit.key}")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _sealed(self, unit: Unit, needed: Sequence[Unit]) -> tuple[Record, ...]:
        records = []
        for other in needed:
            record = self.record(other)
            if record is None:
                raise StorageError(
                    f"{unit.key} needs {other.key}, which is not sealed",
                    fix=f"materialize {other.stage.name} first, or run the whole lineage",
                )
            records.append(record)
        return tuple(records)


def check_free_space(store: ArtifactStore) -> None:
    """Raises MachineError if the home folder's disk is nearly full."""
    least = int(os.environ.get(LEAST_FREE_VARIABLE, LEAST_FREE_BYTES))
    store.home.root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(store.home.root).free
    if free < least:
        raise MachineError(
            f"only {free / 2**30:.1f} GiB of disk are free; a stage needs {least / 2**30:.1f} GiB",
            where=str(store.home.root),
            fix="free some space, or choose another home folder with --home",
        )


@cache
def versions() -> dict[str, str]:
    """The versions that are written into each record."""
    found = {"python": platform.python_version()}
    for package in RECORDED_PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            # The checkout itself, when it is on the path without being installed.
            found[package] = "not installed"
    return found
