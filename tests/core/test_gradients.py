"""Hand-written gradients against finite differences along a random direction, in float64."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlpd.core.arrays import Cpu
from mlpd.core.layers import Affine, Layer, Relu
from mlpd.core.losses import SoftmaxCrossEntropy
from mlpd.core.network import Pass, multilayer_perceptron, parameter_count, views

SIZES = st.integers(1, 7)


def slope(function, point, direction, step=1e-6):
    return (function(point + step * direction) - function(point - step * direction)) / (2 * step)


@given(rows=SIZES, sizes=st.lists(SIZES, min_size=2, max_size=5), classes=st.integers(2, 6), seed=st.integers(0, 2**32))
def test_the_gradient_of_a_network_is_the_slope_of_its_mean_loss(rows, sizes, classes, seed):
    random = np.random.default_rng(seed)
    sizes = [*sizes, classes]
    layers = multilayer_perceptron(sizes)
    count = parameter_count(sizes)
    x = random.normal(size=(rows, sizes[0]))
    targets = np.eye(classes)[random.integers(classes, size=rows)]

    def run(parameters):
        network = Pass(Cpu(), layers, sizes[0], parameters, rows, trains=True)
        loss = SoftmaxCrossEntropy(Cpu(), classes, rows, np.float64)
        total = np.zeros(())
        network.inputs(rows)[...] = x
        loss(network.forward(rows), targets, network.output_gradient(rows), total, 1 / rows)
        network.backward(rows)
        return float(total) / rows, network.gradients

    parameters, direction = random.normal(size=count), random.normal(size=count)
    gradient = run(parameters)[1]
    slopes = [slope(lambda p: run(p)[0], parameters, direction, step) for step in (1e-5, 1e-6, 1e-7)]
    if np.ptp(slopes) < 1e-5 * (1 + abs(slopes[1])):  # else a kink of ReLU lies between the two points
        assert gradient @ direction == pytest.approx(slopes[1], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("layer", [Affine(5, 4), Relu(4)])
def test_the_gradient_of_a_layer_with_respect_to_its_inputs_is_its_slope(layer: Layer):
    random = np.random.default_rng(3)
    inputs = 5 if layer.shapes else 4
    parameters = [random.normal(size=shape) for shape in layer.shapes]
    x, dy, direction = (random.normal(size=(3, width)) for width in (inputs, 4, inputs))

    def forward(x):
        y = np.empty((3, 4))
        layer.forward(np, parameters, x, y)
        return y

    dx = np.empty_like(x)
    gradients = [np.empty_like(parameter) for parameter in parameters]
    expected = slope(lambda x: float((forward(x) * dy).sum()), x, direction)
    layer.backward(np, parameters, gradients, x, forward(x), dy, dx)
    assert float((dx * direction).sum()) == pytest.approx(expected, rel=1e-6)


def test_the_loss_survives_logits_that_overflow_a_naive_softmax():
    loss, gradient, total = SoftmaxCrossEntropy(Cpu(), 2, 1, np.float32), np.empty((1, 2), np.float32), np.zeros(())
    loss(np.array([[1e4, -1e4]], np.float32), np.array([[0, 1]], np.float32), gradient, total, 1.0)
    assert float(total) == pytest.approx(2e4)
    assert np.allclose(gradient, [[1, -1]])


def test_views_cut_the_vector_into_weights_and_biases_in_order():
    layers = multilayer_perceptron([2, 3, 1])
    cut = views(np.arange(13.0), layers)
    assert [[part.shape for part in own] for own in cut] == [[(2, 3), (3,)], [], [(3, 1), (1,)]]
    assert cut[2][1][0] == 12
