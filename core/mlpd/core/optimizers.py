"""Optimizers on flat vectors; their state is named flat vectors and the number of steps taken.

An element-wise pass over a large vector runs at the speed of memory, and an optimizer makes several. So
each works through the vectors in blocks that stay in cache; `Device.block_size` says how long they are.
"""

from collections.abc import Mapping
from math import sqrt
from typing import Any, Protocol

from mlpd.core.arrays import Array, Device

# Where gradients stay zero, moments decay to subnormal numbers, on which processors are up to a hundred times slower.
# Every few steps those about to become subnormal are made zero, as a GPU does with each result.
_FLUSH_STEPS = 16
_SMALLEST_MEAN, _SMALLEST_SQUARE = 1e-30, 1e-35


class Optimizer(Protocol):
    """Moves parameters against their gradients; not for use by two threads."""

    @property
    def state(self) -> Mapping[str, Array]:
        """The vectors that a resumed run needs, by name."""

    def update(self, parameters: Array, gradients: Array, rate: float, step: int) -> None:
        """Make step number ``step`` (from 0); ``gradients`` serves as scratch and is left undefined."""


class Sgd:
    """Stochastic gradient descent: ``v = momentum * v + g``, ``p -= rate * v``.

    With Nesterov's momentum ``p -= rate * (g + momentum * v)``: Sutskever et al. 2013, section 2, in the variant
    that evaluates the gradient at the parameters themselves (Bengio et al. 2013, arXiv:1212.0901, equation 7).
    """

    def __init__(self, device: Device, parameters: Array, momentum: float = 0.0, nesterov: bool = False) -> None:
        self._xp, self._block_size = device.xp, device.block_size
        self._momentum, self._nesterov = momentum, nesterov
        self._velocity = device.xp.zeros_like(parameters) if momentum else None

    @property
    def state(self) -> Mapping[str, Array]:
        """The velocity, where there is momentum."""
        return {} if self._velocity is None else {"velocity": self._velocity}

    def update(self, parameters: Array, gradients: Array, rate: float, step: int) -> None:
        """Make one step; ``gradients`` serves as scratch and is left undefined."""
        xp = self._xp
        for start in range(0, len(parameters), self._block_size):
            block = slice(start, start + self._block_size)
            p, g = parameters[block], gradients[block]
            if self._velocity is not None:
                v = self._velocity[block]
                xp.multiply(v, self._momentum, out=v)
                xp.add(v, g, out=v)
                if self._nesterov:
                    xp.multiply(g, rate, out=g)
                    xp.subtract(p, g, out=p)
                xp.multiply(v, rate * self._momentum if self._nesterov else rate, out=g)
            else:
                xp.multiply(g, rate, out=g)
            xp.subtract(p, g, out=p)
            if self._velocity is not None and step % _FLUSH_STEPS == 0:
                _flush(xp, self._velocity[block], _SMALLEST_MEAN, g)


class Adam:
    """Kingma & Ba 2015 (arXiv:1412.6980), algorithm 1."""

    def __init__(
        self, device: Device, parameters: Array, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8
    ) -> None:
        xp = self._xp = device.xp
        self._block_size = min(device.block_size, len(parameters))
        self._beta1, self._beta2, self._epsilon = beta1, beta2, epsilon
        self._mean, self._square = xp.zeros_like(parameters), xp.zeros_like(parameters)
        self._scratch = xp.zeros_like(parameters[: self._block_size])

    @property
    def state(self) -> Mapping[str, Array]:
        """First and second moment, uncorrected."""
        return {"mean": self._mean, "square": self._square}

    def update(self, parameters: Array, gradients: Array, rate: float, step: int) -> None:
        """Make step number ``step`` (from 0); ``gradients`` serves as scratch and is left undefined."""
        xp = self._xp
        # p -= rate * m / (1 - beta1**t) / (sqrt(s / (1 - beta2**t)) + epsilon), with one correction for both moments
        correction = sqrt(1 - self._beta2 ** (step + 1))
        corrected_rate = rate * correction / (1 - self._beta1 ** (step + 1))
        corrected_epsilon = self._epsilon * correction
        for start in range(0, len(parameters), self._block_size):
            block = slice(start, start + self._block_size)
            p, g, m, s = parameters[block], gradients[block], self._mean[block], self._square[block]
            scratch = self._scratch[: len(p)]
            xp.multiply(g, 1 - self._beta1, out=scratch)
            xp.multiply(m, self._beta1, out=m)
            xp.add(m, scratch, out=m)
            xp.multiply(g, g, out=g)
            xp.multiply(g, 1 - self._beta2, out=g)
            xp.multiply(s, self._beta2, out=s)
            xp.add(s, g, out=s)
            xp.sqrt(s, out=scratch)
            xp.add(scratch, corrected_epsilon, out=scratch)
            xp.divide(m, scratch, out=scratch)
            xp.multiply(scratch, corrected_rate, out=scratch)
            xp.subtract(p, scratch, out=p)
            if step % _FLUSH_STEPS == 0:
                _flush(xp, m, _SMALLEST_MEAN, scratch)
                _flush(xp, s, _SMALLEST_SQUARE, scratch)


def _flush(xp: Any, vector: Array, smallest: float, scratch: Array) -> None:
    """Make zero what is smaller than ``smallest``."""
    xp.absolute(vector, out=scratch)
    xp.greater(scratch, smallest, out=scratch)
    xp.multiply(vector, scratch, out=vector)
