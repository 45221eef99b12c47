"""Runs that go on from a trained model."""

from dataclasses import replace

import numpy as np
import pytest
from mlpd.core.devices.arrays import Cpu
from mlpd.core.optimization.optimizers import AdaGrad, Adam, Lion, RmsProp, Sgd
from mlpd.core.spec.training import WarmStartSpec
from mlpd.core.steps.examples import Examples
from mlpd.core.training.events import MetricsRecorded
from mlpd.core.training.state import TrainingState

from .family import ROWS, finish, optimized, run, vectors

WEIGHTS, FULL = (WarmStartSpec("models/a/versions/1", "", full) for full in (False, True))
KINDS = {"momentum": Sgd(0.9), "adam": Adam(), "rmsprop": RmsProp(momentum=0.5), "adagrad": AdaGrad(), "lion": Lion()}


def full_batch(kind, epoch_count, **changes):
    """A run whose steps are all alike: one order, one rate, so that two halves can be one whole."""
    return run(batch_size=ROWS, epoch_count=epoch_count, **optimized(kind, 0.01), **changes)


def continued(case, source, warm_start):
    case = case.but(warm_start=warm_start)
    return TrainingState.initial(Cpu(), case.spec, case.examples(), source)


def trained(case):
    state = case.start()
    finish(state)
    return state.trained()


@pytest.mark.parametrize("normalization", ["none", "batch"])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_full_warm_start_goes_on_as_if_the_run_had_never_ended(kind, normalization):
    half, whole = (full_batch(kind, epochs, normalization=normalization) for epochs in (5, 10))
    second = continued(half, trained(half), FULL)
    finish(second)
    unbroken = whole.start()
    finish(unbroken)
    assert vectors(second) == vectors(unbroken)
    assert second.optimizer_step == unbroken.optimizer_step == 10


@pytest.mark.parametrize("warm_start", [WEIGHTS, FULL])
def test_a_warm_start_begins_with_the_weights_and_statistics_of_its_source(warm_start):
    case = full_batch(Adam(), 4, normalization="batch")
    source = trained(case)
    model = continued(case, source, warm_start).trained().model
    assert model.parameters.tobytes() == source.model.parameters.tobytes()
    assert model.statistics.tobytes() == source.model.statistics.tobytes()


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_only_a_full_warm_start_takes_over_moments(kind):
    case = full_batch(kind, 4)
    source = trained(case)
    full, weights = (continued(case, source, warm_start) for warm_start in (FULL, WEIGHTS))
    for name, moment in source.moments.items():
        assert moment.any()
        assert full.trained().moments[name].tobytes() == moment.tobytes()
        assert not weights.trained().moments[name].any()
    assert (full.optimizer_step, weights.optimizer_step) == (4, 0)
    assert (full.step, weights.step) == (0, 0)


def test_weights_alone_can_go_on_with_another_optimizer():
    source = trained(full_batch(Adam(), 4))
    state = continued(full_batch(Sgd(0.9), 4), source, WEIGHTS)
    finish(state)
    assert set(state.trained().moments) == {"velocity"}


def test_a_warm_start_leaves_its_source_alone():
    case = full_batch(Adam(), 4, normalization="batch")
    source = trained(case)
    before = [source.model.sha256, *(vector.tobytes() for vector in source.moments.values())]
    finish(continued(case, source, FULL))
    assert [source.model.sha256, *(vector.tobytes() for vector in source.moments.values())] == before


def test_a_warm_start_counts_its_steps_and_its_schedule_from_zero():
    case = full_batch(Adam(), 3)
    events = finish(continued(case, trained(case), FULL))
    steps = [event.step for event in events if isinstance(event, MetricsRecorded) and event.split == "train"]
    assert steps == [1, 2, 3]


def test_a_resumed_warm_start_goes_on_from_its_own_steps():
    case = full_batch(Adam(), 4).but(warm_start=FULL)
    source = trained(full_batch(Adam(), 4))
    whole = TrainingState.initial(Cpu(), case.spec, case.examples(), source)
    checkpoint = whole.checkpoint()
    finish(whole)
    resumed = case.restore(checkpoint)
    finish(resumed)
    assert vectors(resumed) == vectors(whole)
    assert checkpoint.counters.optimizer_step == 4


def test_examples_of_a_warm_start_are_scaled_as_its_source_was():
    case = run(standardize_inputs=True, input_scale=1.0)
    source = trained(case)
    brighter = replace(case.data, inputs=case.data.inputs.astype(np.float32) + 1000)
    examples = Examples.of(case.spec, brighter, None, source.model)
    assert examples.scaling is source.model.scaling
    own, taken = (
        np.asarray(scaling.shift) for scaling in (Examples.of(case.spec, brighter, None).scaling, examples.scaling)
    )
    assert (own - taken).min() > 900
