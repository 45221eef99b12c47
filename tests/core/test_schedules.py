"""Schedules, step by step."""

from math import cos, pi

import pytest
from mlpd.core.optimization.schedules import (
    SCHEDULES,
    Constant,
    Exponential,
    Joined,
    OneCycle,
    Polynomial,
    Segment,
    Steps,
    WarmupCosine,
)


def shares(schedule, step_count):
    return [schedule.share(step, step_count) for step in range(step_count)]


def test_the_constant_schedule_is_constant():
    assert shares(Constant(), 5) == [1.0] * 5


def test_steps_fall_by_a_factor_at_each_interval():
    assert shares(Steps(3, 0.5), 8) == [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25, 0.25]


def test_exponential_falls_by_equal_ratios_to_its_final_share():
    found = shares(Exponential(0.01), 5)
    assert found == pytest.approx([1.0, 0.1**0.5, 0.1, 0.1**1.5, 0.01])
    assert shares(Exponential(0.01), 1) == [1.0]


def test_polynomial_of_power_one_is_a_straight_line():
    assert shares(Polynomial(1.0, 1.0, 0.0), 4) == pytest.approx([1.0, 0.75, 0.5, 0.25])
    assert shares(Polynomial(1.0, 0.2, 1.0), 4) == pytest.approx([0.2, 0.4, 0.6, 0.8])


def test_polynomial_follows_its_power():
    assert shares(Polynomial(2.0, 1.0, 0.5), 4) == pytest.approx([1.0, 0.5 + 0.5 * 0.5625, 0.625, 0.5 + 0.5 * 0.0625])


def test_warmup_cosine_rises_to_its_peak_and_falls_to_its_final_share():
    found = shares(WarmupCosine(4, 0.1), 12)
    assert found[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert found[4:] == sorted(found[4:], reverse=True)
    assert found[8] == pytest.approx(0.55)
    assert WarmupCosine(4, 0.1).share(12, 12) == pytest.approx(0.1)


def test_warmup_cosine_without_warmup_begins_at_its_peak():
    assert shares(WarmupCosine(), 2) == pytest.approx([1.0, 0.5])


def test_one_cycle_rises_and_falls_along_half_cosines():
    found = shares(OneCycle(0.4, 0.1, 0.01), 10)
    assert found[0] == pytest.approx(0.1)
    assert found[2] == pytest.approx(0.55)
    assert found[4] == pytest.approx(1.0)
    assert found[7] == pytest.approx(0.505)
    assert found[9] == pytest.approx(0.01 + 0.99 * (1 + cos(5 / 6 * pi)) / 2)
    assert found[:5] == sorted(found[:5])
    assert found[4:] == sorted(found[4:], reverse=True)


def test_one_cycle_without_a_rise_begins_at_its_peak():
    assert shares(OneCycle(0.0), 3)[0] == 1.0


def test_joined_schedules_count_their_own_steps():
    schedule = Joined((Segment(Polynomial(1.0, 0.0, 1.0), 4), Segment(Constant(), 2), Segment(WarmupCosine(), 99)))
    found = shares(schedule, 10)
    assert found[:4] == pytest.approx([0.0, 0.25, 0.5, 0.75])
    assert found[4:6] == [1.0, 1.0]
    assert found[6:] == pytest.approx(shares(WarmupCosine(), 4))


def test_a_single_segment_is_its_schedule():
    assert shares(Joined((Segment(Exponential(), 1),)), 7) == shares(Exponential(), 7)


def test_joined_schedules_end_with_the_run():
    with pytest.raises(ValueError, match="step must be below 4, got 4"):
        Joined((Segment(Constant(), 2), Segment(Constant(), 2))).share(4, 4)


@pytest.mark.parametrize("kind", [kind for name, kind in SCHEDULES.items() if name != "joined"])
@pytest.mark.parametrize("step_count", [1, 2, 7, 1000])
def test_every_share_is_between_zero_and_one(kind, step_count):
    assert all(0 <= share <= 1 for share in shares(kind(), step_count))
