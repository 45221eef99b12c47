"""A network: layers, one flat parameter vector, one flat gradient vector, and the buffers of a pass.

One vector each makes optimising, saving and hashing two arrays' work, however deep the network is.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

import numpy as np
from mlpd.core.arrays import Array, Device, HostArray
from mlpd.core.initializers import INITIALIZERS
from mlpd.core.layers import Affine, Layer, Relu


def multilayer_perceptron(layer_sizes: Sequence[int]) -> tuple[Layer, ...]:
    """Return affine layers between the sizes, with ReLU after each but the last."""
    layers: list[Layer] = []
    for inputs, width in pairwise(layer_sizes):
        layers += [Affine(inputs, width), Relu(width)]
    return tuple(layers[:-1])


def parameter_count(layer_sizes: Sequence[int]) -> int:
    """Return the number of weights and biases."""
    return sum((inputs + 1) * width for inputs, width in pairwise(layer_sizes))


def initial_parameters(layer_sizes: Sequence[int], initializer: str, seed: int) -> HostArray:
    """Return the flat float32 vector a run starts from; the same on every device."""
    draw = INITIALIZERS[initializer]
    parts = []
    for layer, (inputs, width) in enumerate(pairwise(layer_sizes)):
        parts += [draw(seed, layer, inputs, width).ravel(), np.zeros(width)]
    return np.concatenate(parts).astype(np.float32)


def views(vector: Array, layers: Sequence[Layer]) -> list[list[Array]]:
    """Cut ``vector`` into each layer's parameters, in order."""
    start, cut = 0, []
    for layer in layers:
        own = []
        for shape in layer.shapes:
            end = start + prod(shape)
            own.append(vector[start:end].reshape(shape))
            start = end
        cut.append(own)
    return cut


class Pass:
    """Buffers to run ``layers`` on up to ``capacity`` rows, and back when ``trains``.

    Threads may share ``parameters``, never a Pass.
    """

    def __init__(
        self,
        device: Device,
        layers: Sequence[Layer],
        input_size: int,
        parameters: Array,
        capacity: int,
        *,
        trains: bool,
    ) -> None:
        xp = device.xp
        self.xp, self.layers, self.parameters, self.capacity = xp, layers, parameters, capacity
        self._parameters = views(parameters, layers)
        self._y = self._buffers([xp.empty((capacity, input_size), dtype=parameters.dtype)])
        if trains:
            self.gradients = xp.zeros_like(parameters)
            self._gradients = views(self.gradients, layers)
            self._dy = self._buffers([None])

    def _buffers(self, buffers: list[Array]) -> list[Array]:
        """Extend ``buffers`` by one a layer; an in-place layer shares its predecessor's."""
        for layer in self.layers:
            shape, dtype = (self.capacity, layer.width), self.parameters.dtype
            buffers.append(buffers[-1] if layer.in_place else self.xp.empty(shape, dtype=dtype))
        return buffers

    def inputs(self, rows: int) -> Array:
        """Return the buffer (rows, input_size) that ``forward(rows)`` reads."""
        return self._y[0][:rows]

    def forward(self, rows: int) -> Array:
        """Return the outputs (rows, width), a buffer that the next call overwrites."""
        y = [buffer[:rows] for buffer in self._y]
        for i, layer in enumerate(self.layers):
            layer.forward(self.xp, self._parameters[i], y[i], y[i + 1])
        return y[-1]

    def output_gradient(self, rows: int) -> Array:
        """Return the buffer (rows, width) from which ``backward(rows)`` starts."""
        return self._dy[-1][:rows]

    def backward(self, rows: int) -> None:
        """Fill ``gradients``; what ``forward`` left is used up."""
        y = [buffer[:rows] for buffer in self._y]
        dy = [None if buffer is None else buffer[:rows] for buffer in self._dy]
        for i in reversed(range(len(self.layers))):
            layer = self.layers[i]
            layer.backward(self.xp, self._parameters[i], self._gradients[i], y[i], y[i + 1], dy[i + 1], dy[i])
