"""The plain step's formulas mean the same in the array API standard, as its strictest implementation reads it."""

from functools import partial
from types import SimpleNamespace

import array_api_strict
import numpy as np
import pytest
from mlpd.core.devices.arrays import Cpu
from mlpd.core.network.activations import Relu, Tanh
from mlpd.core.network.layers import Affine, LayerNorm, Slot
from mlpd.core.network.losses import BufferedLoss, MeanSquared, SoftmaxCrossEntropy
from mlpd.core.network.network import initial_parameters
from mlpd.core.optimization.optimizers import Adam, Block, Sgd


class StrictArray:
    """A standard array, with the length and the cuts by rows that the standard leaves out."""

    def __init__(self, array):
        self.array = array

    def __len__(self):
        return self.array.shape[0]

    def __getitem__(self, rows):
        return StrictArray(self.array[rows, ...])

    def fill(self, value):
        self.array[...] = value

    @property
    def T(self):  # noqa: N802 - the name that arrays have
        return StrictArray(self.array.T)

    @property
    def shape(self):
        return self.array.shape

    @property
    def dtype(self):
        return self.array.dtype


_STANDARD_NAMES = {"absolute": "abs"}


class ArrayApi:
    """The standard's functions, that write what they return to ``out``; no dtype may change on the way."""

    def __getattr__(self, name):
        function = getattr(array_api_strict, _STANDARD_NAMES.get(name, name))
        if not callable(function):
            return function

        def call(*args, out=None, **kwargs):
            values = [arg.array if isinstance(arg, StrictArray) else arg for arg in args]
            result = function(*values, **kwargs)
            if out is None:
                return StrictArray(result)
            if result.dtype == array_api_strict.bool:  # a comparison is a number, 0 or 1, wherever it is written
                result = array_api_strict.astype(result, out.dtype)
            assert (result.shape, result.dtype) == (out.shape, out.dtype)
            out.array[...] = result
            return out

        return call


def to_strict(array):
    return StrictArray(array_api_strict.asarray(array.copy()))


def write_product(xp, a, b, out):
    xp.matmul(a, b, out=out)


def write_total(xp, values, out):
    xp.sum(values, axis=0, out=out)


def one_step(xp, wrap, activation, loss_kind, optimizer):
    """Make one step of a network with a hidden layer; return its loss and its parameters as NumPy arrays."""
    random = np.random.default_rng(3)
    sizes, rows = (5, 6, 4), 7
    layers = (Affine(5, 6), LayerNorm(6), activation(6), Affine(6, 4))
    x, targets = random.normal(size=(rows, sizes[0])), np.eye(4)[random.integers(0, 4, rows)]
    flat, start, slots = initial_parameters(layers, "glorot_normal", 1, "float64"), 0, []
    for layer in layers:
        parameters = []
        for shape in layer.shapes:
            count = int(np.prod(shape))
            parameters.append(wrap(flat[start : start + count].reshape(shape)))
            start += count
        gradients = [wrap(np.zeros(shape)) for shape in layer.shapes]
        work = [wrap(np.zeros(shape)) for shape in layer.work(rows)]
        product, total = partial(write_product, xp), partial(write_total, xp)
        slots.append(
            Slot(xp, partial(write_product, xp), parameters, gradients, (), work, True, product, total, lambda _: None)
        )
    y = [wrap(x), *(wrap(np.zeros((rows, layer.width))) for layer in layers)]
    dy = [None, *(wrap(np.zeros((rows, layer.width))) for layer in layers)]
    for i, (layer, slot) in enumerate(zip(layers, slots, strict=True)):
        layer.forward(slot, y[i], y[i + 1])
    total = wrap(np.zeros(()))
    device = SimpleNamespace(xp=xp, memory_order="C", empty=lambda shape, dtype: xp.empty(shape, dtype=dtype))
    loss = BufferedLoss(device, loss_kind(), 4, rows, xp.float64)
    loss(y[-1], wrap(targets), None, dy[-1], total, 1 / rows)
    for i in reversed(range(len(layers))):
        layers[i].backward(slots[i], y[i], y[i + 1], dy[i + 1], dy[i])
    for slot in slots:
        for parameter, gradient in zip(slot.parameters, slot.gradients, strict=True):
            moments = {name: wrap(np.zeros(parameter.shape)) for name in optimizer.moments}
            spare = wrap(np.zeros(parameter.shape))
            optimizer.update(Block(xp, parameter, gradient, moments, spare), optimizer.factors(0.1, 0))
    plain = [getattr(parameter, "array", parameter) for slot in slots for parameter in slot.parameters]
    return float(getattr(total, "array", total)), [np.asarray(parameter) for parameter in plain]


@pytest.mark.parametrize("activation", [Relu, Tanh])
@pytest.mark.parametrize("loss", [SoftmaxCrossEntropy, MeanSquared])
@pytest.mark.parametrize("optimizer", [Sgd(), Sgd(0.9), Adam()], ids=["sgd", "momentum", "adam"])
def test_a_step_by_the_array_api_standard_is_that_of_numpy(activation, loss, optimizer):
    found = one_step(ArrayApi(), to_strict, activation, loss, optimizer)
    expected = one_step(Cpu().xp, np.copy, activation, loss, optimizer)
    assert found[0] == pytest.approx(expected[0], rel=1e-12)
    for ours, theirs in zip(found[1], expected[1], strict=True):
        assert np.allclose(ours, theirs, rtol=1e-12, atol=1e-14)
