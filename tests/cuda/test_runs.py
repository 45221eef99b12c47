"""Runs, predictions and scores on CuPy against NumPy's."""

from dataclasses import replace

import numpy as np
import pytest
from mlpd.core.devices.arrays import Cpu
from mlpd.core.models.metrics import evaluate
from mlpd.core.models.predictor import Predictor
from mlpd.core.network.layers import Affine
from mlpd.core.network.network import Backward, Pass, Weights
from mlpd.core.optimization.optimizers import Clipping
from mlpd.core.training.events import MetricsRecorded, StepEnded
from mlpd.core.training.loop import train
from mlpd.core.training.state import Diverged

from ..core.family import FAMILY, ROWS, events_of, finish, noise, run
from .exceptions import BUSIER_STEPS, LOOSER_LOSSES, LOSS_TOLERANCE

pytestmark = pytest.mark.cuda

STEPS = 50


def long(case):
    """Return ``case`` with fifty steps at least, each reported, and no end before."""
    case = case.but(early_stopping=None, metrics_interval_steps=1)
    return case.but(epoch_count=-(-STEPS // case.spec.steps_per_epoch(ROWS)))


def metrics(case, device):
    return [event for event in train(case.start(device)) if isinstance(event, MetricsRecorded)]


@pytest.mark.parametrize("name", FAMILY)
def test_losses_agree_with_numpy_over_fifty_steps(cuda, name):
    case = long(FAMILY[name])
    found, expected = metrics(case, cuda), metrics(case, Cpu())
    assert [(event.split, event.step) for event in found] == [(event.split, event.step) for event in expected]
    on_training, on_validation, _ = LOOSER_LOSSES.get(name, (LOSS_TOLERANCE, LOSS_TOLERANCE, ""))
    for split, tolerance in (("train", on_training), ("validation", on_validation)):
        losses = [[event.loss for event in events if event.split == split] for events in (found, expected)]
        assert losses[0]
        np.testing.assert_allclose(losses[0], losses[1], rtol=tolerance)


@pytest.mark.parametrize("name", FAMILY)
def test_a_step_neither_waits_nor_copies_nor_allocates(cuda, name):
    cuda_on_cpu = pytest.importorskip("cuda_on_cpu", reason="only the emulator counts device work")
    if name in BUSIER_STEPS:
        pytest.skip(BUSIER_STEPS[name])
    case = FAMILY[name].unvalidated()
    rows = np.arange(5 * case.spec.rows_per_step) % ROWS
    case = replace(case, data=case.data.rows(rows)).but(metrics_interval_steps=1000)
    events = (event for event in events_of(case.start(cuda)) if isinstance(event, StepEnded))
    for _ in range(3):
        next(events)
    with cuda_on_cpu.measure() as work:
        next(events)
    assert work.h2d == work.d2h == work.syncs == work.mallocs == 0, work


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "float16", "float32", "float64"])
@pytest.mark.parametrize("name", ["adamw", "standardised", "batch norm", "layer norm", "binary"])
def test_outputs_of_every_type_of_rows_agree_with_numpy(cuda, dtype, name):
    case = FAMILY[name]
    state = case.start()
    finish(state)
    model, rows = state.trained().model, noise(dtype=dtype).inputs
    found, expected = (Predictor(device, model, 64).outputs(rows) for device in (cuda, Cpu()))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("name", FAMILY)
def test_evaluation_agrees_with_numpy(cuda, name):
    case = FAMILY[name]
    state = case.start()
    finish(state)
    data = case.examples().validation
    (*_, found), (*_, expected) = (
        evaluate(Predictor(device, state.trained().model, 16), data, include_confusion=True, include_scores=True)
        for device in (cuda, Cpu())
    )
    assert (found.row_count, found.correct_count) == (expected.row_count, expected.correct_count)
    assert found.loss == pytest.approx(expected.loss, rel=1e-5)
    np.testing.assert_array_equal(found.confusion, expected.confusion)
    assert found.scores
    assert expected.scores
    assert found.scores.values == pytest.approx(expected.scores.values, rel=1e-4)


def test_a_run_that_leaves_the_finite_numbers_says_so(cuda):
    case = run(input_scale=1e37)
    with pytest.raises(Diverged):
        finish(case.start(cuda))


def test_products_of_every_shape_agree_with_numpy(cuda):
    """One row, one column, one value: where a library takes another path."""
    for rows, inputs, width in ((1, 1, 1), (1, 7, 1), (7, 1, 1), (1, 7, 5), (7, 5, 1), (33, 17, 65)):
        random = np.random.default_rng(rows)
        own, x = random.normal(size=inputs * width + width), random.normal(size=(rows, inputs))
        outputs = []
        for device in (cuda, Cpu()):
            network = Pass(
                device,
                (Affine(inputs, width),),
                inputs,
                Weights(device.from_host(own), device.from_host(own[:0])),
                rows,
                Backward(),
            )
            network.inputs(rows)[...] = device.from_host(x)
            network.output_gradient(rows)[...] = network.forward(rows)
            network.backward(rows)
            outputs.append(device.to_host(network.gradients))
        np.testing.assert_allclose(outputs[0], outputs[1], rtol=1e-12)


def test_clipping_of_a_long_vector_agrees_with_numpy(cuda):
    values = np.random.default_rng(0).normal(size=100_000).astype(np.float32)
    clipped = []
    for device in (cuda, Cpu()):
        gradients = device.from_host(values.copy())
        Clipping(device, 1.0, np.float32)(gradients)
        clipped.append(device.to_host(gradients))
    np.testing.assert_allclose(clipped[0], clipped[1], rtol=1e-5)
