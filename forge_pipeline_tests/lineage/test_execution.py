"""Planning knows what is stale before anything runs, and nothing is made twice."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from forge_pipeline.errors import GateError, MachineError, StorageError
from forge_pipeline.lineage.execution import LEAST_FREE_VARIABLE, Lineage
from forge_pipeline.lineage.stage import Input, Scope, Stage, StageName, StageRun
from forge_pipeline.reporting import Outcome, SilentProgress
from forge_pipeline.storage import ArtifactKey, ArtifactStore, Home, fingerprint_of
from forge_pipeline.storage.store import Origin

LANDED = StageName("corpus", "landed")
UNIQUE = StageName("corpus", "unique")
TOKENIZER = StageName("corpus", "tokenizer")
MODEL = StageName("model", "base")


class Workshop:
    """A small lineage: two stages with batches (one growing), one founded on the first batch, one model."""

    def __init__(self, root: Path) -> None:
        self.store = ArtifactStore(Home(root))
        self.batches: list[str] = []
        self.calls: list[str] = []
        self.threshold = 1
        self.before: Callable[[], None] = lambda: None

    def land(self, batch: str, text: str) -> None:
        key = ArtifactKey("corpus", "landed", batch)
        fingerprint = fingerprint_of([batch, text])
        output = self.store.begin(key, fingerprint)
        (output / "text").write_text(text)
        self.store.seal(key, fingerprint, output, Origin("1", {}, {}, "", 0.0, {}), Outcome())
        self.batches.append(batch)

    def lineage(self) -> Lineage:
        stage = Stage(
            name=LANDED, group="g", description="d", kinds=(), inputs=(), parameters={}, code_version="1",
            function=None, batched=True,
        )  # fmt: skip
        same = Input("landed", LANDED, Scope.SAME_BATCH)
        stages = [
            replace(
                stage,
                name=MODEL,
                batched=False,
                inputs=(Input("unique", UNIQUE, Scope.ALL_BATCHES), Input("tokenizer", TOKENIZER)),
                function=self.run("model"),
            ),
            replace(
                stage,
                name=UNIQUE,
                inputs=(same, Input("earlier", UNIQUE, Scope.EARLIER_BATCHES)),
                parameters={"threshold": self.threshold},
                function=self.run("unique"),
            ),
            replace(
                stage,
                name=TOKENIZER,
                batched=False,
                inputs=(Input("unique", UNIQUE, Scope.FIRST_BATCH),),
                function=self.run("tokenizer"),
            ),
            stage,
        ]
        return Lineage(stages, self.store, {"corpus": self.batches})

    def run(self, name: str) -> Callable[[StageRun], Outcome]:
        def function(run: StageRun) -> Outcome:
            self.before()
            self.calls.append(name)
            read = [
                path.read_text()
                for folders in run.folders.values()
                for folder in folders
                for path in folder.glob("text")
            ]
            (run.output / "text").write_text(f"{name}({','.join(read)})")
            return Outcome(counts={"read": len(read)})

        return function

    def make_all(self) -> list[str]:
        lineage = self.lineage()
        self.calls = []
        for unit in lineage.stale():
            lineage.make(unit, SilentProgress())
        return self.calls


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    made = Workshop(tmp_path)
    made.land("0001", "a")
    return made


def test_stages_are_planned_after_their_inputs_and_made_once(workshop: Workshop) -> None:
    assert workshop.make_all() == ["unique", "tokenizer", "model"]
    assert workshop.make_all() == []


def test_a_new_batch_makes_its_own_part_and_rewrites_no_earlier_one(workshop: Workshop) -> None:
    workshop.make_all()
    before = workshop.lineage()
    first = before.units(before.by_name[UNIQUE])[0]
    tokenizer = before.units(before.by_name[TOKENIZER])[0]
    workshop.land("0002", "b")
    assert workshop.make_all() == ["unique", "model"]
    after = workshop.lineage()
    assert after.fingerprint(first) == before.fingerprint(first)
    assert after.fingerprint(tokenizer) == before.fingerprint(tokenizer)
    second = after.record(after.units(after.by_name[UNIQUE])[1])
    assert second is not None
    assert (workshop.store.read(second) / "text").read_text() == "unique(b,unique(a))"


def test_a_changed_parameter_makes_again_only_what_depends_on_it(workshop: Workshop) -> None:
    workshop.make_all()
    workshop.threshold = 2
    assert workshop.make_all() == ["unique", "tokenizer", "model"]
    workshop.threshold = 1
    assert workshop.make_all() == []


def test_planning_for_one_stage_leaves_out_what_it_does_not_need(workshop: Workshop) -> None:
    assert [unit.stage.name for unit in workshop.lineage().stale([TOKENIZER])] == [UNIQUE, TOKENIZER]


def test_a_stage_without_sealed_inputs_is_refused_with_what_is_missing(workshop: Workshop) -> None:
    lineage = workshop.lineage()
    (model,) = lineage.units(lineage.by_name[MODEL])
    with pytest.raises(StorageError, match="needs corpus/unique"):
        lineage.make(model, SilentProgress())


def test_a_gate_that_closes_leaves_nothing_sealed(workshop: Workshop) -> None:
    def close() -> None:
        raise GateError("a policy that does nothing scores 0.9")

    workshop.before = close
    with pytest.raises(GateError):
        workshop.make_all()
    lineage = workshop.lineage()
    assert all(lineage.record(unit) is None for unit in lineage.units(lineage.by_name[UNIQUE]))
    assert workshop.store.batches("corpus", "unique") == []


def test_two_runs_that_want_the_same_artifact_make_it_once(workshop: Workshop) -> None:
    lineage = workshop.lineage()
    (unit,) = lineage.units(lineage.by_name[UNIQUE])
    inside = threading.Event()
    release = threading.Event()

    def wait() -> None:
        inside.set()
        release.wait(10)

    workshop.before = wait
    results: list[bool] = []
    threads = [
        threading.Thread(target=lambda: results.append(lineage.make(unit, SilentProgress())[1])) for _ in range(2)
    ]
    threads[0].start()
    inside.wait(10)
    threads[1].start()
    release.set()
    for thread in threads:
        thread.join(20)
    assert sorted(results) == [False, True]
    assert workshop.calls == ["unique"]


def test_too_little_disk_is_said_before_a_stage_starts(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LEAST_FREE_VARIABLE, str(10**18))
    with pytest.raises(MachineError, match="--home"):
        workshop.make_all()
    assert workshop.calls == []
