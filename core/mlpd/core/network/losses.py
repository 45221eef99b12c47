"""Losses of rows, and their gradients.

Targets are rows of numbers. So label smoothing, mix-up and weights are arithmetic on rows, and no loss knows of them.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from mlpd.core.declaration import POSITIVE, Kind, setting
from mlpd.core.devices.arrays import Array, Device, HostArray, matrix
from mlpd.core.network.activations import sigmoid, softplus_tail

_SMALLEST = 1e-30


@dataclass(frozen=True)
class Loss(Kind):
    """A loss function, as a frozen value."""

    def measure(self, xp: Any, z: Array, t: Array, gradient: Array, work: "Work") -> float:
        """Write losses to ``work.row`` and unscaled gradients to ``gradient``; return the factor that scales these.

        Outputs ``z``, targets ``t`` and ``gradient`` are (rows, outputs).
        """
        mean = 1.0 / int(z.shape[1])
        self._elements(xp, z, t, work.values, gradient)
        xp.sum(work.values, axis=1, keepdims=True, out=work.row)
        xp.multiply(work.row, mean, out=work.row)
        return mean

    def _elements(self, xp: Any, z: Array, t: Array, values: Array, gradient: Array) -> None:
        """Write the loss and gradient of each number; a row's loss is the mean over its numbers."""
        raise NotImplementedError

    def predict(self, xp: Any, outputs: Array, predictions: Array, spare_row: Array) -> None:
        """Write to ``predictions`` the targets that ``outputs`` predict; both are (rows, outputs), maybe one array.

        ``spare_row`` (rows, 1) is overwritten.
        """
        xp.copyto(predictions, outputs)

    def outputs_for(self, predictions: HostArray) -> HostArray:
        """Return outputs (rows, outputs) that predict ``predictions``, nearly where none do exactly."""
        return predictions


class Work(NamedTuple):
    """What a loss writes to: losses (rows, 1), spare values (rows, 1), and values (rows, outputs)."""

    row: Array
    spare_row: Array
    values: Array


class BufferedLoss:
    """A loss with buffers for up to ``capacity`` rows of ``outputs`` numbers; not for use by two threads."""

    def __init__(self, device: Device, loss: Loss, outputs: int, capacity: int, dtype: Any) -> None:
        xp = self._xp = device.xp
        self._loss = loss
        row, spare_row = (xp.empty((capacity, 1), dtype=dtype) for _ in range(2))
        self._work = Work(row, spare_row, matrix(device, (capacity, outputs), dtype))
        self._sum = xp.zeros((), dtype=xp.float64)

    def __call__(
        self, outputs: Array, targets: Array, weights: Array | None, gradient: Array, total: Array, scale: Any
    ) -> None:
        """Add the rows' weighted, summed loss to ``total``; write the gradient of ``scale`` times that sum.

        ``outputs``, ``targets`` and ``gradient`` are (rows, outputs), ``weights`` (rows, 1), None = all 1. ``total`` is
        a float64 scalar on the device. ``scale`` is a number, or a `Scalar` of a recording.
        """
        xp, work = self._xp, Work(*(buffer[: len(outputs)] for buffer in self._work))
        scale *= self._loss.measure(xp, outputs, targets, gradient, work)
        if weights is not None:
            xp.multiply(work.row, weights, out=work.row)
            xp.multiply(gradient, weights, out=gradient)
        xp.sum(work.row, dtype=xp.float64, out=self._sum)
        xp.add(total, self._sum, out=total)
        xp.multiply(gradient, scale, out=gradient)

    def of_rows(self, count: int) -> Array:
        """Return the weighted losses (count, 1) of the last call's rows; not finite if an output of the row is not."""
        return self._work.row[:count]


@dataclass(frozen=True)
class SoftmaxCrossEntropy(Loss):
    """``-sum(target * log(softmax(output)))`` by log-sum-exp, for rows of targets that sum to one."""

    name = "softmax_cross_entropy"

    def measure(self, xp: Any, z: Array, t: Array, gradient: Array, work: Work) -> float:
        """Write losses and gradients of logits (rows, classes)."""
        row, spare, chosen = work
        _subtract_largest(xp, z, row, gradient)
        xp.multiply(gradient, t, out=chosen)
        xp.sum(chosen, axis=1, keepdims=True, out=spare)
        _share_out(xp, gradient, row)  # softmax(z)
        xp.log(row, out=row)
        xp.subtract(row, spare, out=row)
        xp.subtract(gradient, t, out=gradient)
        return 1.0

    def predict(self, xp: Any, outputs: Array, predictions: Array, spare_row: Array) -> None:
        """Write probabilities (rows, classes)."""
        _subtract_largest(xp, outputs, spare_row, predictions)
        _share_out(xp, predictions, spare_row)

    def outputs_for(self, predictions: HostArray) -> HostArray:
        """Return logits (rows, classes)."""
        return _log(predictions)


@dataclass(frozen=True)
class SigmoidCrossEntropy(Loss):
    """``log(1 + exp(z)) - t z``: the cross-entropy of independent probabilities ``sigmoid(z)``."""

    name = "sigmoid_cross_entropy"

    def _elements(self, xp: Any, z: Array, t: Array, values: Array, gradient: Array) -> None:
        xp.multiply(z, t, out=values)
        xp.maximum(z, 0, out=gradient)
        xp.subtract(gradient, values, out=gradient)
        softplus_tail(xp, z, values)
        xp.add(values, gradient, out=values)  # the tail last: beside z it would be rounded away
        sigmoid(xp, z, gradient)
        xp.subtract(gradient, t, out=gradient)

    def predict(self, xp: Any, outputs: Array, predictions: Array, spare_row: Array) -> None:
        """Write probabilities (rows, outputs), each by itself, as ``1 / (1 + exp(-z))``: small ones keep all digits."""
        xp.negative(outputs, out=predictions)
        xp.exp(predictions, out=predictions)
        xp.add(predictions, 1.0, out=predictions)
        xp.divide(1.0, predictions, out=predictions)

    def outputs_for(self, predictions: HostArray) -> HostArray:
        """Return logits (rows, outputs)."""
        logits: HostArray = _log(predictions) - _log(1 - predictions)
        return logits


@dataclass(frozen=True)
class MeanSquared(Loss):
    """``(z - t)**2``."""

    name = "mean_squared"

    def _elements(self, xp: Any, z: Array, t: Array, values: Array, gradient: Array) -> None:
        xp.subtract(z, t, out=gradient)
        xp.multiply(gradient, gradient, out=values)
        xp.multiply(gradient, 2.0, out=gradient)


@dataclass(frozen=True)
class Huber(Loss):
    """``c (r - c / 2)`` with ``r = z - t`` and ``c`` = ``r`` clipped to +-delta: Huber 1964.

    That is ``r**2 / 2`` within delta and ``delta (|r| - delta / 2)`` beyond; its gradient is ``c``.
    """

    name = "huber"
    delta: float = setting(1.0, "Where its square becomes a line", POSITIVE, number=2)

    def _elements(self, xp: Any, z: Array, t: Array, values: Array, gradient: Array) -> None:
        delta = self.delta
        xp.subtract(z, t, out=values)
        xp.minimum(values, delta, out=gradient)
        xp.maximum(gradient, -delta, out=gradient)
        xp.multiply(values, 2.0, out=values)
        xp.subtract(values, gradient, out=values)
        xp.multiply(values, gradient, out=values)
        xp.multiply(values, 0.5, out=values)


@dataclass(frozen=True)
class MeanAbsolute(Loss):
    """``|z - t|``; its gradient is 0 where ``z = t``."""

    name = "mean_absolute"

    def _elements(self, xp: Any, z: Array, t: Array, values: Array, gradient: Array) -> None:
        xp.subtract(z, t, out=gradient)
        xp.absolute(gradient, out=values)
        xp.sign(gradient, out=gradient)


@dataclass(frozen=True)
class Poisson(Loss):
    """``exp(z) - t z``: minus the log-likelihood of counts ``t`` with mean ``exp(z)``, but for ``log(t!)``."""

    name = "poisson"

    def _elements(self, xp: Any, z: Array, t: Array, values: Array, gradient: Array) -> None:
        xp.exp(z, out=gradient)
        xp.multiply(z, t, out=values)
        xp.subtract(gradient, values, out=values)
        xp.subtract(gradient, t, out=gradient)

    def predict(self, xp: Any, outputs: Array, predictions: Array, spare_row: Array) -> None:
        """Write means (rows, outputs)."""
        xp.exp(outputs, out=predictions)

    def outputs_for(self, predictions: HostArray) -> HostArray:
        """Return logarithms (rows, outputs)."""
        return _log(predictions)


def _subtract_largest(xp: Any, z: Array, row: Array, shifted: Array) -> None:
    """Write the largest of each row of ``z`` to ``row`` (rows, 1), and ``z`` less it to ``shifted`` (rows, classes)."""
    xp.max(z, axis=1, keepdims=True, out=row)
    xp.subtract(z, row, out=shifted)


def _share_out(xp: Any, shifted: Array, row: Array) -> None:
    """Replace ``shifted`` (rows, classes) by its softmax; write the sums of exponentials to ``row`` (rows, 1)."""
    xp.exp(shifted, out=shifted)
    xp.sum(shifted, axis=1, keepdims=True, out=row)
    xp.divide(shifted, row, out=shifted)


def _log(values: HostArray) -> HostArray:
    logarithms: HostArray = np.log(np.maximum(values, _SMALLEST))
    return logarithms


LOSSES: dict[str, type[Loss]] = {kind.name: kind for kind in Loss.__subclasses__()}
