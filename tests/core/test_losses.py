"""Losses against formulas written out plainly, at rest and at the edge of the numbers."""

from math import lgamma
from typing import Any

import numpy as np
import pytest
from mlpd.core.devices.arrays import Cpu
from mlpd.core.network.losses import LOSSES, BufferedLoss, Huber

ROWS, WIDTH, DELTA = 9, 4, 0.7


def softmax(z):
    shares = np.exp(z - z.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


PLAIN = {
    "softmax_cross_entropy": lambda z, t: -(t * np.log(softmax(z))).sum(axis=1),
    "sigmoid_cross_entropy": lambda z, t: -(t * np.log(sigmoid(z)) + (1 - t) * np.log(1 - sigmoid(z))).mean(axis=1),
    "mean_squared": lambda z, t: ((z - t) ** 2).mean(axis=1),
    "huber": lambda z, t: np.where(abs(z - t) <= DELTA, (z - t) ** 2 / 2, DELTA * (abs(z - t) - DELTA / 2)).mean(
        axis=1
    ),
    "mean_absolute": lambda z, t: abs(z - t).mean(axis=1),
    "poisson": lambda z, t: (np.exp(z) - t * z).mean(axis=1),
}
KINDS = {name: kind() for name, kind in LOSSES.items()} | {"huber": Huber(DELTA)}
PREDICTED: dict[str, Any] = {"softmax_cross_entropy": softmax, "sigmoid_cross_entropy": sigmoid, "poisson": np.exp}


def drawn(seed=3):
    random = np.random.default_rng(seed)
    return 2 * random.normal(size=(ROWS, WIDTH)), random.dirichlet(np.ones(WIDTH), ROWS), random.uniform(0, 2, ROWS)


def measured(name, outputs, targets, weights=None, scale=1.0, dtype=np.float64, device=None):
    device = device or Cpu()
    xp = device.xp
    loss = BufferedLoss(device, KINDS[name], outputs.shape[1], len(outputs) + 1, dtype)
    total = xp.zeros((), dtype=xp.float64)
    z, t = (device.from_host(values.astype(dtype)) for values in (outputs, targets))
    w = None if weights is None else device.from_host(weights.astype(dtype)[:, None])
    gradient = xp.empty(outputs.shape, dtype=dtype)
    loss(z, t, w, gradient, total, scale)
    return float(total), device.to_host(gradient)


def predicted(name, outputs):
    predictions = np.empty_like(outputs)
    with np.errstate(over="ignore"):
        KINDS[name].predict(np, outputs, predictions, np.empty((len(outputs), 1), outputs.dtype))
    return predictions


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_the_sum_of_its_formula_over_rows(name, dtype, device):
    outputs, targets, weights = drawn()
    rows = PLAIN[name](outputs, targets)
    tolerance = 1e-5 if dtype is np.float32 else 1e-12
    assert measured(name, outputs, targets, dtype=dtype, device=device)[0] == pytest.approx(rows.sum(), rel=tolerance)
    weighted = measured(name, outputs, targets, weights, dtype=dtype, device=device)[0]
    assert weighted == pytest.approx((rows * weights).sum(), rel=tolerance)


@pytest.mark.parametrize("name", LOSSES)
def test_a_gradient_is_in_proportion_to_its_scale_and_its_weight(name):
    outputs, targets, weights = drawn()
    plain = measured(name, outputs, targets)[1]
    scaled = measured(name, outputs, targets, weights, 0.3)[1]
    assert np.allclose(scaled, 0.3 * weights[:, None] * plain)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_adds_to_what_is_there(name):
    outputs, targets, _ = drawn()
    loss, total = BufferedLoss(Cpu(), KINDS[name], WIDTH, ROWS, np.float64), np.zeros(())
    for start in range(0, ROWS, 4):
        cut = slice(start, start + 4)
        loss(outputs[cut], targets[cut], None, np.empty_like(outputs[cut]), total, 1.0)
    assert float(total) == pytest.approx(PLAIN[name](outputs, targets).sum())


@pytest.mark.parametrize("name", LOSSES)
def test_predictions_are_what_outputs_mean(name):
    outputs = drawn()[0]
    expected = PREDICTED.get(name, lambda z: z)(outputs)
    assert np.allclose(predicted(name, outputs), expected, rtol=1e-12)


def test_softmax_survives_outputs_that_overflow_its_plain_formula():
    total, gradient = measured("softmax_cross_entropy", np.array([[1e4, -1e4]]), np.array([[0, 1]]), dtype=np.float32)
    assert total == pytest.approx(2e4)
    assert np.allclose(gradient, [[1, -1]])
    shares = predicted("softmax_cross_entropy", np.array([[1e4, 0, -1e4], [1, 1, 1]], np.float32))
    assert np.allclose(shares, [[1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]])


def test_the_sigmoid_survives_outputs_that_overflow_its_plain_formula():
    outputs, targets = np.array([[1e4, -1e4, 1e4]]), np.array([[0.0, 0.0, 1.0]])
    total, gradient = measured("sigmoid_cross_entropy", outputs, targets, dtype=np.float32)
    assert total == pytest.approx(1e4 / 3)
    assert np.allclose(gradient, [[1 / 3, 0, 0]])
    assert predicted("sigmoid_cross_entropy", outputs).tolist() == [[1.0, 0.0, 1.0]]


def test_the_gradient_of_an_absolute_error_of_zero_is_zero():
    targets = np.array([[1.0, 2.0]])
    total, gradient = measured("mean_absolute", targets, targets)
    assert (total, gradient.tolist()) == (0.0, [[0.0, 0.0]])


def test_the_huber_loss_bends_at_its_delta():
    outputs = np.array([[0.0], [DELTA / 2], [DELTA], [5.0], [-5.0]])
    totals = [measured("huber", row[None], np.zeros((1, 1))) for row in outputs]
    assert [total for total, _ in totals] == pytest.approx(
        [0, DELTA**2 / 8, DELTA**2 / 2, *[DELTA * (5 - DELTA / 2)] * 2]
    )
    assert [gradient.item() for _, gradient in totals] == pytest.approx([0, DELTA / 2, DELTA, DELTA, -DELTA])


def test_the_poisson_loss_is_the_likelihood_of_counts_but_for_a_constant():
    counts, outputs = np.array([[0.0, 1.0, 5.0]]), np.array([[0.3, -1.0, 2.0]])
    logs = counts * outputs - np.exp(outputs) - [lgamma(count + 1) for count in counts[0]]
    constant = np.mean([lgamma(count + 1) for count in counts[0]])
    assert measured("poisson", outputs, counts)[0] + constant == pytest.approx(-logs.mean())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", LOSSES)
def test_an_output_that_is_not_finite_shows_in_its_rows_loss(name, bad, device):
    """Whatever its place, and whichever the target: evaluation looks for such rows by their losses alone."""
    places = [(wrong, true) for wrong in range(3) for true in range(3)]
    outputs, targets = np.ones((11, 3)), np.zeros((11, 3))
    for row, (wrong, true) in enumerate(places):
        outputs[row, wrong], targets[row, true] = bad, 1
    loss = BufferedLoss(device, KINDS[name], 3, 16, np.float32)
    z, t = (device.from_host(values.astype(np.float32)) for values in (outputs, targets))
    total = device.xp.zeros((), dtype=device.xp.float64)
    with np.errstate(all="ignore"):
        loss(z, t, None, device.xp.empty((11, 3), dtype=np.float32), total, 1.0)
    assert not np.isfinite(float(total))
    assert np.isfinite(device.to_host(loss.of_rows(11))[:, 0]).tolist() == [False] * len(places) + [True] * 2
