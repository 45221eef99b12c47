"""Batch normalisation where a mini-batch has one row, of which nothing can be said about its spread."""

from dataclasses import replace

import numpy as np
import pytest
from mlpd.core.devices.arrays import Cpu
from mlpd.core.models.predictor import Predictor
from mlpd.core.network.layers import BatchNorm
from mlpd.core.network.network import Backward, Pass, Weights, initial_parameters, initial_statistics
from mlpd.core.optimization.optimizers import Sgd
from mlpd.core.spec.training import ValidationSpec

from ..conftest import needs_compiler
from .family import finish, noise, optimized, run

STILL = run(
    layer_sizes=(20, 9, 3),
    activations=("relu",),
    dropout_rates=(0.0,),
    normalization="batch",
    epoch_count=60,
    batch_size=32,
    **optimized(Sgd(), 1e-9),
)


def on_rows(rows, **changes):
    return replace(STILL.unvalidated().but(**changes), data=noise(rows=rows))


@pytest.mark.parametrize(
    ("rows", "changes"),
    [
        (33, {}),
        (65, {}),
        pytest.param(33, {"runner": "compiled", "block_count": 3}, marks=needs_compiler),
        (49, {"batch_size": 16, "accumulation_steps": 2}),
        (44, {"batch_size": 32, "validation": ValidationSpec(fraction=0.25)}),
    ],
)
def test_outputs_keep_their_size_where_a_last_mini_batch_has_one_row(rows, changes, kernels):
    case = on_rows(rows, **changes)
    state = case.start()
    finish(state, kernels=kernels)
    model = state.trained().model
    inputs = state.examples.train.inputs
    found = Predictor(Cpu(), model, 64).outputs(inputs)
    weights = Weights(model.parameters, model.statistics.copy())
    together = Pass(Cpu(), case.spec.model.layers(), 20, weights, len(inputs), Backward())
    model.scaling(np, inputs, together.inputs(len(inputs)))
    normalised = together.forward(len(inputs))
    assert found.std() / normalised.std() == pytest.approx(1, abs=0.1)


def test_one_row_teaches_no_statistics_and_moves_no_layer_before(device):
    layers = (BatchNorm(4),)
    own = [device.from_host(make) for make in (initial_parameters(layers, "zeros", 0, "float64"), np.arange(8.0))]
    network = Pass(device, layers, 4, Weights(*own), 8, Backward())
    network.inputs(1)[...] = device.from_host(np.array([[1e6, -3.0, 0.1, 7.0]]))
    network.forward(1)
    network.output_gradient(1)[...] = 1
    network.backward(1)
    assert device.to_host(own[1]).tolist() == list(range(8))
    assert device.to_host(network.gradients).tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_two_rows_teach_statistics():
    layers = (BatchNorm(1),)
    statistics = initial_statistics(layers, "float64")
    network = Pass(
        Cpu(), layers, 1, Weights(initial_parameters(layers, "zeros", 0, "float64"), statistics), 8, Backward()
    )
    network.inputs(2)[...] = np.array([[1.0], [3.0]])
    network.forward(2)
    assert statistics.tolist() == pytest.approx([0.2, 1.1])
