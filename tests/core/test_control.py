"""What a run does about its validation scores: keep the best, stop, lower the rate."""

from dataclasses import replace

import pytest
from mlpd.core.devices.arrays import Cpu
from mlpd.core.models.metrics import evaluate
from mlpd.core.models.predictor import Predictor
from mlpd.core.optimization.optimizers import Adam, Sgd
from mlpd.core.optimization.schedules import Polynomial
from mlpd.core.spec.training import EarlyStoppingSpec, PlateauSpec, ScheduleSpec
from mlpd.core.training.control import Monitor
from mlpd.core.training.events import MetricsRecorded, StepEnded, StoppedEarly

from .family import events_of, finish, optimized, run


def monitored(losses, stopping=None, plateau=None, accuracies=None):
    monitors = [Monitor()]
    for epoch, loss in enumerate(losses, 1):
        accuracy = accuracies[epoch - 1] if accuracies else None
        monitors.append(monitors[-1].after(epoch, loss, accuracy, stopping, plateau))
    return monitors[1:]


def test_a_run_stops_after_its_patience_of_stale_validations():
    stopping = EarlyStoppingSpec(patience=2)
    monitors = monitored([3.0, 2.0, 2.0, 1.0, 1.5, 1.0, 0.5], stopping)
    assert [monitor.stops(stopping) for monitor in monitors] == [False] * 5 + [True, False]
    assert [monitor.best_epoch for monitor in monitors] == [1, 2, 2, 4, 4, 4, 7]
    assert [monitor.stale_count for monitor in monitors] == [0, 0, 1, 0, 1, 2, 0]


def test_an_improvement_must_exceed_the_minimum_delta():
    stopping = EarlyStoppingSpec(patience=1, minimum_delta=0.5)
    assert [monitor.best_epoch for monitor in monitored([3.0, 2.75, 2.5, 2.25], stopping)] == [1, 1, 1, 4]


def test_accuracy_can_be_what_counts():
    stopping = EarlyStoppingSpec(metric="accuracy")
    monitors = monitored([1.0, 9.0, 0.1], stopping, accuracies=[0.5, 0.6, 0.6])
    assert [monitor.best_epoch for monitor in monitors] == [1, 2, 2]


def test_without_early_stopping_nothing_stops_a_run():
    assert not monitored([1.0] * 100)[-1].stops(None)


def test_a_plateau_lowers_the_rate_down_to_its_minimum():
    monitors = monitored([2.0, 2.0, 3.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5], None, PlateauSpec(0.5, 2, 0.2))
    assert [monitor.rate_share for monitor in monitors] == [1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.2, 0.2, 0.2]


def test_a_patience_of_one_lowers_the_rate_at_once():
    assert [monitor.rate_share for monitor in monitored([2.0, 2.0, 2.0], None, PlateauSpec(0.1, 1))] == pytest.approx(
        [1, 0.1, 0.01]
    )


STOPPING = run(epoch_count=40, early_stopping=EarlyStoppingSpec(2), **optimized(Adam(), 0.05))


def validations(events):
    return [event for event in events if isinstance(event, MetricsRecorded) and event.split == "validation"]


def test_a_stopped_run_keeps_its_best_weights():
    state = STOPPING.start()
    events = finish(state)
    scores = validations(events)
    best = min(scores, key=lambda event: event.loss)
    assert isinstance(events[-1], StoppedEarly)
    assert events[-1].reason == (
        f"the validation loss has not improved for 2 validations; the weights of epoch {best.epoch} are kept"
    )
    assert scores[-1].epoch == best.epoch + 2
    *_, counts = evaluate(Predictor(Cpu(), state.trained().model, 512), STOPPING.validation)
    assert counts.loss == best.loss


def test_a_run_that_reaches_its_end_keeps_its_best_weights_too():
    case = STOPPING.but(epoch_count=8, early_stopping=EarlyStoppingSpec(100))
    state = case.start()
    events = finish(state)
    assert isinstance(events[-1], StepEnded)
    best = min(validations(events), key=lambda event: event.loss)
    assert best.epoch < 8
    *_, counts = evaluate(Predictor(Cpu(), state.trained().model, 512), case.validation)
    assert counts.loss == best.loss


def test_the_best_of_an_averaged_run_is_an_average():
    case = STOPPING.but(optimizer=replace(STOPPING.spec.optimizer, average_decay=0.5))
    state = case.start()
    best = min(validations(finish(state)), key=lambda event: event.loss)
    *_, counts = evaluate(Predictor(Cpu(), state.trained().model, 512), case.validation)
    assert counts.loss == best.loss


def test_a_run_stopped_by_hand_keeps_its_best_weights():
    state = STOPPING.start()
    scores = []
    for event in events_of(state):
        scores += validations([event])
        if isinstance(event, StepEnded) and event.epoch == 1 + min(scores, key=lambda e: e.loss, default=event).epoch:
            break
    best = min(scores, key=lambda event: event.loss)
    *_, counts = evaluate(Predictor(Cpu(), state.trained().model, 512), STOPPING.validation)
    assert counts.loss == best.loss


def test_early_stopping_leaves_the_steps_before_alone():
    events = finish(STOPPING.start())
    free = finish(STOPPING.but(early_stopping=None).start())
    assert events[:-1] == free[: len(events) - 1]


def test_a_plateau_lowers_the_rate_of_the_run():
    shape = ScheduleSpec(0.05, Polynomial(1.0, 1.0, 0.5), PlateauSpec(0.5, 1))
    case = run(epoch_count=30, schedule=shape, metrics_interval_steps=1)
    events = [event for event in finish(case.start()) if isinstance(event, MetricsRecorded)]
    share, lowest, epochs_lowered = 1.0, float("inf"), []
    for event in events:
        if event.split == "train":
            expected = 0.05 * (1 - 0.5 * (event.step - 1) / event.step_count) * share
            assert event.learning_rate == pytest.approx(expected)
        elif event.loss < lowest:
            lowest = event.loss
        else:
            share *= 0.5
            epochs_lowered.append(event.epoch)
    assert epochs_lowered


def test_a_run_that_stands_still_has_its_rate_lowered_at_every_validation():
    plateau = run(**optimized(Sgd(), 1e-30), epoch_count=3, metrics_interval_steps=1)
    plateau = plateau.but(schedule=ScheduleSpec(1e-30, plateau=PlateauSpec(0.1, 1)))
    rates = [e.learning_rate for e in finish(plateau.start()) if isinstance(e, MetricsRecorded) and e.split == "train"]
    assert rates == pytest.approx([1e-30] * 10 + [1e-31] * 5)
