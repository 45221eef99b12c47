"""Layers as frozen values: sizes, and functions that write only to the arrays that they are given.

A layer's arrays are in a `Slot`, which belongs to a pass; the layer itself can be shared.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from mlpd.core.devices.arrays import Array, HostArray
from mlpd.core.network.initializers import Initializer

Shapes = tuple[tuple[int, ...], ...]

_EPSILON = 1e-5
_STATISTICS_MOMENTUM = 0.1


@dataclass(frozen=True)
class Slot:
    """What one layer works with in a pass: views of the flat vectors, and ``work`` that forward leaves for backward.

    ``statistics`` are learnt without a gradient. ``matmul(a, b, out)`` writes a product. Gradients are written by
    ``product(a, b, out)`` and by ``total(values, out)``, sums of columns. These two may add to ``out`` instead, which
    may even be the parameters. ``draw(out)`` fills ``out`` (rows, words) uint64 with the layer's random words, which
    depend on the step and the rows. ``trains`` says whether the pass goes back, too.
    """

    xp: Any
    matmul: Callable[[Array, Array, Array], None]
    parameters: Sequence[Array]
    gradients: Sequence[Array]
    statistics: Sequence[Array]
    work: Sequence[Array]
    trains: bool
    product: Callable[[Array, Array, Array], None]
    total: Callable[[Array, Array], None]
    draw: Callable[[Array], None]


class Layer:
    """A function of rows (rows, inputs) with outputs (rows, width).

    An ``in_place`` layer writes its outputs over its inputs: its derivative needs only its outputs.
    """

    width: int
    in_place: ClassVar[bool] = False

    @property
    def shapes(self) -> Shapes:
        """Shapes of the parameters; weight decay applies to those of two dimensions."""
        return ()

    @property
    def statistics(self) -> tuple[HostArray, ...]:
        """Statistics before the first step."""
        return ()

    def work(self, capacity: int) -> Shapes:
        """Shapes of the work arrays for up to ``capacity`` rows."""
        return ()

    @property
    def words_a_row(self) -> int:
        """How many random words a row of the whole layer has, all blocks together."""
        return 0

    @property
    def drawn_words(self) -> tuple[int, int]:
        """The first of a row's random words that is wanted, and how many are; ``work[0]`` holds them, if any."""
        return 0, 0

    def initial(self, initializer: Initializer, seed: int, index: int) -> tuple[HostArray, ...]:
        """Return the parameters before the first step; ``index`` counts the layers that have any."""
        return ()

    def forward(self, slot: Slot, x: Array, y: Array) -> None:
        """Write the outputs of ``x`` (rows, inputs) to ``y`` (rows, width)."""
        raise NotImplementedError

    def backward(self, slot: Slot, x: Array, y: Array, dy: Array, dx: Array | None) -> None:
        """From the outputs' gradient ``dy``, write those of the parameters and, unless ``dx`` is None, of the inputs.

        ``x`` and ``y`` may be overwritten. A parameter must not be read once its gradient is written, which may have
        moved it.
        """
        raise NotImplementedError

    def columns(self, start: int, end: int) -> "Layer":
        """Return the layer of units ``start`` to before ``end`` alone; for layers whose units are independent."""
        return replace(self, width=end - start)  # type: ignore[type-var]


@dataclass(frozen=True)
class Linear(Layer):
    """``y = x @ weight``: before batch normalisation, which would remove a bias, and for partial sums of blocks."""

    inputs: int
    width: int

    @property
    def shapes(self) -> Shapes:
        """Weight (inputs, width)."""
        return ((self.inputs, self.width),)

    def initial(self, initializer: Initializer, seed: int, index: int) -> tuple[HostArray, ...]:
        """Return drawn weights."""
        return (initializer(seed, index, self.inputs, self.width),)

    def forward(self, slot: Slot, x: Array, y: Array) -> None:
        slot.matmul(x, slot.parameters[0], y)

    def backward(self, slot: Slot, x: Array, y: Array, dy: Array, dx: Array | None) -> None:
        """Write the gradients of the weight and, unless None, of the inputs."""
        if dx is not None:
            slot.matmul(dy, slot.parameters[0].T, dx)
        slot.product(x.T, dy, slot.gradients[0])


@dataclass(frozen=True)
class Affine(Linear):
    """``y = x @ weight + bias``."""

    @property
    def shapes(self) -> Shapes:
        """Weight (inputs, width) and bias (width,)."""
        return (*super().shapes, (self.width,))

    def initial(self, initializer: Initializer, seed: int, index: int) -> tuple[HostArray, ...]:
        """Return drawn weights and a bias of zeros."""
        return (*super().initial(initializer, seed, index), np.zeros(self.width))

    def forward(self, slot: Slot, x: Array, y: Array) -> None:
        super().forward(slot, x, y)
        slot.xp.add(y, slot.parameters[1], out=y)

    def backward(self, slot: Slot, x: Array, y: Array, dy: Array, dx: Array | None) -> None:
        """Write the gradients of weight, bias and, unless None, of the inputs."""
        super().backward(slot, x, y, dy, dx)
        slot.total(dy, slot.gradients[1])


@dataclass(frozen=True)
class Sum(Layer):
    """Adds up the blocks' partial sums for its units, ``width`` of ``whole`` from ``start`` on, and maybe a bias.

    Its inputs are (rows, blocks, whole); of the input gradients (rows, whole), it writes those of its units.
    """

    whole: int
    start: int
    width: int
    biased: bool

    @property
    def shapes(self) -> Shapes:
        """Bias (width,), if there is one."""
        return ((self.width,),) if self.biased else ()

    def forward(self, slot: Slot, x: Array, y: Array) -> None:
        """Write the sums to ``y``, added in the order of blocks."""
        if not self.width:
            return
        xp, own = slot.xp, slice(self.start, self.start + self.width)
        xp.copyto(y, x[:, 0, own])
        for block in range(1, x.shape[1]):
            xp.add(y, x[:, block, own], out=y)
        if self.biased:
            xp.add(y, slot.parameters[0], out=y)

    def backward(self, slot: Slot, x: Array, y: Array, dy: Array, dx: Array | None) -> None:
        """Write the gradients of the bias and of the units' partial sums, which are the same for all blocks."""
        if not self.width:
            return
        if dx is not None:
            slot.xp.copyto(dx[:, self.start : self.start + self.width], dy)
        if self.biased:
            slot.total(dy, slot.gradients[0])


@dataclass(frozen=True)
class Dropout(Layer):
    """Zeroes each value with probability ``rate`` and scales the rest by ``1 / (1 - rate)``; idle outside training.

    Srivastava et al. 2014, in the inverted form. The rate is rounded to a multiple of 2**-16, because a draw has 16
    bits. A part of a layer, from unit ``start`` of ``whole`` on, has that part of the layer's mask; 0 = not a part.
    """

    width: int
    rate: float
    start: int = 0
    whole: int = 0

    def columns(self, start: int, end: int) -> "Dropout":
        """Return the layer of these units alone."""
        return Dropout(end - start, self.rate, start, self.width)

    @property
    def words_a_row(self) -> int:
        """Return one word for each four units."""
        return -(-(self.whole or self.width) // 4)

    @property
    def drawn_words(self) -> tuple[int, int]:
        """Return the words that hold draws of its units."""
        first = self.start // 4
        return first, -(-(self.start + self.width) // 4) - first

    def work(self, capacity: int) -> Shapes:
        """Return the shape of the mask."""
        return ((capacity, self.width),)

    def forward(self, slot: Slot, x: Array, y: Array) -> None:
        xp, rows = slot.xp, len(x)
        if not slot.trains:
            xp.copyto(y, x)
            return
        words, mask = slot.work[0][:rows], slot.work[1][:rows]
        slot.draw(words)
        first = self.start % 4
        numbers = words.view(xp.uint16)[:, first : first + self.width]
        threshold = min(round(self.rate * 2**16), 2**16 - 1)
        xp.greater_equal(numbers, threshold, out=mask)
        xp.multiply(mask, 1.0 / (1.0 - threshold / 2**16), out=mask)
        xp.multiply(x, mask, out=y)

    def backward(self, slot: Slot, x: Array, y: Array, dy: Array, dx: Array | None) -> None:
        if dx is not None:
            slot.xp.multiply(dy, slot.work[1][: len(dy)], out=dx)


@dataclass(frozen=True)
class _Normalization(Layer):
    """``y = (x - mean) / sqrt(variance + 1e-5) * gain + bias``, moments along ``axis``."""

    width: int
    axis: ClassVar[int]

    @property
    def shapes(self) -> Shapes:
        """Gain (width,) and bias (width,)."""
        return (self.width,), (self.width,)

    def initial(self, initializer: Initializer, seed: int, index: int) -> tuple[HostArray, ...]:
        """Return gains of one and biases of zero."""
        return np.ones(self.width), np.zeros(self.width)

    def work(self, capacity: int) -> Shapes:
        """Shapes of the normalised inputs, then of mean, reciprocal deviation and a spare, along the axis."""
        moment = (1, self.width) if self.axis == 0 else (capacity, 1)
        return (capacity, self.width), moment, moment, moment

    def _work(self, slot: Slot, rows: int) -> list[Array]:
        normal, *moments = slot.work
        return [normal[:rows], *(moments if self.axis == 0 else [moment[:rows] for moment in moments])]

    def forward(self, slot: Slot, x: Array, y: Array) -> None:
        xp = slot.xp
        normal, mean, scale, _ = self._work(slot, len(x))
        count = 1.0 / x.shape[self.axis]
        xp.sum(x, axis=self.axis, keepdims=True, out=mean)
        xp.multiply(mean, count, out=mean)
        xp.subtract(x, mean, out=normal)
        xp.multiply(normal, normal, out=y)
        xp.sum(y, axis=self.axis, keepdims=True, out=scale)
        xp.multiply(scale, count, out=scale)
        self._track(slot, mean, scale, len(x))
        self._standardize(slot, normal, scale, y)

    def _track(self, slot: Slot, mean: Array, variance: Array, rows: int) -> None:
        """Update running statistics, if the layer has any, from a mini-batch of ``rows`` rows."""

    def _standardize(self, slot: Slot, normal: Array, scale: Array, y: Array) -> None:
        """Write outputs ``y`` from centred inputs and their variances.

        Leave normalised inputs in ``normal`` and reciprocal deviations in ``scale``.
        """
        xp = slot.xp
        xp.add(scale, _EPSILON, out=scale)
        xp.sqrt(scale, out=scale)
        xp.divide(1.0, scale, out=scale)
        xp.multiply(normal, scale, out=normal)
        xp.multiply(normal, slot.parameters[0], out=y)
        xp.add(y, slot.parameters[1], out=y)

    def backward(self, slot: Slot, x: Array, y: Array, dy: Array, dx: Array | None) -> None:
        """Write the gradients: Ioffe & Szegedy 2015 (arXiv:1502.03167), section 3, with its sums combined."""
        xp, (gain, _), (gain_gradient, bias_gradient) = slot.xp, slot.parameters, slot.gradients
        normal, mean, scale, product = self._work(slot, len(dy))
        if dx is not None:
            xp.multiply(dy, gain, out=dx)
        xp.multiply(dy, normal, out=y)
        slot.total(y, gain_gradient)
        slot.total(dy, bias_gradient)
        if dx is None:
            return
        count = 1.0 / dy.shape[self.axis]
        xp.multiply(dx, normal, out=y)
        xp.sum(y, axis=self.axis, keepdims=True, out=product)
        xp.multiply(product, count, out=product)
        xp.sum(dx, axis=self.axis, keepdims=True, out=mean)
        xp.multiply(mean, count, out=mean)
        xp.multiply(normal, product, out=y)
        xp.subtract(dx, mean, out=dx)
        xp.subtract(dx, y, out=dx)
        xp.multiply(dx, scale, out=dx)


@dataclass(frozen=True)
class LayerNorm(_Normalization):
    """Normalises each row: Ba, Kiros & Hinton 2016 (arXiv:1607.06450)."""

    axis: ClassVar[int] = 1


@dataclass(frozen=True)
class BatchNorm(_Normalization):
    """Normalises each column over the mini-batch; outside training, by running moments: Ioffe & Szegedy 2015.

    The running variance is the unbiased one. Each mini-batch moves both running moments by a tenth of the difference,
    except one of a single row: it has no variance, and its outputs are the biases.
    """

    axis: ClassVar[int] = 0

    @property
    def statistics(self) -> tuple[HostArray, ...]:
        """Running mean and variance (1, width)."""
        return np.zeros((1, self.width)), np.ones((1, self.width))

    def forward(self, slot: Slot, x: Array, y: Array) -> None:
        if slot.trains:
            super().forward(slot, x, y)
            return
        xp = slot.xp
        normal, _, scale, _ = self._work(slot, len(x))
        mean, variance = slot.statistics
        xp.subtract(x, mean, out=normal)
        xp.copyto(scale, variance)
        self._standardize(slot, normal, scale, y)

    def _track(self, slot: Slot, mean: Array, variance: Array, rows: int) -> None:
        if rows == 1:
            return
        xp, spare = slot.xp, slot.work[3]
        for running, seen, factor in zip(slot.statistics, (mean, variance), (1.0, rows / (rows - 1)), strict=True):
            xp.multiply(running, 1.0 - _STATISTICS_MOMENTUM, out=running)
            xp.multiply(seen, _STATISTICS_MOMENTUM * factor, out=spare)
            xp.add(running, spare, out=running)
