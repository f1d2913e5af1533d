"""The learning rate as a function of the step alone."""

from __future__ import annotations

import math

from forge_pipeline.training.settings import ScheduleSettings


def learning_rate_fraction(settings: ScheduleSettings, step: int, steps: int) -> float:
    """The fraction of the peak rate used in ``step`` (from 0) of ``steps``."""
    warmup = min(1.0, (step + 1) / settings.warmup_steps) if settings.warmup_steps else 1.0
    if settings.kind == "constant":
        return warmup
    remaining = 1 - step / steps
    if settings.kind == "cosine":
        shape = 0.5 * (1 + math.cos(math.pi * (1 - remaining)))
    else:
        shape = min(1.0, remaining / settings.decay_fraction) if settings.decay_fraction else 1.0
    return warmup * (settings.final_fraction + (1 - settings.final_fraction) * shape)
