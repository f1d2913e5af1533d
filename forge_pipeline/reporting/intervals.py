"""95% confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# The 97.5% quantile of the normal distribution.
Z = 1.959963984540054
_CHUNK = 1_000_000


def wilson(successes: int, count: int) -> tuple[float, float]:
    """The score interval of a proportion (Wilson 1927). (0, 1) if nothing was counted."""
    if not 0 <= successes <= count:
        raise ValueError(f"{successes} successes of {count}")
    if count == 0:
        return 0.0, 1.0
    share, spread = successes / count, Z * Z / count
    centre = (share + spread / 2) / (1 + spread)
    half = Z * math.sqrt(share * (1 - share) / count + spread / (4 * count)) / (1 + spread)
    # At the ends the bound is the end itself, which rounding would miss.
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == count else centre + half)


def bootstrap_ratio(
    numerators: Sequence[float] | NDArray[np.float64],
    denominators: Sequence[float] | NDArray[np.float64],
    seed: int,
    resamples: int,
) -> tuple[float, float]:
    """The percentile interval of sum(numerators) / sum(denominators), resampling pairs (Efron 1979).

    With documents as pairs of bits and bytes, the interval says how much the figure depends on which documents
    happened to be held out. A function of its arguments alone. Raises ValueError if there is nothing to resample.
    """
    above, below = np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)
    if len(above) == 0 or len(above) != len(below):
        raise ValueError(f"{len(above)} numerators and {len(below)} denominators")
    generator = np.random.default_rng(seed)
    ratios = []
    rows = max(1, _CHUNK // len(above))
    for start in range(0, resamples, rows):
        drawn = generator.integers(0, len(above), (min(rows, resamples - start), len(above)))
        ratios.append(above[drawn].sum(1) / below[drawn].sum(1))
    low, high = np.quantile(np.concatenate(ratios), [0.025, 0.975])
    return float(low), float(high)


def clustered_interval(groups: Sequence[Sequence[float]], seed: int, resamples: int) -> tuple[float, float]:
    """The percentile interval of the mean over all values, resampling whole groups.

    Values of one group (samples of one task) hang together; counting them as independent would make the
    interval too narrow. Raises ValueError if there is nothing to resample.
    """
    return bootstrap_ratio([sum(group) for group in groups], [len(group) for group in groups], seed, resamples)
