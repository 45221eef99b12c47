"""What a run reports, what one step does, and how a run ends."""

from dataclasses import replace

import numpy as np
import pytest
from mlpd.core.data.datasets import Dataset
from mlpd.core.devices.arrays import Cpu
from mlpd.core.network.losses import MeanSquared
from mlpd.core.network.tasks import mixing_share
from mlpd.core.optimization.optimizers import Adam, Sgd
from mlpd.core.optimization.schedules import Constant, Steps
from mlpd.core.random import permutation
from mlpd.core.spec.split import micro_batch_rows
from mlpd.core.spec.training import LossSpec, OptimizerSpec, ScheduleSpec
from mlpd.core.steps.batches import cut
from mlpd.core.training.events import MetricsRecorded, StepEnded, StoppedEarly
from mlpd.core.training.state import Diverged

from .family import FAMILY, INPUTS, LAYERS, ROWS, Run, brought, events_of, finish, noise, optimized, run

SMALL = run(layer_sizes=(6, 9, 3), activations=("relu",), dropout_rates=(0.0,), **optimized(Sgd(), 0.1))


def small(rows=ROWS, **changes):
    return Run(replace(SMALL.spec, **changes), noise(rows=rows, inputs=6))


def learnt(state):
    return state.trained().model.parameters


def losses(state, split="train"):
    return [event.loss for event in finish(state) if isinstance(event, MetricsRecorded) and event.split == split]


def test_metrics_come_at_the_interval_and_at_the_end_of_each_epoch():
    metrics = [event for event in finish(run().start()) if isinstance(event, MetricsRecorded)]
    assert [(event.split, event.step, event.epoch) for event in metrics][:8] == [
        ("train", 2, 0),
        ("train", 4, 0),
        ("train", 5, 1),
        ("validation", 5, 1),
        ("train", 6, 1),
        ("train", 8, 1),
        ("train", 10, 2),
        ("validation", 10, 2),
    ]
    assert (metrics[0].step_count, metrics[0].epoch_count) == (15, 3)


def test_validation_comes_at_its_interval_and_at_the_end():
    case = run(epoch_count=5)
    case = case.but(validation=replace(case.spec.validation, interval_epochs=2))
    metrics = [event for event in finish(case.start()) if isinstance(event, MetricsRecorded)]
    assert [event.epoch for event in metrics if event.split == "validation"] == [2, 4, 5]


@pytest.mark.parametrize("case", FAMILY.values(), ids=FAMILY)
def test_every_step_ends_with_its_number(case):
    ended = [event for event in finish(case.start()) if isinstance(event, StepEnded)]
    assert [event.step for event in ended] == list(range(1, len(ended) + 1))
    per_epoch = case.spec.steps_per_epoch(len(case.data))
    assert [event.epoch for event in ended] == [event.step // per_epoch for event in ended]


@pytest.mark.parametrize("task", ["regression", "multiclass", "binary", "multilabel"])
def test_accuracy_is_reported_where_an_output_can_be_right(task):
    metrics = [event for event in finish(run(task=task).start()) if isinstance(event, MetricsRecorded)]
    assert {event.accuracy is None for event in metrics} == {task == "regression"}


@pytest.mark.parametrize("case", FAMILY.values(), ids=FAMILY)
def test_a_report_covers_every_row_since_the_last(case):
    events = finish(case.but(metrics_interval_steps=1, epoch_count=1).start())
    single = [event for event in events if isinstance(event, MetricsRecorded) and event.split == "train"]
    (whole,) = [
        event
        for event in finish(case.but(metrics_interval_steps=1000, epoch_count=1).start())
        if isinstance(event, MetricsRecorded) and event.split == "train"
    ]
    rows = case.spec.train_row_count(len(case.data))
    counts = [min(case.spec.rows_per_step, rows - i * case.spec.rows_per_step) for i in range(len(single))]
    assert whole.loss == pytest.approx(np.average([event.loss for event in single], weights=counts), rel=1e-6)
    if whole.accuracy is not None:
        assert whole.accuracy == pytest.approx(np.average([event.accuracy for event in single], weights=counts))


def test_the_loss_of_full_batch_gradient_descent_falls_at_every_epoch():
    found = losses(small(batch_size=ROWS, epoch_count=30).start())
    assert found == sorted(found, reverse=True)


@pytest.mark.parametrize("case", FAMILY.values(), ids=FAMILY)
def test_every_run_of_the_family_learns_its_rows(case):
    spec = case.spec
    rate = spec.schedule.learning_rate
    case = case.but(epoch_count=25, schedule=ScheduleSpec(rate, Constant()), early_stopping=None, augmentation=None)
    case = case.but(metrics_interval_steps=1000)
    found = losses(case.start())
    assert np.mean(found[-3:]) < found[0]


def gradient_of_mean_loss(parameters, data):
    """The gradient of the small network's mean cross-entropy, plainly, in float64."""
    w1, b1, w2, b2 = np.split(parameters.astype(float), np.cumsum([54, 9, 27]))
    x = data.inputs / 255
    hidden = np.maximum(x @ w1.reshape(6, 9) + b1, 0)
    shares = np.exp(hidden @ w2.reshape(9, 3) + b2)
    shares /= shares.sum(axis=1, keepdims=True)
    shares[np.arange(len(x)), data.targets] -= 1
    back = (shares @ w2.reshape(9, 3).T) * (hidden > 0)
    return np.concatenate([(x.T @ back).ravel(), back.sum(0), (hidden.T @ shares).ravel(), shares.sum(0)]) / len(x)


def test_a_batch_larger_than_a_micro_batch_gives_the_gradient_of_the_whole():
    case = small(rows=1300, batch_size=1300, epoch_count=1, schedule=ScheduleSpec(1.0))
    state = case.start()
    assert micro_batch_rows(state.spec) < 1300
    before = learnt(state)
    finish(state)
    assert np.allclose(before - learnt(state), gradient_of_mean_loss(before, case.data), atol=1e-5)


def test_a_step_runs_in_micro_batches_that_fit_its_widest_layer():
    assert micro_batch_rows(small(rows=1300, batch_size=1300).spec) == 512
    assert micro_batch_rows(small(rows=1300, batch_size=1300, device="cuda").spec) == 1300
    assert micro_batch_rows(small(batch_size=30, accumulation_steps=2).spec) == 60
    assert micro_batch_rows(run(layer_sizes=(INPUTS, 2**20, 2**17, 3)).spec) == 4
    assert micro_batch_rows(run(layer_sizes=(INPUTS, 2**23, 2, 3)).spec) == 1
    assert micro_batch_rows(run(normalization="batch", batch_size=30, accumulation_steps=2).spec) == 30


def test_rows_that_are_mixed_have_another_partner_in_each_epoch_even_where_a_step_takes_all():
    mixed_up = run(batch_size=ROWS, epoch_count=2, loss=LossSpec(mixup_alpha=1.0))
    both = [rows.targets[:ROWS] > 0 for _, rows in brought(mixed_up, Cpu())]  # a row's class and its partner's
    plain = [rows.targets[:ROWS] > 0 for _, rows in brought(mixed_up.but(loss=LossSpec()), Cpu())]
    assert np.array_equal(plain[0], plain[1])
    assert not np.array_equal(both[0], both[1])


def test_micro_batches_are_of_one_epoch():
    spec = run(batch_size=10).spec
    for start, end in ((0, 3), (2, 5), (1, 1)):
        with pytest.raises(ValueError, match="steps must be of one epoch of 2"):
            cut(spec, 20, start, end)


def test_a_mixed_up_step_is_a_step_on_mixed_rows():
    mixed_up = run(task="regression", batch_size=ROWS, epoch_count=1, loss=LossSpec(MeanSquared(), mixup_alpha=0.5))
    share = mixing_share(mixed_up.spec.seed, 0, 0.5)
    order = permutation(mixed_up.spec.seed, 0, ROWS)
    inputs, targets = (
        share * values[order] + (1 - share) * np.roll(values[order], -1, axis=0)
        for values in (mixed_up.data.inputs.astype(float), mixed_up.data.targets)
    )
    plain = replace(mixed_up.but(loss=LossSpec(MeanSquared())), data=Dataset(inputs, targets))
    outcomes = []
    for case in (mixed_up, plain):
        state = case.start()
        outcomes.append((losses(state)[0], learnt(state)))
    assert outcomes[0][0] == pytest.approx(outcomes[1][0], rel=1e-5)
    assert np.allclose(outcomes[0][1], outcomes[1][1], atol=1e-5)


def test_accumulated_batches_are_one_bigger_batch():
    several, one = (run(batch_size=size, accumulation_steps=32 // size) for size in (8, 32))
    outcomes = []
    for case in (several, one):
        state = case.start()
        outcomes.append((losses(state), learnt(state).tobytes()))
    assert outcomes[0] == outcomes[1]


def test_accumulated_batches_are_normalised_each_by_itself():
    """The gradient of a step is then the mean of the gradients of its batches."""
    accumulated = LAYERS["accumulated batch norm"].but(
        schedule=ScheduleSpec(1.0), optimizer=OptimizerSpec(Sgd()), batch_size=35, accumulation_steps=2, epoch_count=1
    )
    state = accumulated.start()
    assert micro_batch_rows(state.spec) == 35
    before, changes = learnt(state), []
    finish(state)
    for half in (slice(0, 35), slice(35, 70)):
        data = Dataset(accumulated.data.inputs[half], accumulated.data.targets[half])
        alone = Run(replace(accumulated.spec, accumulation_steps=1), data).start()
        finish(alone)
        changes.append(learnt(alone) - before)
    assert np.allclose(learnt(state) - before, np.mean(changes, axis=0), atol=1e-6)


def test_weight_decay_shrinks_weights_and_leaves_biases():
    case = small(epoch_count=1, batch_size=ROWS)
    shrunk, plain = (case.but(optimizer=OptimizerSpec(Sgd(), decay)).start() for decay in (0.5, 0.0))
    start = learnt(plain)
    for state in (shrunk, plain):
        finish(state)
    difference = learnt(plain) - learnt(shrunk)
    assert np.allclose(difference[:54], start[:54] * 0.1 * 0.5, atol=1e-6)
    assert np.array_equal(difference[54:63], np.zeros(9))


def test_weight_decay_leaves_gains_and_biases_of_normalisations():
    case = run(normalization="layer", **optimized(Sgd(), weight_decay=0.5)).but(epoch_count=1, batch_size=ROWS)
    plain = case.but(optimizer=OptimizerSpec(Sgd()))
    states = [case.start(), plain.start()]
    for state in states:
        finish(state)
    shrunk, whole = (learnt(state) for state in states)
    kept = np.concatenate([np.zeros(INPUTS * 9), np.ones(27)])  # first weights; bias, gain and bias
    assert np.array_equal((shrunk == whole)[: len(kept)], kept.astype(bool))


def test_a_clipped_step_has_the_length_of_the_clip_norm():
    lengths = []
    for norm in (1e-3, 1e6, 0.0):
        case = small(epoch_count=1, batch_size=ROWS, schedule=ScheduleSpec(1.0))
        state = case.but(optimizer=OptimizerSpec(Sgd(), clip_norm=norm)).start()
        before = learnt(state)
        finish(state)
        lengths.append(float(np.linalg.norm((learnt(state) - before).astype(float))))
    assert lengths[0] == pytest.approx(1e-3, rel=1e-3)
    assert lengths[1] == pytest.approx(lengths[2], rel=1e-5)
    assert lengths[2] > 1e-3


def test_the_averaged_model_is_the_average_of_the_steps():
    case = run(**optimized(Sgd(), 0.1, average_decay=0.5), epoch_count=1)
    averaged, plain = case.start(), case.but(optimizer=OptimizerSpec(Sgd())).start()
    expected = learnt(plain).astype(float)
    for event in events_of(plain):
        if isinstance(event, StepEnded):
            decay = min(0.5, event.step / (event.step + 9))
            expected = decay * expected + (1 - decay) * learnt(plain)
    finish(averaged)
    assert np.allclose(learnt(averaged), expected, atol=1e-6)


def test_validation_scores_the_average():
    case = run(**optimized(Sgd(), 0.5, average_decay=0.999), epoch_count=1, metrics_interval_steps=1)
    averaged, plain = losses(case.start(), "validation"), losses(case.start())
    still = losses(case.but(optimizer=OptimizerSpec(Sgd())).start(), "validation")
    assert plain == losses(case.but(optimizer=OptimizerSpec(Sgd())).start())
    assert averaged != still


def test_the_reported_rate_is_that_of_the_step():
    case = run(schedule=ScheduleSpec(0.1, Steps(5, 0.5)), metrics_interval_steps=1)
    rates = [e.learning_rate for e in finish(case.start()) if isinstance(e, MetricsRecorded) and e.split == "train"]
    assert rates == pytest.approx([0.1] * 5 + [0.05] * 5 + [0.025] * 5)


def test_equal_weights_are_no_weights():
    case = run(task="regression")
    data = Dataset(case.data.inputs, case.data.targets, np.full(ROWS, 7.0, np.float32))
    outcomes = [(losses(state), learnt(state).tobytes()) for state in (case.start(), replace(case, data=data).start())]
    assert outcomes[0] == outcomes[1]


def test_a_row_of_weight_zero_is_not_there():
    """With a full batch of a network that sees each row by itself, whatever stands in such a row."""
    weights = np.ones(ROWS, np.float32)
    weights[::7] = 0
    changed = noise(weighted=False)
    inputs = changed.inputs.copy()
    inputs[::7] = 255 - inputs[::7]
    case = run(batch_size=ROWS)
    outcomes = []
    for values in (changed.inputs, inputs):
        state = replace(case, data=Dataset(values, changed.targets, weights)).start()
        finish(state)
        outcomes.append(learnt(state))
    assert np.abs(outcomes[0] - outcomes[1]).max() < 1e-6


def test_a_row_of_weight_two_counts_as_two_rows():
    data = noise(rows=30, seed=4)
    weights = np.where(np.arange(30) < 10, 2.0, 1.0).astype(np.float32)
    twice = np.concatenate([np.arange(30), np.arange(10)])
    outcomes = []
    for rows in (Dataset(data.inputs, data.targets, weights), data.rows(twice)):
        state = Run(replace(SMALL.spec, model=run().spec.model, batch_size=len(rows)), rows).start()
        finish(state)
        outcomes.append(learnt(state))
    assert np.abs(outcomes[0] - outcomes[1]).max() < 1e-6


def test_class_weights_are_row_weights():
    case = run(loss=LossSpec(class_weights=(1.0, 2.0, 0.5)))
    weights = np.array([1.0, 2.0, 0.5])[case.data.targets]
    of_rows = Run(
        replace(case.spec, loss=LossSpec()), Dataset(case.data.inputs, case.data.targets, weights), case.validation
    )
    outcomes = [(losses(state), learnt(state).tobytes()) for state in (case.start(), of_rows.start())]
    assert outcomes[0] == outcomes[1]


def test_what_is_not_finite_is_named():
    state = small(**optimized(Adam(), average_decay=0.9)).start()
    vectors = state.blocks.read()
    for vector, what in (
        (vectors.moments["second_moment"], "the optimizer's second_moment is"),
        (vectors.average.parameters, "the parameters are"),
    ):
        vector[0] = np.inf
        with pytest.raises(Diverged, match=f"^{what} not finite after step 0; try a smaller learning rate"):
            state.checkpoint()
        vector[0] = 0


def test_a_run_that_leaves_the_finite_numbers_says_so():
    case = small(model=replace(SMALL.spec.model, input_scale=1e37))
    with pytest.raises(Diverged, match="try a smaller learning rate"):
        finish(case.start())


def test_parameters_that_are_not_finite_can_not_be_saved():
    case = small(model=replace(SMALL.spec.model, input_scale=1e37), metrics_interval_steps=1000)
    state = case.start()
    next(event for event in events_of(state) if isinstance(event, StepEnded) and event.step == 3)
    for save in (state.checkpoint, state.trained):
        with pytest.raises(Diverged, match="not finite after step 3"):
            save()


def test_closing_the_generator_stops_the_run():
    for case in (run(), FAMILY["augmented"]):
        state = case.start()
        events = events_of(state)
        while not isinstance(next(events), StepEnded):
            pass
        events.close()
        assert state.step == 1


def test_a_time_limit_ends_a_run_with_a_reason():
    state = run(time_limit_seconds=1e-9).start()
    *_, last = finish(state)
    assert isinstance(last, StoppedEarly)
    assert (last.step, last.reason) == (1, "the time limit of 1e-09 s is used up")


def test_a_time_limit_counts_what_was_spent_before_a_restart():
    case = run(time_limit_seconds=1000.0)
    state = case.start()
    next(event for event in events_of(state) if isinstance(event, StepEnded))
    checkpoint = state.checkpoint()
    assert 0 < checkpoint.counters.elapsed_seconds < 1000
    spent = replace(checkpoint, counters=replace(checkpoint.counters, elapsed_seconds=1000.0))
    assert [type(event) for event in finish(case.restore(spent))] == [StoppedEarly]
    half = case.restore(replace(checkpoint, counters=replace(checkpoint.counters, elapsed_seconds=500.0)))
    next(event for event in events_of(half) if isinstance(event, StepEnded))
    assert 500 < half.elapsed_seconds < 1000
