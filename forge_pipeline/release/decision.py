"""The release gate: which threshold passed or failed, and which stage is the cheapest that meets the target.

A failed gate is a result, not an error: it is recorded, and the model is packaged without becoming champion.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from forge_pipeline.errors import RecipeError, StorageError
from forge_pipeline.release.results import EVALUATIONS_FILE, Result, interval_text, read_results, write_evaluations
from forge_pipeline.release.settings import ReleaseSettings, Threshold
from forge_pipeline.reporting import Check, Outcome, Plot, Progress, Scalar, Table

CODE_VERSION = "1"
DECISION_FILE = "decision.json"

Verdict = Literal["passed", "failed", "not_measured", "no_interval"]


@dataclass(frozen=True)
class StageCost:
    """What one stage's own training took: wall ``seconds`` on this machine, and ``flops``."""

    seconds: float
    flops: float


@dataclass(frozen=True)
class Judgement:
    """One threshold, judged at one stage. ``value``, ``low`` and ``high`` are None where nothing was measured."""

    metric: str
    stage: str
    verdict: Verdict
    value: float | None
    low: float | None
    high: float | None
    n: int
    at_least: float | None
    at_most: float | None
    judged_by: str

    @property
    def passed(self) -> bool:
        return self.verdict == "passed"

    @property
    def condition(self) -> str:
        bound = f"at least {self.at_least:g}" if self.at_least is not None else f"at most {self.at_most:g}"
        return bound if self.judged_by == "value" else f"{bound}, all of the interval"


def decide_release(
    settings: ReleaseSettings,
    evaluations: Mapping[str, Path],
    costs: Mapping[str, StageCost],
    output: Path,
    progress: Progress,
) -> Outcome:
    """Judge ``evaluations`` (stage name -> evaluation artifact, in training order) by the recipe's thresholds.

    Each stage continues from the one before, so the cost of a stage is the sum of ``costs`` up to it; the
    cheapest stage that meets the target is the one with the fewest training seconds, the earlier one of two.
    A metric nobody measured fails its threshold. Without any threshold the gate does not pass.

    Writes `decision.json` and `evaluations.parquet` (all results with their stage). Raises RecipeError if the
    recipe names a stage that was not evaluated, StorageError if an evaluation cannot be read; never because a
    threshold failed.
    """
    stages = list(evaluations)
    _refuse_unknown_stages(settings, stages)
    results = [result for stage in stages for result in read_results(evaluations[stage], stage)]
    measured = {(result.stage, result.metric): result for result in results if result.is_headline}
    released = settings.released_stage or stages[-1]
    judgements = [judge(threshold, threshold.stage or released, measured) for threshold in settings.thresholds]
    passed = bool(judgements) and all(judgement.passed for judgement in judgements)
    ladder = _ladder(settings, stages, costs, measured)
    cheapest = min((rung for rung in ladder if rung["meets_target"]), key=lambda rung: rung["seconds"], default=None)
    body = {
        "passed": passed,
        "reason": _reason(judgements),
        "released_stage": released,
        "thresholds": [asdict(judgement) | {"condition": judgement.condition} for judgement in judgements],
        "stages": ladder,
        "cheapest_stage": cheapest["stage"] if cheapest else None,
    }
    (output / DECISION_FILE).write_text(json.dumps(body, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    write_evaluations(results, output / EVALUATIONS_FILE)
    progress.note(f"release gate {'passed' if passed else 'did not pass'}: {body['reason']}")
    return _outcome(passed, body, judgements, results)


def read_decision(decision: Path) -> dict[str, Any]:
    """The body of `decision.json`. Raises StorageError if it is not one."""
    path = decision / DECISION_FILE
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise StorageError(
            f"cannot read the release decision: {error}", where=str(path), fix="run release_decision again"
        ) from error
    if not isinstance(body, dict) or not isinstance(body.get("passed"), bool):
        raise StorageError("the release decision does not say whether it passed", where=str(path))
    return body


def judge(threshold: Threshold, stage: str, measured: Mapping[tuple[str, str], Result]) -> Judgement:
    """``threshold`` against what was measured at ``stage``."""
    result = measured.get((stage, threshold.metric))
    verdict: Verdict
    if result is None or not math.isfinite(result.value):
        verdict = "not_measured"
    elif threshold.judged_by == "interval" and not result.has_interval:
        verdict = "no_interval"
    else:
        by_value = threshold.judged_by == "value"
        if threshold.at_least is not None:
            holds = (result.value if by_value else result.low) >= threshold.at_least
        else:
            assert threshold.at_most is not None
            holds = (result.value if by_value else result.high) <= threshold.at_most
        verdict = "passed" if holds else "failed"
    known = result is not None and math.isfinite(result.value)
    interval = result is not None and known and result.has_interval
    return Judgement(
        metric=threshold.metric,
        stage=stage,
        verdict=verdict,
        value=result.value if result is not None and known else None,
        low=result.low if result is not None and interval else None,
        high=result.high if result is not None and interval else None,
        n=result.n if result is not None else 0,
        at_least=threshold.at_least,
        at_most=threshold.at_most,
        judged_by=threshold.judged_by,
    )


def _refuse_unknown_stages(settings: ReleaseSettings, stages: list[str]) -> None:
    if not stages:
        raise RecipeError("no stage was evaluated, so there is nothing to release", fix="give the recipe an evaluation")
    wanted = {"released_stage": settings.released_stage} | {
        f"thresholds.{index}.stage": threshold.stage for index, threshold in enumerate(settings.thresholds)
    }
    for field, stage in wanted.items():
        if stage is not None and stage not in stages:
            raise RecipeError(
                f"{stage!r} was not evaluated", where=f"release.{field}", fix=f"name one of: {', '.join(stages)}"
            )


def _ladder(
    settings: ReleaseSettings,
    stages: list[str],
    costs: Mapping[str, StageCost],
    measured: Mapping[tuple[str, str], Result],
) -> list[dict[str, Any]]:
    """For each stage: what reaching it cost, and whether the target (thresholds without a stage) holds there."""
    target = [threshold for threshold in settings.thresholds if threshold.stage is None]
    seconds = flops = 0.0
    ladder = []
    for stage in stages:
        if stage not in costs:
            raise StorageError(f"the training cost of {stage} is not given", fix="run the training stage again")
        seconds += costs[stage].seconds
        flops += costs[stage].flops
        judgements = [judge(threshold, stage, measured) for threshold in target]
        ladder.append(
            {
                "stage": stage,
                "seconds": round(seconds, 3),
                "flops": flops,
                "meets_target": bool(target) and all(judgement.passed for judgement in judgements),
                "misses": [judgement.metric for judgement in judgements if not judgement.passed],
            }
        )
    return ladder


def _reason(judgements: list[Judgement]) -> str:
    if not judgements:
        return "the recipe names no threshold, so nothing shows that this model may be released"
    misses = [judgement for judgement in judgements if not judgement.passed]
    if not misses:
        return "every threshold of the recipe holds"
    return "; ".join(
        f"{miss.metric} of {miss.stage} was not measured"
        if miss.value is None
        else f"{miss.metric} of {miss.stage} is {miss.value:.4g} ({miss.condition} is asked)"
        for miss in misses
    )


def _outcome(passed: bool, body: dict[str, Any], judgements: list[Judgement], results: list[Result]) -> Outcome:
    rows: list[dict[str, Scalar]] = [
        {
            "metric": judgement.metric,
            "stage": judgement.stage,
            "condition": judgement.condition,
            "value": None if judgement.value is None else round(judgement.value, 4),
            "interval": "not given"
            if judgement.low is None or judgement.high is None
            else interval_text(judgement.low, judgement.high),
            "n": judgement.n,
            "verdict": judgement.verdict.replace("_", " "),
        }
        for judgement in judgements
    ]
    ladder = Table.of(
        "Which stage meets the target",
        [
            {
                "stage": rung["stage"],
                "training seconds so far": rung["seconds"],
                "FLOPs so far": float(f"{rung['flops']:.4g}"),
                "meets the target": rung["meets_target"],
                "misses": ", ".join(rung["misses"]),
            }
            for rung in body["stages"]
        ],
    )
    checks = [
        Check(
            name=f"{judgement.metric}_of_{judgement.stage}",
            passed=judgement.passed,
            description=f"{judgement.metric} of {judgement.stage} is {judgement.condition}",
            value=judgement.value,
            threshold=judgement.at_least if judgement.at_least is not None else judgement.at_most,
        )
        for judgement in judgements
    ]
    return Outcome(
        counts={
            "passed": passed,
            "thresholds": len(judgements),
            "thresholds_failed": sum(not judgement.passed for judgement in judgements),
            "released_stage": body["released_stage"],
            "cheapest_stage": body["cheapest_stage"],
            "reason": body["reason"],
        },
        checks=checks,
        tables=[
            Table.of("Thresholds", rows),
            ladder,
            Table.of("Evaluations", [r.row() for r in results if r.is_headline][:30]),
        ],
        plots=[_stage_plot(metric, results) for metric in dict.fromkeys(t.metric for t in judgements)],
    )


def _stage_plot(metric: str, results: list[Result]) -> Plot:
    found = [r for r in results if (r.metric, r.detail) == (metric, "") and math.isfinite(r.value)]
    return Plot(
        f"{metric} by stage", "bar", "stage", metric, {metric: ([r.stage for r in found], [r.value for r in found])}
    )
