from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from forge_pipeline.reporting.intervals import bootstrap_ratio, clustered_interval, wilson


@pytest.mark.parametrize(
    ("successes", "count", "low", "high"),
    # Newcombe 1998 (Statistics in Medicine 17:857), table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_published_intervals(successes: int, count: int, low: float, high: float) -> None:
    assert wilson(successes, count) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 2000).flatmap(lambda count: st.tuples(st.integers(0, count), st.just(count))))
def test_wilson_agrees_with_scipy(case: tuple[int, int]) -> None:
    expected = binomtest(*case).proportion_ci(method="wilson")
    assert wilson(*case) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_nothing_counted_says_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="3 successes of 2"):
        wilson(3, 2)
    with pytest.raises(ValueError, match="0 numerators"):
        clustered_interval([], 0, 100)


def test_samples_that_always_agree_count_once() -> None:
    outcomes = np.random.default_rng(0).random(100) < 0.4
    alone = clustered_interval([[float(won)] for won in outcomes], 0, 4000)
    repeated = clustered_interval([[float(won)] * 8 for won in outcomes], 0, 4000)
    assert repeated == alone
    low, high = wilson(int(outcomes.sum()), 100)
    assert alone == pytest.approx((low, high), abs=0.03)


def test_the_bootstrap_of_a_mean_approaches_the_normal_interval() -> None:
    values = np.random.default_rng(1).normal(5.0, 2.0, 400)
    low, high = clustered_interval([[value] for value in values], 0, 4000)
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)


def test_a_constant_ratio_has_no_spread_and_weights_do_count() -> None:
    assert bootstrap_ratio([2.0, 8.0, 20.0], [1.0, 4.0, 10.0], 0, 200) == pytest.approx((2.0, 2.0))
    low, high = bootstrap_ratio([1.0, 900.0], [1.0, 1000.0], 0, 500)
    assert low == pytest.approx(0.9)
    assert high == pytest.approx(1.0)


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=30), st.integers(0, 9))
def test_the_bootstrap_is_a_function_of_its_arguments_within_the_data(values: list[float], seed: int) -> None:
    interval = clustered_interval([[value] for value in values], seed, 150)
    assert interval == clustered_interval([[value] for value in values], seed, 150)
    assert min(values) - 1e-9 <= interval[0] <= interval[1] <= max(values) + 1e-9
