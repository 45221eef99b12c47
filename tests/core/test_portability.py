"""A step stays in the portable subset, creates no array, and allocates nothing that grows."""

import threading
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from mlpd.core.data.datasets import Dataset
from mlpd.core.network.tasks import TASKS
from mlpd.core.random import permutation
from mlpd.core.training.events import StepEnded

from ..conftest import needs_compiler
from .family import AUGMENTED, FAMILY, PLAIN, brought, events_of, finish, scaled, vectors
from .strict_namespace import StrictCpu


def steps(state, **choices):
    return (event for event in events_of(state, **choices) if isinstance(event, StepEnded))


@pytest.mark.parametrize("case", PLAIN.values(), ids=PLAIN)
def test_a_step_stays_in_the_portable_subset_and_creates_no_array(case):
    device = StrictCpu()
    ended = steps(case.unvalidated().start(device))
    next(ended)
    device.xp.frozen = True
    assert list(ended)


@pytest.mark.parametrize("case", FAMILY.values(), ids=FAMILY)
def test_the_portable_subset_gives_the_bits_of_numpy(case):
    strict, plain = case.start(StrictCpu()), case.start()
    assert finish(strict) == finish(plain)
    assert vectors(strict) == vectors(plain)


def step_bytes(case, width, batch, **choices):
    """Return how much more memory is in use at some time during a step than before it."""
    case = case.unvalidated()
    model = case.spec.model
    sizes = (width, *(width for _ in model.activations), model.layer_sizes[-1])
    case = case.but(
        model=replace(model, layer_sizes=sizes),
        batch_size=batch,
        accumulation_steps=1,
        epoch_count=4,
        metrics_interval_steps=1000,
    )
    inputs = np.random.default_rng(0).integers(0, 256, (4 * batch, width), np.uint8)
    rows = case.data.rows(np.arange(4 * batch) % len(case.data))
    ended = steps(replace(case, data=Dataset(inputs, rows.targets, rows.weights)).start(), **choices)
    for _ in range(5):
        next(ended)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    next(ended)
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize("case", PLAIN.values(), ids=PLAIN)
def test_a_step_allocates_nothing_that_grows_with_model_or_batch(case):
    peaks = {shape: step_bytes(case, *shape) for shape in ((256, 40), (400, 40), (256, 160))}
    assert max(peaks.values()) - min(peaks.values()) < 16_384, peaks


@needs_compiler
@pytest.mark.parametrize("name", ["adamw", "dropout", "clipped and averaged", "weighted rows"])
@pytest.mark.parametrize("split", ["units", "rows"])
def test_a_compiled_step_allocates_nothing_that_grows_with_model_or_batch(name, split, kernels):
    case = PLAIN[name].compiled(split, 2)
    peaks = {shape: step_bytes(case, *shape, kernels=kernels) for shape in ((256, 40), (400, 40), (256, 160))}
    assert max(peaks.values()) - min(peaks.values()) < 16_384, peaks


@pytest.mark.parametrize("name", ["adamw", "weighted rows", "full batch", "held out", "multilabel", "standardised"])
@pytest.mark.parametrize("chunk_count", [1, 3])
def test_a_feed_brings_the_rows_of_the_order(name, chunk_count, device):
    case = FAMILY[name]
    case = case.but(loss=replace(case.spec.loss, mixup_alpha=0.0))
    spec, examples = case.spec, case.examples()
    size, count = spec.rows_per_step, len(examples.train)
    task = TASKS[spec.task](device, spec.model.layer_sizes[-1], 1, spec.model.dtype, spec.loss.label_smoothing)
    for batch, rows in brought(case, device, chunk_count=chunk_count):
        order = permutation(spec.seed, batch.epoch, count) if size < count else np.arange(count)
        chosen = order[batch.first : batch.first + batch.rows]
        inputs, labels, targets = (
            device.to_host(own)[: batch.rows] for own in (rows.inputs, rows.labels, rows.targets)
        )
        assert inputs.tobytes() == scaled(case, examples.train.inputs[chosen]).tobytes()
        assert np.array_equal(labels.reshape(len(chosen), -1), examples.train.targets[chosen].reshape(len(chosen), -1))
        expected = device.xp.empty(targets.shape, dtype=spec.model.dtype)
        task.spread(device.from_host(labels), expected)
        assert np.array_equal(targets, device.to_host(expected))
        assert (rows.weights is None) == (examples.weights is None)
        if rows.weights is not None:
            assert np.array_equal(device.to_host(rows.weights)[: batch.rows], examples.weights[chosen])


def test_augmented_batches_leave_no_thread_behind():
    before = threading.active_count()
    for case in AUGMENTED.values():
        finish(case.start())
    assert threading.active_count() == before


def test_the_strict_namespace_is_strict():
    xp = StrictCpu().xp
    with pytest.raises(AssertionError, match="not in the portable subset"):
        xp.einsum("ij->ji", np.ones((1, 1)))
    with pytest.raises(TypeError, match="out"):
        xp.add(1, 2)
    with pytest.raises(AssertionError, match="where"):
        xp.add(np.ones(1), 1, out=np.ones(1), where=True)
    xp.frozen = True
    with pytest.raises(AssertionError, match="allocates inside a step"):
        xp.zeros(3)
