"""A step stays in the portable subset, creates no array, and allocates nothing that grows."""

import threading
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from mlpd.core.batches import Batches, RowFormat, Slate
from mlpd.core.data import Dataset
from mlpd.core.random import permutation
from mlpd.core.training import StepEnded, train

from .family import AUGMENTED, FAMILY, PLAIN, finish, vectors
from .strict_namespace import StrictCpu


def steps(state):
    return (event for event in train(state) if isinstance(event, StepEnded))


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


def step_bytes(case, width, batch):
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
    ended = steps(replace(case, data=Dataset(inputs, rows.targets, rows.weights)).start())
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


@pytest.mark.parametrize("name", ["adamw", "weighted rows", "full batch", "held out", "multilabel", "standardised"])
def test_batches_bring_the_rows_of_the_order(name, device):
    case = FAMILY[name]
    spec, examples = case.spec, case.examples()
    size, count = spec.rows_per_step, len(examples.train)
    slate = Slate(device, spec, size, RowFormat.of(spec, examples))
    with Batches(device, spec, examples, size, 0) as batches:
        for epoch in range(2):
            order = permutation(spec.seed, epoch, count) if size < count else np.arange(count)
            for first in range(0, count, size):
                chosen = order[first : first + size]
                rows = len(chosen)
                batches.read(epoch, first, rows, slate)
                assert np.array_equal(device.to_host(slate.inputs)[:rows], examples.train.inputs[chosen])
                assert np.array_equal(device.to_host(slate.labels)[:rows], examples.train.targets[chosen])
                assert (slate.weights is None) == (examples.weights is None)
                if slate.weights is not None:
                    assert np.array_equal(device.to_host(slate.weights)[:rows], examples.weights[chosen])


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
