"""A spec survives its message, whatever is in it."""

from dataclasses import replace

import pytest
from mlpd.core.optimization.schedules import SCHEDULES, Joined, Segment
from mlpd.core.spec.training import ScheduleSpec, TrainingSpec, WarmStartSpec
from mlpd.server.wire.specs import spec_message, value_of

from ..core.family import FAMILY, SPEC


@pytest.mark.parametrize("case", FAMILY.values(), ids=FAMILY)
def test_a_spec_survives_its_message(case):
    assert value_of(TrainingSpec, spec_message(case.spec)) == case.spec


@pytest.mark.parametrize("full", [False, True])
def test_a_warm_start_and_a_time_limit_survive_theirs(full):
    spec = replace(
        SPEC, warm_start=WarmStartSpec("models/a/versions/1", "ab", full), time_limit_seconds=1.5, device="cuda"
    )
    assert value_of(TrainingSpec, spec_message(spec)) == spec


@pytest.mark.parametrize("kind", SCHEDULES.values(), ids=SCHEDULES)
def test_a_schedule_survives_its_message_by_itself_and_joined(kind):
    for shape in (kind(), Joined((Segment(kind(), 5), Segment(kind())))):
        spec = replace(SPEC, schedule=ScheduleSpec(0.5, shape))
        assert value_of(TrainingSpec, spec_message(spec)) == spec
