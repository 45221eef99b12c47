"""Compiled passes and NumPy, side by side on the same arrays."""

from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from mlpd.core.devices.arrays import ByColumns, Cpu
from mlpd.core.execution.opening import open_runner
from mlpd.core.plans.plan import Plan, Variant, Work
from mlpd.core.plans.recording import RecordingDevice

SHAPES = [(1, 1), (1, 2), (1, 40), (2, 1), (40, 1), (3, 15), (15, 3), (16, 16), (17, 5), (5, 17), (33, 3), (2, 33)]
DTYPES = ["float32", "float64"]
ELEMENTARY = ["exp", "expm1", "log", "log1p", "tanh"]
UNARY = ["absolute", "negative", "sign", "sqrt"]
BINARY = ["add", "subtract", "multiply", "divide", "maximum", "minimum"]
COMPARISONS = ["equal", "greater", "greater_equal", "less"]


@dataclass
class Machine:
    """Runs calls compiled, each list of them as one task. It is the program that its runner runs."""

    kernels: Path
    dtype: np.dtype
    task_limit: int = 1
    kept: list[Any] = field(default_factory=list)

    def __post_init__(self):
        self._calls, self._numbers = {}, count()
        self._runner = open_runner("compiled", self, Cpu(), 1, self.kernels)
        self.close = self._runner.close

    def record(self, variant):
        return Plan([], [[self._calls[variant]]], joins=False)

    def run(self, calls, kept, **numbers):
        variant = Variant(next(self._numbers), 0, True, True, False)
        self._calls[variant], self.kept = calls, kept
        self._runner.prepare(
            Work([variant], np.zeros(1, np.int64), {name: np.array([n]) for name, n in numbers.items()})
        )()


def root(array):
    """Return the array that owns the memory of ``array``."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


@np.errstate(all="ignore")
def both_ways(machine, write, outputs, kept=None, **numbers):
    """Run what ``write(device)`` calls compiled and by NumPy; return copies of ``outputs`` after either."""
    device = RecordingDevice(ByColumns())
    write(device)
    calls = device.take()
    arrays = [array for call in calls for array in (call.out, *call.operands) if isinstance(array, np.ndarray)]
    memory = {id(root(array)): root(array) for array in arrays}.values()
    before = [array.copy() for array in memory]
    machine.run(calls, outputs if kept is None else kept, **numbers)
    found = [array.copy() for array in outputs]
    for array, values in zip(memory, before, strict=True):
        array[...] = values
    for call in calls:
        call.call(ByColumns())(numbers)
    return found, [array.copy() for array in outputs]


def assert_same(found, expected, what=""):
    """Check that numbers are the same, NaN and the signs of zeros too."""
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=str(what))
        numeric = other == other  # noqa: PLR0124 - not NaN
        np.testing.assert_array_equal(np.signbit(one[numeric]), np.signbit(other[numeric]), err_msg=str(what))


def laid(values, layout):
    """Return an array of these values that lies in memory as ``layout`` says."""
    rows, columns = values.shape
    if layout in "CF":
        return np.array(values, order=layout)
    whole = np.full((2 * rows + 3, 3 * columns + 2), 7, values.dtype, order=layout[0].upper())
    own = whole[2 : 2 + rows, 1 : 1 + columns] if layout in ("c", "f") else whole[1::2, 1::3][:rows, :columns]
    own[...] = values
    return own


# Row after row, column after column, parts of larger matrices, with gaps in both directions.
LAYOUTS = ["C", "F", "c", "f", "c gaps", "f gaps"]


def floats(random, shape, dtype, *, special=True):
    """Return numbers of all sizes and signs, among them all that are no usual ones."""
    limits = np.finfo(dtype)
    values = np.ldexp(random.normal(size=shape), random.integers(-9, 9, shape))
    if special:
        unusual = [0.0, -0.0, np.inf, -np.inf, np.nan, limits.max, -limits.max, limits.tiny, limits.smallest_subnormal]
        values = np.where(random.random(shape) < 0.3, random.choice(unusual, shape), values)
    return values.astype(dtype)
