"""A network in memory: one flat vector each for parameters, gradients and statistics, and the buffers of a pass.

One vector each makes optimising, averaging, saving and hashing one array's work, however deep the network is.
"""

from collections.abc import Callable, Sequence
from functools import partial
from math import prod

import numpy as np
from mlpd.core.arrays import Array, Device, HostArray
from mlpd.core.initializers import INITIALIZERS
from mlpd.core.layers import Layer, Slot
from mlpd.core.random import Purpose


def initial_parameters(layers: Sequence[Layer], initializer: str, seed: int, dtype: str) -> HostArray:
    """Return the flat vector a run starts from; the same on every device."""
    index, parts = 0, [np.zeros(0)]
    for layer in layers:
        parts += [part.ravel() for part in layer.initial(INITIALIZERS[initializer], seed, index)]
        index += len(layer.shapes) > 0
    return np.concatenate(parts).astype(dtype)


def initial_statistics(layers: Sequence[Layer], dtype: str) -> HostArray:
    """Return the flat vector of statistics before the first step."""
    parts = [statistic.ravel() for layer in layers for statistic in layer.statistics]
    return np.concatenate([np.zeros(0), *parts]).astype(dtype)


def views(vector: Array, shapes: Sequence[Sequence[tuple[int, ...]]]) -> list[list[Array]]:
    """Cut ``vector`` into arrays of these shapes, layer by layer, in order."""
    start, cut = 0, []
    for own_shapes in shapes:
        own = []
        for shape in own_shapes:
            end = start + prod(shape)
            own.append(vector[start:end].reshape(shape))
            start = end
        cut.append(own)
    return cut


class Pass:
    """Buffers to run ``layers`` on up to ``capacity`` rows, and back when it ``trains``.

    Threads may share ``parameters`` and ``statistics``, never a Pass.
    """

    def __init__(
        self,
        device: Device,
        layers: Sequence[Layer],
        input_size: int,
        parameters: Array,
        statistics: Array,
        capacity: int,
        *,
        trains: bool,
        seed: int = 0,
    ) -> None:
        xp = device.xp
        self.layers, self.parameters, self.capacity = layers, parameters, capacity
        self.gradients = xp.zeros_like(parameters) if trains else parameters[:0]
        self._device, self._dtype, self._seed = device, parameters.dtype, seed
        self._step = self._first_row = 0
        self._y = self._buffers(self._empty((capacity, input_size)), layers)
        # No gradient is wanted of what comes before the first parameters.
        self._first_trained = next((i for i, layer in enumerate(layers) if layer.shapes), len(layers))
        self._dy: list[Array] = (
            [None] * self._first_trained + self._buffers(None, layers[self._first_trained :]) if trains else []
        )
        shapes = [layer.shapes for layer in layers]
        no_views: list[list[Array]] = [[] for _ in layers]
        cut = zip(
            layers,
            views(parameters, shapes),
            views(self.gradients, shapes) if trains else no_views,
            views(statistics, [[part.shape for part in layer.statistics] for layer in layers]),
            strict=True,
        )
        self._slots = [
            Slot(xp, own, gradients, running, self._work(layer), trains, self._draw(index, layer.width))
            for index, (layer, own, gradients, running) in enumerate(cut)
        ]

    def _empty(self, shape: tuple[int, ...]) -> Array:
        return self._device.xp.empty(shape, dtype=self._dtype)

    def _buffers(self, first: Array, layers: Sequence[Layer]) -> list[Array]:
        """Return ``first`` and a buffer for each layer's outputs; an in-place layer shares its predecessor's."""
        buffers: list[Array] = [first]
        for layer in layers:
            shared = layer.in_place and len(buffers) > 1
            buffers.append(buffers[-1] if shared else self._empty((self.capacity, layer.width)))
        return buffers

    def _work(self, layer: Layer) -> list[Array]:
        return [
            self._device.xp.empty(shape, dtype=self._dtype if len(shape) > 1 else self._device.xp.uint64)
            for shape in layer.work(self.capacity)
        ]

    def _draw(self, index: int, width: int) -> Callable[[Array], None]:
        return partial(self._fill, index, -(-width // 16))

    def _fill(self, index: int, counters: int, out: Array) -> None:
        counter = (self._first_row * counters, index, self._step, Purpose.DROPOUT)
        self._device.fill_random(self._seed, counter, out)

    def inputs(self, rows: int) -> Array:
        """Return the buffer (rows, input_size) that ``forward(rows)`` reads."""
        return self._y[0][:rows]

    def forward(self, rows: int, step: int = 0, first_row: int = 0) -> Array:
        """Return the outputs (rows, width), a buffer that the next call overwrites.

        Random masks depend on the seed, ``step`` and ``first_row``, the place of the first row in the step's batch.
        """
        self._step, self._first_row = step, first_row
        y = [buffer[:rows] for buffer in self._y]
        for i, (layer, slot) in enumerate(zip(self.layers, self._slots, strict=True)):
            layer.forward(slot, y[i], y[i + 1])
        return y[-1]

    def output_gradient(self, rows: int) -> Array:
        """Return the buffer (rows, width) from which ``backward(rows)`` starts."""
        return self._dy[-1][:rows]

    def backward(self, rows: int) -> None:
        """Fill ``gradients``; what ``forward`` left is used up."""
        y = [buffer[:rows] for buffer in self._y]
        dy = [None if buffer is None else buffer[:rows] for buffer in self._dy]
        for i in reversed(range(self._first_trained, len(self.layers))):
            self.layers[i].backward(self._slots[i], y[i], y[i + 1], dy[i + 1], dy[i])
