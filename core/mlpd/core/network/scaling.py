"""What is done to inputs before a network sees them: one factor for all, or every column to mean 0 and deviation 1.

Scaling runs on the device at every step. It subtracts in float64, and what it leaves must be a number of the model's
type; so columns too small, too large or too far from zero for that are first moved and sized on the host, exactly.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from mlpd.core.devices.arrays import Array, Device, HostArray
from mlpd.core.network.architecture import ModelSpec
from numpy.typing import NDArray

_BLOCK_VALUES = 2**22
_SPREADS = 2.0**-60, 2.0**120  # of columns that float32 holds with room to spare on either side
_FARTHEST = 2.0**20  # from zero, in spreads
_SIZE_EXPONENT = 1000
_EXACT_DIFFERENCE = 2.0**62


@dataclass(frozen=True)
class Move:
    """``(x - origin) * size`` on the host, as float64: exact where it matters, for sizes are powers of two."""

    origin: HostArray
    size: NDArray[np.float64]

    @classmethod
    @np.errstate(over="ignore")
    def of(cls, low: HostArray, high: HostArray) -> "Move | None":
        """Return what brings columns from ``low`` to ``high`` near 0 and 1; None where all are near enough."""
        first, last = low.astype(np.float64), high.astype(np.float64)
        spread, distance = np.minimum(last - first, np.finfo(np.float64).max), np.maximum(np.abs(first), np.abs(last))
        if low.dtype.kind != "f":  # modulo 2**64, which no difference reaches
            spread = (high.astype(np.uint64) - low.astype(np.uint64)).astype(np.float64)
        near = (_SPREADS[0] <= spread) & (spread <= _SPREADS[1]) & (distance <= _FARTHEST * spread)
        near |= (spread == 0) & (distance <= _SPREADS[1])
        if near.all():
            return None
        _, exponent = np.frexp(np.where(spread == 0, distance, spread))
        size = np.ldexp(1.0, np.clip(-exponent, -_SIZE_EXPONENT, _SIZE_EXPONENT))
        return cls(np.where(near, 0, low), np.where(near, 1.0, size))

    @np.errstate(over="ignore", invalid="ignore")  # rows unlike those it was made of may become infinite
    def __call__(self, inputs: HostArray) -> NDArray[np.float64]:
        """Return ``inputs`` (rows, input_size) of any type, moved."""
        moved: NDArray[np.float64]
        if inputs.dtype != np.int64 or self.origin.dtype != np.int64:
            moved = inputs.astype(np.float64) * self.size - self.origin.astype(np.float64) * self.size
            return moved
        # Differences of integers are exact, but for those that are out of the integers' range.
        moved = inputs.astype(np.float64) - self.origin.astype(np.float64)
        np.copyto(moved, inputs - self.origin, where=np.abs(moved) < _EXACT_DIFFERENCE)
        moved *= self.size
        return moved


@dataclass(frozen=True)
class Scaling:
    """``(x - shift) * factor``, both (input_size,), of inputs that were moved if need be; or ``x`` times one number."""

    shift: Array | None
    factor: Array | float
    move: Move | None = None

    @classmethod
    def of(cls, spec: ModelSpec, inputs: HostArray, *, images: bool = False) -> "Scaling":
        """Return the fixed scale of ``spec``, or mean and deviation of every column; a constant one becomes 0.

        Inputs that are ``images``, to be augmented, are moved all alike, and constant where they are so in float32.
        """
        if not spec.standardize_inputs:
            return cls(None, spec.input_scale)
        low, high = _ranges(blocks(inputs))
        if images:
            low, high = np.full_like(low, low.min()), np.full_like(high, high.max())
        move = Move.of(low, high)
        scaling = cls(None, 1.0, move)
        if move or images:
            kind = np.float32 if images else np.float64
            low, high = _ranges(scaling.moved(block).astype(kind) for block in blocks(inputs))
        mean = _column_means(scaling, inputs, np.zeros(inputs.shape[1]), 1)
        deviation = np.sqrt(_column_means(scaling, inputs, mean, 2))
        constant = low == high
        factor = np.where(constant, 0.0, 1.0 / np.where(constant, 1.0, deviation))
        return cls(np.where(constant, low, mean), factor, move)

    def moved(self, inputs: HostArray) -> HostArray:
        """Return what the device is to scale: ``inputs`` themselves, unless they are to be moved."""
        return inputs if self.move is None else self.move(inputs)

    def on(self, device: Device) -> "Scaling":
        """Return it with its arrays on a device."""
        if self.shift is None:
            return self
        return replace(self, shift=device.from_host(self.shift), factor=device.from_host(np.asarray(self.factor)))

    def __call__(self, xp: Any, raw: Array, out: Array) -> None:
        """Write ``raw`` (rows, input_size) of any type, already moved, scaled to ``out``."""
        if self.shift is None:
            xp.multiply(raw, self.factor, out=out, dtype=out.dtype)
        else:
            xp.subtract(raw, self.shift, out=out, casting="same_kind")
            xp.multiply(out, self.factor, out=out, casting="same_kind")


@dataclass(frozen=True)
class TargetScaling:
    """Mean and deviation (outputs,) of the targets that a network was trained on; it learned them as 0 and 1."""

    mean: HostArray
    deviation: HostArray

    @classmethod
    def of(cls, targets: HostArray) -> "TargetScaling":
        """Return that of ``targets`` (rows, outputs); one that never changes keeps its size."""
        numbers = targets.astype(np.float64)
        deviation = numbers.std(axis=0)
        return cls(numbers.mean(axis=0), np.where((deviation > 0) & np.isfinite(deviation), deviation, 1.0))

    def __call__(self, targets: HostArray) -> HostArray:
        """Return ``targets`` (rows, outputs) as the network learns them, float64."""
        scaled: HostArray = (targets.astype(np.float64) - self.mean) / self.deviation
        return scaled

    def restored(self, predictions: HostArray) -> NDArray[np.float64]:
        """Return ``predictions`` (rows, outputs) of the network in the targets' units.

        Float32 could not tell numbers apart that are far from zero and near each other.
        """
        restored: NDArray[np.float64] = predictions.astype(np.float64) * self.deviation + self.mean
        return restored


def blocks(inputs: HostArray) -> Iterator[HostArray]:
    """Cut rows into blocks that fit in little memory."""
    rows = max(1, _BLOCK_VALUES // inputs.shape[1])
    return (inputs[start : start + rows] for start in range(0, len(inputs), rows))


def _ranges(parts: Iterator[HostArray]) -> tuple[HostArray, HostArray]:
    """Return the least and the largest value of every column."""
    lows, highs = zip(*((part.min(axis=0), part.max(axis=0)) for part in parts), strict=True)
    return np.min(lows, axis=0), np.max(highs, axis=0)


def _column_means(scaling: Scaling, inputs: HostArray, centre: HostArray, power: int) -> NDArray[np.float64]:
    total = np.zeros(inputs.shape[1])
    for block in blocks(inputs):
        total += ((scaling.moved(block) - centre) ** power).sum(axis=0, dtype=np.float64)
    return total / len(inputs)
