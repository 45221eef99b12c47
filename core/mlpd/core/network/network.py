"""A network in memory: one flat vector each for parameters, gradients and statistics, and the buffers of a pass.

So optimising, averaging, saving and hashing are done on one array, however deep the network is.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any, NamedTuple

import numpy as np
from mlpd.core.devices.arrays import Array, Device, HostArray, RowWords, matrix
from mlpd.core.network.initializers import INITIALIZERS
from mlpd.core.network.layers import Layer, Slot, Sum
from mlpd.core.random import Purpose

Shapes = Sequence[Sequence[tuple[int, ...]]]
Change = Callable[[Array], Array]
Place = Any  # an integer, or a `Scalar` of a recording


class Weights(NamedTuple):
    """Flat vectors of a network, or of a block of one: parameters, and running statistics, which may be empty."""

    parameters: Array
    statistics: Array

    def map(self, change: Change) -> "Weights":
        """Return what ``change`` makes of each vector."""
        return Weights(*map(change, self))


def initial_parameters(layers: Sequence[Layer], initializer: str, seed: int, dtype: str) -> HostArray:
    """Return the flat vector of parameters before the first step; the same on every device."""
    index, parts = 0, [np.zeros(0)]
    for layer in layers:
        parts += [part.ravel() for part in layer.initial(INITIALIZERS[initializer], seed, index)]
        index += len(layer.shapes) > 0
    return np.concatenate(parts).astype(dtype)


def initial_statistics(layers: Sequence[Layer], dtype: str) -> HostArray:
    """Return the flat vector of statistics before the first step."""
    parts = [statistic.ravel() for layer in layers for statistic in layer.statistics]
    return np.concatenate([np.zeros(0), *parts]).astype(dtype)


def shapes_of(layers: Sequence[Layer], *, statistics: bool = False) -> Shapes:
    """Return the shapes of each layer's parameters, or of its statistics."""
    return [[part.shape for part in layer.statistics] if statistics else layer.shapes for layer in layers]


def views(vector: Array, shapes: Shapes, order: str = "C") -> list[list[Array]]:
    """Return views of ``vector`` with these shapes, layer by layer, row-major ("C") or column-major ("F")."""
    start, cut = 0, []
    for own_shapes in shapes:
        own = []
        for shape in own_shapes:
            end = start + prod(shape)
            part = vector[start:end]
            own.append(part.reshape(shape) if order == "C" else part.reshape(shape[::-1]).T)
            start = end
        cut.append(own)
    return cut


def leading_layer_count(layers: Sequence[Layer]) -> int:
    """Return how many layers come before the first that has parameters."""
    return next((i for i, layer in enumerate(layers) if layer.shapes), len(layers))


def vector_size(shapes: Shapes) -> int:
    """Return how many values arrays of these shapes have in all."""
    return sum(prod(shape) for own in shapes for shape in own)


@dataclass(frozen=True)
class Exchange:
    """Where blocks of units meet: their partial sums (capacity, blocks, whole), and the gradient (capacity, whole).

    All blocks share both arrays. The pass that has this exchange writes the partial sums of ``block``.
    """

    sums: Array
    gradient: Array
    block: int


class Backward(NamedTuple):
    """What a pass needs to go back: the seed of its draws, its place in the network, and where gradients go.

    Its first layer is number ``first_layer`` of the whole network. ``gradients`` is a flat vector, None = a new one; if
    it is the parameters, a pass back moves them. ``exchanges`` are those of the `Sum` layers, in order.
    """

    seed: int = 0
    first_layer: int = 0
    gradients: Array | None = None
    exchanges: Sequence[Exchange] = ()


class Pass:
    """Runs ``layers`` on up to ``capacity`` rows of ``input_size`` values and, given ``backward``, back.

    Threads may share ``weights``, never a Pass. Parameters and buffers are row-major or column-major, as the device has
    it; inputs are always row-major.
    """

    def __init__(
        self,
        device: Device,
        layers: Sequence[Layer],
        input_size: int,
        weights: Weights,
        capacity: int,
        backward: Backward | None = None,
    ) -> None:
        xp, trains, (parameters, statistics) = device.xp, backward is not None, weights
        self.layers, self.parameters, self.capacity = layers, parameters, capacity
        seed, first_layer, gradients, exchanges = backward or Backward()
        if gradients is None:
            gradients = xp.zeros_like(parameters) if trains else parameters[:0]
        self.gradients = gradients
        assert not (layers and layers[0].in_place), "an in-place layer writes over what the one before it wrote"
        self._device, self._dtype, self._seed = device, parameters.dtype, seed
        self._place: tuple[Place, Place, int] = (0, 0, 0)
        self._order = device.memory_order
        self._adds, self._scale = False, 1.0
        # Layers before the first parameters need no gradients.
        self._first_trained = leading_layer_count(layers)
        self._make_buffers(device.empty((capacity, input_size), self._dtype), exchanges, trains)
        shapes = shapes_of(layers)
        no_views: list[list[Array]] = [[] for _ in layers]
        cut = zip(
            layers,
            views(parameters, shapes, self._order),
            views(self.gradients, shapes, self._order) if trains else no_views,
            views(statistics, shapes_of(layers, statistics=True), self._order),
            strict=True,
        )
        widest = max((layer.width for layer in layers), default=0)
        self._sums, self._ones = xp.empty((1, widest), dtype=self._dtype), xp.zeros((1, capacity), dtype=self._dtype)
        self._ones.fill(1)
        self._slots: list[Slot] = []
        index = first_layer
        for layer, own, own_gradients, running in cut:
            slot = Slot(
                *(xp, device.matmul, own, own_gradients, running, self._work(layer), trains),
                *(self._product, self._total, partial(self._draw, index, layer)),
            )
            self._slots.append(slot)
            index += not isinstance(layer, Sum)  # so that draws do not depend on the number of blocks

    def _empty(self, width: int) -> Array:
        return self._array((self.capacity, width), self._dtype)

    def _array(self, shape: tuple[int, ...], dtype: Any) -> Array:
        return matrix(self._device, shape, dtype)

    def _make_buffers(self, inputs: Array, exchanges: Sequence[Exchange], trains: bool) -> None:
        """Make the inputs ``_x`` and outputs ``_y`` of each layer, and their gradients ``_dx`` and ``_dy``.

        The outputs of a layer are the inputs of the next, but an exchange lies before a `Sum`. An in-place layer uses
        the buffers of the layer before it.
        """
        self._x: list[Array] = []
        self._y: list[Array] = []
        self._dx: list[Array] = []
        self._dy: list[Array] = []
        x, dx, waiting = inputs, None, list(exchanges)
        for i, layer in enumerate(self.layers):
            self._x.append(x)
            self._dx.append(dx)
            if i + 1 < len(self.layers) and isinstance(self.layers[i + 1], Sum):
                exchange = waiting.pop(0)
                y, dy, x = exchange.sums[:, exchange.block], exchange.gradient, exchange.sums
            else:
                shares = layer.in_place and i > 0
                y = self._y[-1] if shares else self._empty(layer.width)
                wanted = trains and i >= self._first_trained
                dy = self._dy[-1] if shares else self._empty(layer.width) if wanted else None
                x = y
            self._y.append(y)
            self._dy.append(dy)
            dx = dy if i >= self._first_trained else None

    def _work(self, layer: Layer) -> list[Array]:
        uint64 = self._device.xp.uint64
        arrays = [self._array(shape, self._dtype) for shape in layer.work(self.capacity)]
        words = layer.drawn_words
        return [self._device.empty((self.capacity, words[1]), uint64), *arrays] if words[1] else arrays

    def _draw(self, index: int, layer: Layer, out: Array) -> None:
        step, first_row, start_row = self._place
        words = RowWords(self._seed, index, Purpose.DROPOUT, layer.words_a_row, layer.drawn_words[0], start_row)
        self._device.draw(words, step, first_row, out)

    def _product(self, a: Array, b: Array, out: Array) -> None:
        if self._adds:
            self._device.add_product(a, b, self._scale, out)
        else:
            self._device.matmul(a, b, out)

    def _total(self, values: Array, out: Array) -> None:
        xp, ones = self._device.xp, self._ones[:, : len(values)]
        if self._adds:
            sums = self._sums[0, : len(out)]
            self._device.column_sums(ones, values, sums)
            xp.multiply(sums, self._scale, out=sums)
            xp.add(out, sums, out=out)
        else:
            self._device.column_sums(ones, values, out)

    def read_from(self, inputs: Array) -> None:
        """Read ``inputs`` (rows, input_size) from now on."""
        self._x[0] = inputs

    def write_to(self, outputs: Array) -> None:
        """Write the outputs of the last layer to ``outputs`` (rows, width) from now on."""
        self._y[-1] = outputs

    def inputs(self, rows: int) -> Array:
        """Return the buffer (rows, input_size) that ``forward(rows)`` reads."""
        return self._x[0][:rows]

    def forward(self, rows: int, step: Place = 0, first_row: Place = 0, start_row: int = 0) -> Array:
        """Return the outputs (rows, width), a buffer that the next call overwrites.

        Random masks depend on the seed, ``step`` and the rows' places: the micro-batch begins at row ``first_row`` of
        the step, and the rows here at row ``start_row`` of the micro-batch.
        """
        for _ in self.forward_parts(rows, step, first_row, start_row):
            pass
        return self.outputs(rows)

    def forward_parts(self, rows: int, step: Place, first_row: Place, start_row: int = 0) -> Iterator[None]:
        """Run forward; yield before each `Sum`, which needs the partial sums of all blocks."""
        self._place = step, first_row, start_row
        for layer, slot, x, y in zip(self.layers, self._slots, self._x, self._y, strict=True):
            if isinstance(layer, Sum):
                yield
            layer.forward(slot, x[:rows], y[:rows])

    def outputs(self, rows: int) -> Array:
        """Return the outputs (rows, width) of the last pass forward."""
        return self._y[-1][:rows]

    def output_gradient(self, rows: int) -> Array:
        """Return the buffer (rows, width) for the gradient of the outputs, which ``backward(rows)`` reads."""
        return self._dy[-1][:rows]

    def backward(self, rows: int) -> None:
        """Fill ``gradients``; outputs and other buffers of ``forward`` are overwritten."""
        for _ in self.backward_parts(rows):
            pass

    def backward_parts(self, rows: int, *, adds: bool = False, scale: float = 1.0) -> Iterator[None]:
        """Run back and write ``gradients``; yield after each `Sum`.

        If it ``adds``, ``scale`` times the gradients are added to what is there; else ``scale`` does not count.
        """
        self._adds, self._scale = adds, scale
        for i in reversed(range(self._first_trained, len(self.layers))):
            dx = self._dx[i]
            layer, y = self.layers[i], self._y[i][:rows]
            layer.backward(self._slots[i], self._x[i][:rows], y, self._dy[i][:rows], None if dx is None else dx[:rows])
            if isinstance(layer, Sum):
                yield
