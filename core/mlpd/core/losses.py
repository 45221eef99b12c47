"""The loss of classification, and its targets."""

from typing import Any

from mlpd.core.arrays import Array, Device


class OneHot:
    """Turns labels into rows of targets, in a buffer for up to ``capacity`` rows; not for use by two threads."""

    def __init__(self, device: Device, classes: int, capacity: int) -> None:
        xp = self._xp = device.xp
        self._classes = xp.arange(classes, dtype=xp.int64)
        self._targets = xp.empty((capacity, classes), dtype=xp.float32)

    def __call__(self, labels: Array) -> Array:
        """Return targets (rows, classes) for int64 ``labels`` (rows,); the next call overwrites them."""
        targets = self._targets[: len(labels)]
        self._xp.equal(labels[:, None], self._classes, out=targets)
        return targets


class SoftmaxCrossEntropy:
    """``-sum(target * log(softmax(logits)))`` by log-sum-exp, for rows of targets that sum to one.

    Holds scratch for up to ``capacity`` rows; not for use by two threads.
    """

    def __init__(self, device: Device, classes: int, capacity: int, dtype: Any) -> None:
        xp = self._xp = device.xp
        self._row = xp.empty((capacity, 1), dtype=dtype)
        self._chosen = xp.empty((capacity, classes), dtype=dtype)
        self._sum = xp.zeros((), dtype=xp.float64)

    def __call__(self, logits: Array, targets: Array, gradient: Array, total: Array, scale: float) -> None:
        """Add the rows' summed loss to ``total``, and write the gradient of ``scale`` times that sum.

        ``logits``, ``targets`` and ``gradient`` are (rows, classes), ``total`` is a float64 scalar on the device.
        """
        xp, rows = self._xp, len(logits)
        row, chosen = self._row[:rows], self._chosen[:rows]
        xp.max(logits, axis=1, keepdims=True, out=row)
        xp.subtract(logits, row, out=gradient)
        xp.multiply(gradient, targets, out=chosen)
        xp.sum(chosen, dtype=xp.float64, out=self._sum)
        xp.subtract(total, self._sum, out=total)
        xp.exp(gradient, out=gradient)
        xp.sum(gradient, axis=1, keepdims=True, out=row)
        xp.divide(gradient, row, out=gradient)  # softmax(logits)
        xp.log(row, out=row)
        xp.sum(row, dtype=xp.float64, out=self._sum)
        xp.add(total, self._sum, out=total)
        xp.subtract(gradient, targets, out=gradient)
        xp.multiply(gradient, scale, out=gradient)
