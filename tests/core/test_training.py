"""A run as a whole: reproducible, resumable at any step, frugal, and in the portable subset."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from mlpd.core.arrays import Cpu
from mlpd.core.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from mlpd.core.data import Dataset
from mlpd.core.spec import AdamSpec, ModelSpec, OptimizerSpec, ScheduleSpec, SgdSpec, TrainingSpec
from mlpd.core.training import Diverged, MetricsRecorded, StepEnded, TrainingState, train

from .strict_namespace import StrictNamespace

ROWS = 150
SPEC = TrainingSpec(
    model=ModelSpec((6, 9, 3), "he_normal", 1 / 255),
    train_dataset="datasets/noise",
    train_sha256="",
    batch_size=32,
    epoch_count=3,
    optimizer=OptimizerSpec(AdamSpec(), 0.01),
    schedule=ScheduleSpec(0.01, "warmup_cosine", 3),
    seed=5,
    device="cpu",
    metrics_interval_steps=2,
)
RUNS = {
    "adamw": SPEC,
    "sgd": replace(SPEC, optimizer=OptimizerSpec(SgdSpec())),
    "nesterov": replace(SPEC, optimizer=OptimizerSpec(SgdSpec(0.9, nesterov=True))),
    "full batch": replace(SPEC, batch_size=ROWS),
}


def noise(rows=ROWS, width=6, classes=3):
    random = np.random.default_rng(1)
    return Dataset(random.integers(0, 256, (rows, width), np.uint8), random.integers(0, classes, rows))


def finish(state, data, validation=None):
    return list(train(state, data, validation))


@pytest.mark.parametrize("spec", RUNS.values(), ids=RUNS)
def test_the_same_spec_gives_the_same_bits(spec):
    runs = []
    for _ in range(2):
        state = TrainingState.initial(Cpu(), spec, ROWS)
        runs.append((finish(state, noise(), noise()), state.model().parameters.tobytes()))
    assert runs[0] == runs[1]


def test_another_seed_gives_other_bits():
    runs = []
    for seed in (1, 2):
        state = TrainingState.initial(Cpu(), replace(SPEC, seed=seed), ROWS)
        finish(state, noise())
        runs.append(state.model().parameters.tobytes())
    assert runs[0] != runs[1]


@pytest.mark.parametrize("spec", RUNS.values(), ids=RUNS)
def test_a_run_resumed_after_any_step_repeats_the_rest_bit_for_bit(spec, tmp_path):
    whole = TrainingState.initial(Cpu(), spec, ROWS)
    events, saved = [], []
    for event in train(whole, noise(), noise()):
        events.append(event)
        if isinstance(event, StepEnded):
            path = tmp_path / f"{event.step}.safetensors"
            saved.append((len(events), path, save_checkpoint(path, whole.checkpoint())))
    assert len(saved) == spec.step_count(ROWS)
    for seen, path, digest in saved:
        state = TrainingState.restore(Cpu(), spec, ROWS, load_checkpoint(path, digest.sha256))
        assert finish(state, noise(), noise()) == events[seen:]
        assert state.model().parameters.tobytes() == whole.model().parameters.tobytes()
        assert save_checkpoint(path, state.checkpoint()) == saved[-1][2]


def test_a_checkpoint_of_another_spec_is_refused():
    checkpoint = TrainingState.initial(Cpu(), SPEC, ROWS).checkpoint()
    with pytest.raises(CheckpointError, match="must be of spec"):
        TrainingState.restore(Cpu(), replace(SPEC, seed=6), ROWS, checkpoint)


def test_metrics_come_at_the_interval_and_at_the_end_of_each_epoch():
    metrics = [
        e for e in finish(TrainingState.initial(Cpu(), SPEC, ROWS), noise(), noise()) if isinstance(e, MetricsRecorded)
    ]
    assert [(e.split, e.step, e.epoch) for e in metrics if e.epoch <= 2][:8] == [
        ("train", 2, 0),
        ("train", 4, 0),
        ("train", 5, 1),
        ("validation", 5, 1),
        ("train", 6, 1),
        ("train", 8, 1),
        ("train", 10, 2),
        ("validation", 10, 2),
    ]
    assert metrics[0].step_count == 15


def test_the_loss_of_full_batch_gradient_descent_falls_at_every_epoch():
    spec = replace(RUNS["sgd"], batch_size=ROWS, epoch_count=30, schedule=ScheduleSpec(0.1))
    losses = [
        e.loss for e in finish(TrainingState.initial(Cpu(), spec, ROWS), noise()) if isinstance(e, MetricsRecorded)
    ]
    assert losses == sorted(losses, reverse=True)


def test_a_batch_larger_than_a_piece_gives_the_gradient_of_the_whole():
    data = noise(rows=1300)
    spec = replace(SPEC, batch_size=1300, epoch_count=1, optimizer=OptimizerSpec(SgdSpec()), schedule=ScheduleSpec(1.0))
    state = TrainingState.initial(Cpu(), spec, 1300)
    before = state.model().parameters
    finish(state, data)
    w1, b1, w2, b2 = before[:54].reshape(6, 9), before[54:63], before[63:90].reshape(9, 3), before[90:]
    x = data.inputs / 255
    hidden = np.maximum(x @ w1 + b1, 0)
    shares = np.exp(hidden @ w2 + b2)
    shares /= shares.sum(axis=1, keepdims=True)
    shares[np.arange(1300), data.labels] -= 1
    back = (shares @ w2.T) * (hidden > 0)
    gradient = np.concatenate([(x.T @ back).ravel(), back.sum(0), (hidden.T @ shares).ravel(), shares.sum(0)]) / 1300
    assert np.allclose(before - state.model().parameters, gradient, atol=1e-5)


def test_weight_decay_shrinks_weights_and_leaves_biases():
    spec = replace(RUNS["sgd"], epoch_count=1, batch_size=ROWS, optimizer=OptimizerSpec(SgdSpec(), 0.5))
    shrunk, plain = (
        TrainingState.initial(Cpu(), s, ROWS) for s in (spec, replace(spec, optimizer=OptimizerSpec(SgdSpec())))
    )
    start = plain.model().parameters
    for state in (shrunk, plain):
        finish(state, noise())
    difference = plain.model().parameters - shrunk.model().parameters
    rate = spec.schedule.learning_rate / 3  # the first of three warm-up steps
    assert np.allclose(difference[:54], start[:54] * rate * 0.5, atol=1e-6)
    assert np.array_equal(difference[54:63], np.zeros(9))


def test_a_run_that_leaves_the_finite_numbers_says_so():
    spec = replace(RUNS["sgd"], model=ModelSpec((6, 9, 3), "he_normal", 1e37))
    with pytest.raises(Diverged, match="try a smaller learning rate"), np.errstate(all="ignore"):
        finish(TrainingState.initial(Cpu(), spec, ROWS), noise())


def test_closing_the_generator_stops_the_run():
    state = TrainingState.initial(Cpu(), SPEC, ROWS)
    run = train(state, noise(), None)
    while not isinstance(next(run), StepEnded):
        pass
    run.close()
    assert state.step == 1


def step_bytes(width, batch):
    spec = replace(SPEC, model=ModelSpec((width, width, 3), "he_normal", 1.0), batch_size=batch, epoch_count=2)
    rows = 4 * batch
    state = TrainingState.initial(Cpu(), spec, rows)
    run = train(state, noise(rows, width), None)
    for _ in range(8):
        next(run)
    tracemalloc.start()
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    next(run)
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    return peak


def test_a_step_allocates_nothing_that_grows_with_model_or_batch():
    peaks = {(width, batch): step_bytes(width, batch) for width, batch in ((64, 32), (512, 32), (64, 256), (1024, 256))}
    assert max(peaks.values()) - min(peaks.values()) < 16_384, peaks


def test_a_step_stays_in_the_portable_subset_and_creates_no_array():
    class StrictCpu(Cpu):
        def __init__(self):
            self.xp = StrictNamespace()

    for spec in RUNS.values():
        device = StrictCpu()
        state = TrainingState.initial(device, spec, ROWS)
        run = train(state, noise(), None)
        next(run)
        device.xp.frozen = True
        assert list(run)
