"""What layers compute, in training and outside it."""

from math import erf, exp, log1p, sqrt, tanh

import numpy as np
import pytest
from mlpd.core.devices.arrays import Cpu
from mlpd.core.network.activations import ACTIVATIONS, normal_distribution
from mlpd.core.network.architecture import ModelSpec
from mlpd.core.network.initializers import INITIALIZERS
from mlpd.core.network.layers import Affine, BatchNorm, Dropout, LayerNorm
from mlpd.core.network.network import Backward, Pass, Weights, initial_parameters, initial_statistics, views

PLAIN = {
    "identity": lambda x: x,
    "relu": lambda x: max(x, 0.0),
    "leaky_relu": lambda x: x if x > 0 else 0.01 * x,
    "tanh": tanh,
    "sigmoid": lambda x: 1 / (1 + exp(-x)) if x > -700 else 0.0,
    "softplus": lambda x: x + log1p(exp(-x)) if x > 0 else log1p(exp(x)),
    "elu": lambda x: x if x > 0 else exp(x) - 1,
    "silu": lambda x: x / (1 + exp(-x)) if x > -700 else 0.0,
    "gelu": lambda x: x * (1 + erf(x / sqrt(2))) / 2,
}


def outputs(
    layers, x, *, trains=False, dtype="float64", parameters=None, statistics=None, step=0, first_row=0, device=None
):
    device = device or Cpu()
    if parameters is None:
        parameters = initial_parameters(layers, "he_normal", 1, dtype)
    if statistics is None:
        statistics = initial_statistics(layers, dtype)
    own = [device.from_host(vector) for vector in (parameters, statistics)]
    network = Pass(device, layers, x.shape[1], Weights(*own), len(x) + 3, Backward(seed=4) if trains else None)
    network.inputs(len(x))[...] = device.from_host(x.astype(dtype))
    return device.to_host(network.forward(len(x), step, first_row))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-15)])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_its_formula_far_and_near(name, dtype, tolerance, device):
    x = np.concatenate([np.linspace(-9, 9, 97), [-1e3, -50.0, 0.0, 50.0, 1e3]])[:, None]
    layers, one = (Affine(1, 1), ACTIVATIONS[name](1)), np.array([1.0, 0.0], dtype)
    found = outputs(layers, x, dtype=dtype, parameters=one, device=device)
    expected = [[PLAIN[name](value)] for value in x.astype(dtype)[:, 0].tolist()]
    assert np.allclose(found, expected, rtol=8 * tolerance, atol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 3e-7), (np.float64, 4e-16)])
def test_the_normal_distribution_function_is_that_of_the_error_function(dtype, tolerance):
    x = np.linspace(-12, 12, 20_001).astype(dtype)
    y, *spare = (np.empty_like(x) for _ in range(5))
    normal_distribution(np, x, y, spare)
    expected = np.array([(1 + erf(value / sqrt(2))) / 2 for value in x.tolist()])
    assert np.abs(y - expected).max() < tolerance


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-13)])
def test_the_normal_distribution_function_keeps_its_digits_in_the_lower_tail(dtype, tolerance):
    """Phi(-x) = phi(x) / (x + 1 / (x + 2 / (x + 3 / ...))): Abramowitz & Stegun 26.2.14."""
    x = np.linspace(4, 8, 101).astype(dtype)
    y, *spare = (np.empty_like(x) for _ in range(5))
    normal_distribution(np, -x, y, spare)
    exact, fraction = x.astype(float), np.zeros(len(x))
    for numerator in range(200, 0, -1):
        fraction = numerator / (exact + fraction)
    expected = np.exp(-(exact**2) / 2) / sqrt(2 * np.pi) / (exact + fraction)
    assert np.allclose(y, expected, rtol=tolerance)


def test_an_affine_layer_is_its_formula(device):
    random = np.random.default_rng(1)
    weight, bias, x = random.normal(size=(3, 2)), random.normal(size=2), random.normal(size=(5, 3))
    parameters = np.concatenate([weight.ravel(), bias])
    assert np.allclose(outputs((Affine(3, 2),), x, parameters=parameters, device=device), x @ weight + bias)


@pytest.mark.parametrize("trains", [True, False])
def test_layer_norm_normalises_each_row_in_training_and_outside(trains, device):
    random = np.random.default_rng(2)
    x, gain, bias = 3 + 5 * random.normal(size=(6, 8)), random.normal(size=8), random.normal(size=8)
    found = outputs((LayerNorm(8),), x, trains=trains, parameters=np.concatenate([gain, bias]), device=device)
    normal = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 1e-5)
    assert np.allclose(found, normal * gain + bias)


def test_batch_norm_normalises_each_column_of_its_batch(device):
    x = 3 + 5 * np.random.default_rng(2).normal(size=(6, 8))
    found = outputs((BatchNorm(8),), x, trains=True, device=device)
    assert np.allclose(found, (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-5))


def test_batch_norm_keeps_running_moments_and_uses_them_outside_training(device):
    random = np.random.default_rng(3)
    layers = (BatchNorm(4),)
    own = [
        device.from_host(vector)
        for vector in (initial_parameters(layers, "zeros", 0, "float64"), initial_statistics(layers, "float64"))
    ]
    network = Pass(device, layers, 4, Weights(*own), 8, Backward())
    mean, variance = np.zeros(4), np.ones(4)
    for rows in (8, 5, 2, 8):
        x = random.normal(2, 3, (rows, 4))
        network.inputs(rows)[...] = device.from_host(x)
        network.forward(rows)
        mean = 0.9 * mean + 0.1 * x.mean(axis=0)
        variance = 0.9 * variance + 0.1 * x.var(axis=0, ddof=1)
    assert np.allclose(device.to_host(own[1]), np.concatenate([mean, variance]))
    x = random.normal(size=(3, 4))
    statistics = device.to_host(own[1])
    found = outputs(layers, x, statistics=statistics, device=device)
    assert np.allclose(found, (x - mean) / np.sqrt(variance + 1e-5))


def test_batch_norm_of_one_row_is_its_bias():
    found = outputs((BatchNorm(3),), np.array([[1.0, 5.0, -2.0]]), trains=True, parameters=np.arange(6.0))
    assert found.tolist() == [[3.0, 4.0, 5.0]]


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_drops_at_its_rate_and_keeps_the_mean(rate):
    found = outputs((Dropout(300, rate),), np.ones((400, 300)), trains=True)
    kept = 1 - round(rate * 2**16) / 2**16
    assert set(np.unique(found)) == {0.0, 1 / kept}
    spread = np.sqrt(rate * (1 - rate) / found.size)
    assert abs((found == 0).mean() - rate) < 5 * spread
    assert np.abs((found == 0).mean(axis=0) - rate).max() < 6 * np.sqrt(rate * (1 - rate) / 400)
    assert np.abs((found == 0).mean(axis=1) - rate).max() < 6 * np.sqrt(rate * (1 - rate) / 300)


def test_dropout_is_idle_outside_training(device):
    x = np.random.default_rng(0).normal(size=(5, 7))
    assert outputs((Dropout(7, 0.9),), x, device=device).tobytes() == x.tobytes()


def test_masks_depend_on_seed_step_place_and_layer_alone(device):
    layers, x = (Dropout(70, 0.5),), np.ones((4, 70))
    mask = outputs(layers, x, trains=True, step=3, first_row=8, device=device)
    assert np.array_equal(mask, outputs(layers, x, trains=True, step=3, first_row=8))
    others = [
        outputs(layers, x, trains=True, step=4, first_row=8, device=device),
        outputs(layers, x, trains=True, step=3, first_row=12, device=device),
        outputs((Dropout(70, 0.0), *layers), x, trains=True, step=3, first_row=8, device=device),
    ]
    assert not any(np.array_equal(mask, other) for other in others)


@pytest.mark.parametrize("width", [1, 12, 15, 16, 17, 40])
@pytest.mark.parametrize("sizes", [(1,) * 50, (5,) * 10, (7, 7, 7, 7, 7, 7, 7, 1), (49, 1)], ids=len)
def test_a_row_of_a_step_has_its_own_mask_however_the_step_is_cut(width, sizes, device):
    layers, starts = (Dropout(width, 0.5),), np.cumsum([0, *sizes[:-1]])
    masks = [
        outputs(layers, np.ones((rows, width)), trains=True, step=3, first_row=int(start), device=device)
        for rows, start in zip(sizes, starts, strict=True)
    ]
    whole = outputs(layers, np.ones((50, width)), trains=True, step=3)
    assert np.array_equal(np.concatenate(masks), whole)
    assert width < 40 or len({row.tobytes() for row in whole}) == 50


def test_views_cut_the_vector_into_weights_and_biases_in_order():
    layers = ModelSpec.plain([2, 3, 1]).layers()
    cut = views(np.arange(13.0), [layer.shapes for layer in layers])
    assert [[part.shape for part in own] for own in cut] == [[(2, 3), (3,)], [], [(3, 1), (1,)]]
    assert cut[2][1][0] == 12


def test_layers_draw_their_weights_in_order():
    """Only layers with parameters are counted; biases begin at zero, gains at one."""
    layers = ModelSpec((4, 5, 6, 2), ("gelu", "relu"), (0.5, 0.0), normalization="layer").layers()
    parameters = initial_parameters(layers, "he_normal", 3, "float64")
    parts = [part for own in views(parameters, [layer.shapes for layer in layers]) for part in own]
    for place, index in ((0, 0), (4, 2), (8, 4)):
        assert np.array_equal(parts[place], INITIALIZERS["he_normal"](3, index, *parts[place].shape))
    assert all((gain == 1).all() for gain in parts[2::4])
    assert all((bias == 0).all() for place in (1, 3) for bias in parts[place::4])


def test_a_hidden_layer_is_affine_normalised_activated_and_dropped_out():
    model = ModelSpec((4, 5, 6, 2), ("gelu", "relu"), (0.5, 0.0), 0.1, "batch")
    kinds = [type(layer).__name__ for layer in model.layers()]
    assert kinds == ["Dropout", *("Linear", "BatchNorm", "Gelu", "Dropout"), *("Linear", "BatchNorm", "Relu"), "Affine"]
