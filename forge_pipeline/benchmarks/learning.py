"""What the quick run learned: the sealed evaluations of `python_assistant` in the home, stage by stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from forge_pipeline.benchmarks.registry import Figure
from forge_pipeline.errors import StorageError
from forge_pipeline.reporting import Progress

if TYPE_CHECKING:
    from forge_pipeline.lineage.open import Project
    from forge_pipeline.reporting.results import Result

MODEL = "python_assistant"
BITS_PER_BYTE = 1.84


@dataclass(frozen=True)
class Step:
    """What a kind of training is meant to raise (or not to lower), and between which two evaluations."""

    training: str
    metric: str
    before: str
    after: str
    raises: bool = True

    @property
    def target(self) -> str:
        return "> 0, intervals apart" if self.raises else "not below the interval before"

    def holds(self, before: Result, after: Result) -> bool:
        return after.low > before.high if self.raises else after.value >= before.low


STEPS = (
    Step("sft", "question_accuracy", "base_evaluation", "sft_evaluation"),
    Step("dpo", "preference_accuracy", "sft_evaluation", "aligned_evaluation"),
    Step("rl", "task_success_sampled", "aligned_evaluation", "agent_evaluation"),
    Step("rl", "task_success_greedy", "aligned_evaluation", "agent_evaluation", raises=False),
)
EVALUATIONS = tuple(dict.fromkeys(name for step in STEPS for name in (step.before, step.after)))


def learning(_work: Path, progress: Progress) -> list[Figure]:
    """Held-out figures before and after each kind of training, with 95% intervals.

    Nothing is trained: the figures are those that were sealed under the recipe and the code as they are now. A gain
    holds if the two intervals do not overlap; where a stage must only not lower a figure, if it stays at or above the
    interval before. Raises StorageError if the home has no such run.
    """
    from forge_pipeline.lineage.open import Project

    with progress.task("the quick run's evaluations", total=1, unit="runs") as task:
        results = sealed_results(Project.locate(), MODEL)
        task.advance()
    return figures_of(results)


def sealed_results(project: Project, model: str) -> dict[str, dict[str, Result]]:
    """The headline results of each evaluation of ``model``, by metric."""
    from forge_pipeline.evaluation.results import read_results
    from forge_pipeline.lineage.stage import StageName

    project.recipes.model(model)
    lineage = project.lineage()
    found, missing = {}, []
    for name in EVALUATIONS:
        stage = lineage.by_name.get(StageName(model, name))
        record = lineage.record(lineage.units(stage)[0]) if stage is not None else None
        if record is None:
            missing.append(name)
        else:
            rows = read_results(project.store.read(record))
            found[name] = {row.metric: row for row in rows if not row.detail}
    if missing:
        raise StorageError(
            f"{model} is not whole here: the recipe and the code as they are have no sealed {', '.join(missing)}",
            where=str(project.store.home.root),
            fix=f"make it: forge run {model}; or measure without it: forge bench orchestration",
        )
    return found


def figures_of(results: Mapping[str, Mapping[str, Result]]) -> list[Figure]:
    base = results["base_evaluation"]["bits_per_byte"]
    limited = Figure.at_most("base_bits_per_byte", base.value, "bits/byte", BITS_PER_BYTE)
    figures = [limited, *_interval(limited.name, base, "bits/byte")]
    for step in STEPS:
        before, after = results[step.before][step.metric], results[step.after][step.metric]
        for when, result in (("before", before), ("after", after)):
            name = f"{step.metric}_{when}_{step.training}"
            figures += [Figure(name, result.value, "share"), *_interval(name, result, "share")]
        figures.append(
            Figure(
                f"{step.metric}_gain_of_{step.training}",
                after.value - before.value,
                "share",
                step.target,
                step.holds(before, after),
            )
        )
    return figures


def _interval(name: str, result: Result, unit: str) -> list[Figure]:
    return [Figure(f"{name}_low", result.low, unit), Figure(f"{name}_high", result.high, unit)]
