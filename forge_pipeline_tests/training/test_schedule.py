"""The learning rate is a function of the step."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge_pipeline.training.schedule import learning_rate_fraction
from forge_pipeline.training.settings import EngineSettings, ScheduleSettings

schedules = st.builds(
    ScheduleSettings,
    kind=st.sampled_from(["wsd", "cosine", "constant"]),
    warmup_steps=st.integers(0, 30),
    decay_fraction=st.floats(0, 1),
    final_fraction=st.floats(0, 1),
)


@given(schedules, st.integers(1, 500), st.data())
def test_it_stays_between_zero_and_the_peak(settings: ScheduleSettings, steps: int, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, steps - 1))
    assert 0 <= learning_rate_fraction(settings, step, steps) <= 1


def test_wsd_rises_stays_and_falls_in_a_line() -> None:
    settings = ScheduleSettings(kind="wsd", warmup_steps=10, decay_fraction=0.5, final_fraction=0.0)
    values = [learning_rate_fraction(settings, step, 100) for step in range(100)]
    assert values[0] == pytest.approx(0.1)
    assert values[9:51] == [1.0] * 42
    assert values[75] == pytest.approx(0.5)
    assert values[99] == pytest.approx(0.02)


def test_muon_with_partitioned_weights_is_refused_with_the_fix() -> None:
    with pytest.raises(ValueError, match="use zero_stage 0"):
        EngineSettings(steps=1, zero_stage=1)
