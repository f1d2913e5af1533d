"""Confidence intervals of success rates."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

# The 97.5% point of the normal distribution: intervals here are two-sided, 95%.
QUANTILE = 1.959963984540054


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's 95% score interval (1927) of a proportion; (0, 1) without trials."""
    if trials == 0:
        return 0.0, 1.0
    share, square = successes / trials, QUANTILE**2
    centre = (share + square / (2 * trials)) / (1 + square / trials)
    spread = share * (1 - share) / trials + square / (4 * trials**2)
    margin = QUANTILE * math.sqrt(spread) / (1 + square / trials)
    return max(0.0, centre - margin), min(1.0, centre + margin)


def clustered_interval(groups: Sequence[Sequence[float]], resamples: int, seed: int) -> tuple[float, float]:
    """The 95% percentile bootstrap interval of the mean over all values, resampling whole groups.

    Values of one group (samples of one task) hang together; counting them as independent would make the
    interval too narrow. Raises ValueError if there is no value.
    """
    if not any(len(group) for group in groups):
        raise ValueError("no values to average")
    sums = np.array([sum(group) for group in groups], dtype=np.float64)
    sizes = np.array([len(group) for group in groups], dtype=np.float64)
    drawn = np.random.default_rng(seed).integers(len(groups), size=(resamples, len(groups)))
    means = sums[drawn].sum(1) / np.maximum(sizes[drawn].sum(1), 1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)
