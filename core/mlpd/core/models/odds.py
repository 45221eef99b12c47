"""Log odds of classes, from outputs; on the host, in float64.

They keep apart and in order what rounds to a probability of 0 or 1, and both probabilities come exactly of them.
"""

import numpy as np
from mlpd.core.devices.arrays import HostArray
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_BLOCK_VALUES = 2**20


class ClassOdds:
    """Of rows of outputs (rows, classes), each class's odds against all others."""

    def __init__(self, outputs: HostArray) -> None:
        self._outputs = outputs
        self._largest, self._rest = np.empty(len(outputs)), np.empty(len(outputs))
        for rows in self._blocks():
            # In order, so that rows with the same outputs in another order have the same odds.
            ordered = np.sort(outputs[rows].astype(np.float64), axis=1)
            largest, second = ordered[:, -1], ordered[:, -2]
            shares = np.exp(ordered[:, :-1] - second[:, None]).sum(axis=1)
            self._largest[rows], self._rest[rows] = largest, second - largest + np.log(shares)

    def of(self, outputs: HostArray) -> Floats:
        """Return the log odds (rows,) of the classes with the outputs ``outputs``, one of each row.

        With ``e = exp(output - largest)`` they are ``log(e / (1 + rest - e))``, where ``rest`` is the sum of all e but
        the largest's, which is 1.
        """
        gaps = outputs - self._largest
        others = np.exp(self._rest) - np.where(gaps < 0, np.exp(gaps), 0)  # of all but the largest and the own
        return np.where(gaps < 0, gaps - np.log1p(others), -self._rest)

    def of_largest(self) -> Floats:
        """Return the log odds (rows,) of the most probable classes."""
        return -self._rest

    def brier(self, labels: NDArray[np.int64], own: Floats) -> Floats:
        """Return the squared distances (rows,) of probabilities from the truth; ``own`` are the odds of ``labels``."""
        squares = np.empty(len(labels))
        for rows in self._blocks():
            wrong = np.exp(self._outputs[rows] - (self._largest[rows] + np.log1p(np.exp(self._rest[rows])))[:, None])
            wrong[np.arange(len(wrong)), labels[rows]] = probability(-own[rows])
            squares[rows] = np.einsum("ij,ij->i", wrong, wrong)
        return squares

    def _blocks(self) -> list[slice]:
        size = max(1, _BLOCK_VALUES // self._outputs.shape[1])
        return [slice(start, start + size) for start in range(0, len(self._outputs), size)]


def negative_log_probability(odds: Floats) -> Floats:
    """Return ``-log(probability(odds))``."""
    return np.logaddexp(0, -odds)


def probability(odds: Floats) -> Floats:
    """Return the probabilities that log odds stand for; those of the opposite are ``probability(-odds)``."""
    return np.exp(-negative_log_probability(odds))
