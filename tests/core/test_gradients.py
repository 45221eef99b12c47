"""Hand-written gradients against finite differences along a random direction, in float64."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlpd.core.devices.arrays import Cpu
from mlpd.core.network.activations import ACTIVATIONS
from mlpd.core.network.architecture import NORMALIZATIONS, ModelSpec, parameter_count
from mlpd.core.network.layers import Affine, BatchNorm, Dropout, LayerNorm, Linear
from mlpd.core.network.losses import LOSSES, BufferedLoss, Huber
from mlpd.core.network.network import Backward, Pass, Weights, initial_statistics

from .slopes import assert_gradient

SIZES = st.integers(1, 7)
SEEDS = st.integers(0, 2**32)
LAYERS = {
    "affine": lambda width: Affine(width, 4),
    "linear": lambda width: Linear(width, 4),
    "dropout": lambda width: Dropout(width, 0.4),
    "layer norm": LayerNorm,
    "batch norm": BatchNorm,
} | ACTIVATIONS


def pass_of(layers, input_size, parameters, rows):
    statistics = initial_statistics(layers, "float64")
    return Pass(Cpu(), layers, input_size, Weights(parameters, statistics), rows + 3, Backward(seed=9))


@pytest.mark.parametrize("kind", LAYERS.values(), ids=LAYERS)
@given(rows=SIZES, inputs=SIZES, width=SIZES, seed=SEEDS)
def test_the_gradient_of_a_layer_is_its_slope(kind, rows, inputs, width, seed):
    """Behind an affine layer, whose own gradients are those of the layer's inputs."""
    random = np.random.default_rng(seed)
    layers = (Affine(inputs, width), kind(width))
    x, back = random.normal(size=(rows, inputs)), random.normal(size=(rows, layers[-1].width))

    def run(parameters):
        network = pass_of(layers, inputs, parameters, rows)
        network.inputs(rows)[...] = x
        value = float((network.forward(rows, step=7, first_row=2) * back).sum())
        network.output_gradient(rows)[...] = back
        network.backward(rows)
        return value, network.gradients

    parameters, direction = (random.normal(size=parameter_count(layers)) for _ in range(2))
    assert_gradient(run(parameters)[1], lambda p: run(p)[0], parameters, direction)


@pytest.mark.parametrize("kind", ["affine", "linear", "layer norm", "batch norm"])
@given(rows=SIZES, width=SIZES, seed=SEEDS)
def test_a_layer_that_comes_first_has_the_same_gradient(kind, rows, width, seed):
    """No gradient of the inputs is asked for, and its own must not change by that."""
    random = np.random.default_rng(seed)
    layer = LAYERS[kind](width)
    x, back = random.normal(size=(rows, width)), random.normal(size=(rows, layer.width))
    own = random.normal(size=parameter_count([layer]))
    identity = np.concatenate([np.eye(width).ravel(), np.zeros(width)])
    found = []
    for layers, parameters in (((layer,), own), ((Affine(width, width), layer), np.concatenate([identity, own]))):
        network = pass_of(layers, width, parameters, rows)
        network.inputs(rows)[...] = x
        network.forward(rows)
        network.output_gradient(rows)[...] = back
        network.backward(rows)
        found.append(network.gradients[-len(own) :])
    assert np.allclose(*found)


OUTPUT_TARGETS = {
    "softmax_cross_entropy": lambda random, shape: random.dirichlet(np.ones(shape[1]), shape[0]),
    "sigmoid_cross_entropy": lambda random, shape: random.uniform(size=shape),
    "poisson": lambda random, shape: random.poisson(2.0, shape).astype(float),
}


def targets_for(name, random, shape):
    return OUTPUT_TARGETS.get(name, lambda random, shape: random.normal(size=shape))(random, shape)


@pytest.mark.parametrize("name", LOSSES)
@given(rows=SIZES, width=SIZES, weighted=st.booleans(), delta=st.floats(0.1, 3), seed=SEEDS)
def test_the_gradient_of_a_loss_is_its_slope(name, rows, width, weighted, delta, seed):
    random = np.random.default_rng(seed)
    kind = Huber(delta) if name == "huber" else LOSSES[name]()
    loss = BufferedLoss(Cpu(), kind, width, rows + 2, np.float64)
    outputs, direction = (random.normal(size=(rows, width)) * 2 for _ in range(2))
    targets = targets_for(name, random, (rows, width))
    weights = random.uniform(0, 3, (rows, 1)) if weighted else None

    def run(outputs):
        total, gradient = np.zeros(()), np.empty_like(outputs)
        loss(outputs, targets, weights, gradient, total, 0.25)
        return 0.25 * float(total), gradient

    assert_gradient(run(outputs)[1], lambda z: run(z)[0], outputs, direction)


@given(
    rows=SIZES,
    sizes=st.lists(SIZES, min_size=2, max_size=5),
    outputs=SIZES,
    loss=st.sampled_from(sorted(LOSSES)),
    normalization=st.sampled_from(sorted(NORMALIZATIONS)),
    data=st.data(),
    seed=SEEDS,
)
def test_the_gradient_of_a_network_is_the_slope_of_its_mean_loss(rows, sizes, outputs, loss, normalization, data, seed):
    random = np.random.default_rng(seed)
    hidden = len(sizes) - 1
    model = ModelSpec(
        layer_sizes=(*sizes, outputs),
        activations=tuple(data.draw(st.sampled_from(sorted(ACTIVATIONS)), "activation") for _ in range(hidden)),
        dropout_rates=tuple(data.draw(st.sampled_from((0.0, 0.3)), "dropout rate") for _ in range(hidden)),
        input_dropout_rate=data.draw(st.sampled_from((0.0, 0.2)), "input dropout rate"),
        normalization=normalization,
    )
    layers = model.layers()
    x, targets = random.normal(size=(rows, sizes[0])), targets_for(loss, random, (rows, outputs))

    def run(parameters):
        network = pass_of(layers, sizes[0], parameters, rows)
        measure = BufferedLoss(Cpu(), LOSSES[loss](), outputs, rows, np.float64)
        total = np.zeros(())
        network.inputs(rows)[...] = x
        result = network.forward(rows, step=1)
        measure(result, targets, None, network.output_gradient(rows), total, 1 / rows)
        network.backward(rows)
        return float(total) / rows, network.gradients

    parameters, direction = (random.normal(size=parameter_count(layers)) * 0.7 for _ in range(2))
    assert_gradient(run(parameters)[1], lambda p: run(p)[0], parameters, direction)
