"""Tasks: what the targets of rows are, which outputs hit them, and what can be asked of them."""

from enum import StrEnum
from typing import Any, ClassVar

import numpy as np
from mlpd.core.data_types import LARGEST_LABEL
from mlpd.core.devices.arrays import Array, Device, HostArray, matrix
from mlpd.core.network.losses import (
    Huber,
    Loss,
    MeanAbsolute,
    MeanSquared,
    Poisson,
    SigmoidCrossEntropy,
    SoftmaxCrossEntropy,
)
from mlpd.core.random import Purpose, generator


class OutputKind(StrEnum):
    """What can be asked of a model: what its last layer gives, what that predicts, and what it decides."""

    LOGITS = "logits"
    PROBABILITIES = "probabilities"
    VALUES = "values"
    CLASSES = "classes"


class Task:
    """Targets of one kind, in buffers for up to ``capacity`` rows; not for use by two threads.

    A row's target is a class index or a row of numbers (outputs,); losses take rows of numbers.
    """

    losses: ClassVar[tuple[type[Loss], ...]]  # the first is the default
    counts_hits: ClassVar[bool] = True
    has_classes: ClassVar[bool] = True  # targets are class indices
    smooths_targets: ClassVar[bool] = True  # towards the other answers, if it is told to
    output_limits: ClassVar[tuple[int, int] | None] = None  # how many outputs a network may have
    target_limits: ClassVar[tuple[float, float] | None] = None  # what targets that are numbers may be
    output_kinds: ClassVar[tuple[OutputKind, ...]] = (  # the first is the default
        OutputKind.PROBABILITIES,
        OutputKind.LOGITS,
        OutputKind.CLASSES,
    )

    def __init__(self, device: Device, outputs: int, capacity: int, dtype: Any, smoothing: float = 0.0) -> None:
        xp = self._xp = device.xp
        self._outputs, self._smoothing = outputs, smoothing
        self._answers = 2  # that a smoothed target is shared out among: yes and no
        self._spare, self._yes = (matrix(device, (capacity, outputs), dtype) for _ in range(2))
        self._right = xp.empty((capacity,), dtype=dtype)
        self._hits = xp.empty((capacity,), dtype=xp.int64)
        self._hit_sum = xp.zeros((), dtype=xp.int64)

    @classmethod
    def class_count(cls, outputs: int) -> int:
        """Return how many classes a network of ``outputs`` tells apart; 0 where targets are numbers."""
        return outputs if cls.has_classes else 0

    @classmethod
    def prediction_count(cls, outputs: int) -> int:
        """Return how many numbers are predicted of a row: one a class, else one an output."""
        return cls.class_count(outputs) or outputs

    @staticmethod
    def logits(xp: Any, outputs: Array, room: Array) -> Array:
        """Return a logit for each number that is predicted: ``outputs``, or what was made of them in ``room``.

        Of ``outputs`` (rows, outputs) in ``room`` (rows, prediction_count).
        """
        return outputs

    @classmethod
    def output(cls, kind: OutputKind, outputs: HostArray, predictions: HostArray) -> HostArray:
        """Return what is asked for, one of ``output_kinds``, of outputs (rows, outputs) and what they predict."""
        if kind is OutputKind.LOGITS:
            return outputs
        return cls.classes(outputs) if kind is OutputKind.CLASSES else predictions

    @staticmethod
    def prepare(targets: HostArray, dtype: str) -> HostArray:
        """Return a data set's targets in the type and shape the device wants."""
        return targets.astype(dtype, copy=False)

    @staticmethod
    def classes(outputs: HostArray) -> HostArray:
        """Return what ``outputs`` (rows, outputs) decide: classes (rows,), or yes and no (rows, outputs), as int64."""
        return (outputs > 0).astype(np.int64)

    def spread(self, targets: Array, rows: Array) -> None:
        """Write ``targets``, smoothed, as rows of numbers (rows, outputs)."""
        xp = self._xp
        self._spread(xp, targets, rows)
        if self._smoothing:
            xp.multiply(rows, 1.0 - self._smoothing, out=rows)
            xp.add(rows, self._smoothing / self._answers, out=rows)

    def _spread(self, xp: Any, targets: Array, rows: Array) -> None:
        xp.copyto(rows, targets)

    def count_hits(self, outputs: Array, targets: Array, total: Array) -> None:
        """Add the number of rows that are right in all to the scalar ``total``."""
        xp, hits = self._xp, self._hits[: len(outputs)]
        self._compare(xp, outputs, targets, hits)
        xp.sum(hits, out=self._hit_sum)
        xp.add(total, self._hit_sum, out=total)

    def _compare(self, xp: Any, outputs: Array, targets: Array, hits: Array) -> None:
        """Write 1 for a row that is right, else 0; a target above a half is a yes."""
        spare, yes, right = (buffer[: len(outputs)] for buffer in (self._spare, self._yes, self._right))
        xp.greater(outputs, 0, out=spare)
        xp.greater(targets, 0.5, out=yes)
        xp.equal(spare, yes, out=spare)
        xp.sum(spare, axis=1, out=right)
        xp.equal(right, self._outputs, out=hits)


class Multiclass(Task):
    """One class of several; as many outputs as classes, the largest wins, the first of equals."""

    losses = (SoftmaxCrossEntropy,)
    output_limits = 2, LARGEST_LABEL + 1

    def __init__(self, device: Device, outputs: int, capacity: int, dtype: Any, smoothing: float = 0.0) -> None:
        super().__init__(device, outputs, capacity, dtype, smoothing)
        self._answers = outputs
        self._classes = device.xp.arange(outputs, dtype=device.xp.int64)
        self._predicted = device.xp.empty((capacity,), dtype=device.xp.int64)

    @staticmethod
    def prepare(targets: HostArray, dtype: str) -> HostArray:
        """Return class indices (rows,) int64."""
        indices: HostArray = targets.astype(np.int64)
        return indices

    @staticmethod
    def classes(outputs: HostArray) -> HostArray:
        """Return the classes (rows,) of the largest outputs."""
        largest: HostArray = outputs.argmax(axis=1)
        return largest

    def _spread(self, xp: Any, targets: Array, rows: Array) -> None:
        xp.equal(targets[:, None], self._classes, out=rows)

    def _compare(self, xp: Any, outputs: Array, targets: Array, hits: Array) -> None:
        predicted = self._predicted[: len(outputs)]
        xp.argmax(outputs, axis=1, out=predicted)
        xp.equal(predicted, targets, out=hits)


class Binary(Task):
    """Class 0 or 1 by one output, the log odds of 1."""

    losses = (SigmoidCrossEntropy,)
    output_limits = 1, 1

    @staticmethod
    def class_count(outputs: int) -> int:
        """Return 2."""
        return 2

    @staticmethod
    def logits(xp: Any, outputs: Array, room: Array) -> Array:
        """Return the log odds of either class (rows, 2)."""
        xp.negative(outputs, out=room[:, :1])
        xp.copyto(room[:, 1:], outputs)
        return room

    @staticmethod
    def prepare(targets: HostArray, dtype: str) -> HostArray:
        """Return targets (rows, 1)."""
        return targets.astype(dtype)[:, None]

    @staticmethod
    def classes(outputs: HostArray) -> HostArray:
        """Return the classes (rows,)."""
        return (outputs[:, 0] > 0).astype(np.int64)


class Multilabel(Task):
    """Several independent yes or no answers, an output each."""

    losses = (SigmoidCrossEntropy,)
    has_classes = False
    target_limits = 0, 1


class Regression(Task):
    """Numbers, an output each."""

    losses = (MeanSquared, Huber, MeanAbsolute, Poisson)
    counts_hits = False
    has_classes = False
    smooths_targets = False
    output_kinds = (OutputKind.VALUES, OutputKind.LOGITS)


TASKS: dict[str, type[Task]] = {
    "multiclass": Multiclass,
    "binary": Binary,
    "multilabel": Multilabel,
    "regression": Regression,
}


class MixUp:
    """Mixes each row with the next of its step, inputs and targets alike: Zhang et al. 2018 (arXiv:1710.09412).

    The first row of a step is the next of its last. Each step has one share, drawn from Beta(alpha, alpha) and folded
    to at least a half, so that a row's own target stays its largest; the order is shuffled, so that the next row is any
    row.
    """

    def __init__(
        self, device: Device, input_size: int, outputs: int, capacity: int, input_dtype: Any, dtype: Any
    ) -> None:
        self._xp = device.xp
        self._next_inputs = device.xp.empty((capacity, input_size), dtype=input_dtype)
        self._next_targets = matrix(device, (capacity, outputs), dtype)

    def __call__(
        self, inputs: Array, targets: Array, next_input: Array, next_target: Array, share: Any, rest: Any
    ) -> None:
        """Replace ``inputs`` and ``targets`` by ``share`` of them plus ``rest``, one less that, of the next row's.

        ``next_input`` (1, input_size) and ``next_target`` (1, outputs) are those of the row after the last.
        """
        xp, rows = self._xp, len(inputs)
        for values, after, room in (
            (inputs, next_input, self._next_inputs),
            (targets, next_target, self._next_targets),
        ):
            mixed = room[:rows]
            xp.multiply(values[1:], rest, out=mixed[:-1])
            xp.multiply(after, rest, out=mixed[-1:])
            xp.multiply(values, share, out=values)
            xp.add(values, mixed, out=values)


def mixing_share(seed: int, step: int, alpha: float) -> float:
    """Draw from Beta(alpha, alpha), 0 < alpha <= 1, folded to at least a half: Joehnk 1964."""
    words = generator(seed, Purpose.MIXING, step)
    while True:
        u, v = (((int(word) >> 11) + 0.5) * 2.0**-53 for word in words.random_raw(2))
        u, v = u ** (1 / alpha), v ** (1 / alpha)
        if 0 < u + v <= 1:
            return float(max(u, v) / (u + v))
