"""One measured figure with its confidence interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from forge_pipeline.reporting.intervals import wilson


@dataclass(frozen=True)
class Result:
    """``low`` and ``high`` bound the 95% interval; ``n`` counts ``unit`` (documents, questions, pairs, episodes).

    Headline figures have an empty ``detail``. A figure for a part (a kind of question, a format of documents)
    has the same metric and names the part in ``detail``.
    """

    metric: str
    value: float
    low: float
    high: float
    n: int
    unit: str
    detail: str = ""

    @classmethod
    def proportion(cls, metric: str, outcomes: Sequence[bool], unit: str, detail: str = "") -> Result:
        """The share of true outcomes with its Wilson interval."""
        low, high = wilson(sum(outcomes), len(outcomes))
        value = sum(outcomes) / len(outcomes) if outcomes else 0.0
        return cls(metric, value, low, high, len(outcomes), unit, detail)
