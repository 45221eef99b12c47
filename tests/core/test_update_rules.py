"""Rules of optimizers and schedules."""

from dataclasses import replace

import pytest
from mlpd.core.optimization.optimizers import AdaGrad, Adam, Lion, RmsProp, Sgd
from mlpd.core.optimization.schedules import (
    Constant,
    Exponential,
    Joined,
    OneCycle,
    Polynomial,
    Segment,
    Steps,
    WarmupCosine,
)
from mlpd.core.spec.training import PlateauSpec, ScheduleSpec

from .test_rules import INF, NAN, SPEC, optimizer, plateau, schedule, sentences

OPTIMIZER_RULES = [
    (optimizer(Sgd(1.0)), "optimizer.sgd.momentum must be at least 0 and below 1, got 1.0"),
    (optimizer(Sgd(0.0, nesterov=True)), "optimizer.sgd.nesterov must come with momentum above 0, got 0.0"),
    (optimizer(Adam(beta1=-0.1)), "optimizer.adam.beta1 must be at least 0 and below 1, got -0.1"),
    (optimizer(Adam(beta2=NAN)), "optimizer.adam.beta2 must be at least 0 and below 1, got nan"),
    (optimizer(Adam(epsilon=0.0)), "optimizer.adam.epsilon must be finite and above 0, got 0.0"),
    (optimizer(RmsProp(decay=1.0)), "optimizer.rmsprop.decay must be at least 0 and below 1, got 1.0"),
    (optimizer(RmsProp(epsilon=INF)), "optimizer.rmsprop.epsilon must be finite and above 0, got inf"),
    (optimizer(RmsProp(momentum=-0.5)), "optimizer.rmsprop.momentum must be at least 0 and below 1, got -0.5"),
    (optimizer(AdaGrad(epsilon=-1.0)), "optimizer.adagrad.epsilon must be finite and above 0, got -1.0"),
    (optimizer(Lion(beta1=1.0)), "optimizer.lion.beta1 must be at least 0 and below 1, got 1.0"),
    (optimizer(Lion(beta2=2.0)), "optimizer.lion.beta2 must be at least 0 and below 1, got 2.0"),
    (
        optimizer(Adam(epsilon=1e-30)),
        "optimizer.adam.epsilon must be between 1e-16 and 1e+38 in size for data_type float32, got 1e-30",
    ),
    (
        optimizer(clip_norm=1e-50),
        "optimizer.clip_norm must be between 1e-37 and 1e+38 in size for data_type float32, got 1e-50",
    ),
    (optimizer(weight_decay=-1.0), "optimizer.weight_decay must be finite and at least 0, got -1.0"),
    (optimizer(clip_norm=NAN), "optimizer.clip_norm must be finite and at least 0, got nan"),
    (optimizer(average_decay=1.0), "optimizer.average_decay must be at least 0 and below 1, got 1.0"),
]
SCHEDULE_RULES = [
    (schedule(Constant(), 0.0), "schedule.learning_rate must be above 0 and at most 1e+09, got 0.0"),
    (schedule(Constant(), INF), "schedule.learning_rate must be above 0 and at most 1e+09, got inf"),
    (schedule(Steps(0)), "schedule.steps.interval_steps must be at least 1, got 0"),
    (schedule(Steps(1, 0.0)), "schedule.steps.factor must be above 0 and at most 1, got 0.0"),
    (schedule(Exponential(0.0)), "schedule.exponential.final_share must be above 0 and at most 1, got 0.0"),
    (schedule(Polynomial(power=0.0)), "schedule.polynomial.power must be finite and above 0, got 0.0"),
    (schedule(Polynomial(1.0, 2.0)), "schedule.polynomial.initial_share must be at least 0 and at most 1, got 2.0"),
    (
        schedule(Polynomial(1.0, 1.0, -1.0)),
        "schedule.polynomial.final_share must be at least 0 and at most 1, got -1.0",
    ),
    (schedule(WarmupCosine(50)), "schedule.warmup_cosine.warmup_steps must be between 0 and 49, got 50"),
    (schedule(WarmupCosine(-1)), "schedule.warmup_cosine.warmup_steps must be between 0 and 49, got -1"),
    (schedule(WarmupCosine(0, 1.5)), "schedule.warmup_cosine.final_share must be at least 0 and at most 1, got 1.5"),
    (schedule(OneCycle(rise=1.0)), "schedule.one_cycle.rise must be at least 0 and below 1, got 1.0"),
    (
        schedule(OneCycle(initial_share=NAN)),
        "schedule.one_cycle.initial_share must be at least 0 and at most 1, got nan",
    ),
    (schedule(OneCycle(final_share=2.0)), "schedule.one_cycle.final_share must be at least 0 and at most 1, got 2.0"),
    (schedule(Joined()), "schedule.joined.segments must have between 1 and 32 entries, got 0"),
    (
        schedule(Joined((Segment(Constant(), 1),) * 33)),
        "schedule.joined.segments must have between 1 and 32 entries, got 33",
    ),
    (
        schedule(Joined((Segment(Constant(), 50), Segment(Constant(), 1)))),
        "schedule.joined.segments must leave some of 50 steps for the last, got 0",
    ),
    (
        schedule(Joined((Segment(Constant(), 0), Segment(Constant(), 1)))),
        "schedule.joined.segments[0].step_count must be at least 1, got 0",
    ),
    (
        schedule(Joined((Segment(Joined((Segment(Constant(), 1),)), 3), Segment(Constant(), 1)))),
        "schedule.joined.segments[0] must not be joined itself, got joined",
    ),
    (
        schedule(Joined((Segment(Constant(), 45), Segment(WarmupCosine(5), 1)))),
        "schedule.joined.segments[1].warmup_cosine.warmup_steps must be between 0 and 4, got 5",
    ),
    (
        replace(SPEC, schedule=ScheduleSpec(0.1, plateau=PlateauSpec())),
        "schedule.plateau must come with validation_dataset or validation_fraction, got neither",
    ),
    (plateau(factor=1.0), "schedule.plateau.factor must be above 0 and below 1, got 1.0"),
    (plateau(minimum_share=-0.1), "schedule.plateau.minimum_share must be at least 0 and at most 1, got -0.1"),
    (plateau(patience=0), "schedule.plateau.patience must be at least 1, got 0"),
]


@pytest.mark.parametrize(("spec", "sentence"), [*OPTIMIZER_RULES, *SCHEDULE_RULES])
def test_every_rule_names_field_and_value(spec, sentence):
    assert sentences(spec) == [sentence]
