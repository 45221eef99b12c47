"""Recorded calls run as fused kernels, call by call on the device, and by NumPy, each from the same numbers."""

from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from mlpd.core.cuda.compiler import CudaCompiler
from mlpd.core.cuda.fusion import fuse
from mlpd.core.cuda.runner import CudaRunner
from mlpd.core.devices.arrays import Cpu
from mlpd.core.plans.plan import Plan, Variant, Work
from mlpd.core.plans.recording import Op, RecordingDevice


@dataclass
class Fused:
    """Runs calls fused, each list of them as one task. It is the program that its runner runs."""

    device: Any
    kernels: Path | None
    dtype: np.dtype[Any] = field(default_factory=lambda: np.dtype("float64"))
    task_limit: int = 1
    kept: list[Any] = field(default_factory=list)

    def __post_init__(self):
        self._tasks, self._numbers = {}, count()
        self.runner = CudaRunner(self, self.device, CudaCompiler(self.kernels))

    def record(self, variant):
        return Plan([], [self._tasks[variant]], joins=False)

    def work(self, tasks, kept, **numbers):
        """Return work that runs ``tasks`` once."""
        variant = Variant(next(self._numbers), 0, True, True, False)
        self._tasks[variant], self.kept = tasks, kept
        return Work([variant], np.zeros(1, np.int64), {name: np.array([n]) for name, n in numbers.items()})

    def run(self, tasks, kept, **numbers):
        self.runner.prepare(self.work(tasks, kept, **numbers))()


def recorded(device, write):
    """Return the calls that ``write(device)`` makes."""
    recording = RecordingDevice(device)
    write(recording)
    return recording.take()


def groups_of(device, calls, kept):
    """Return the groups that calls become."""
    (groups,), _ = fuse([calls], kept, device.empty)
    return groups


class Memory:
    """The device's arrays of some calls, as they were, and copies of them in host memory."""

    def __init__(self, calls, outputs):
        self._roots, self._host = {}, {}
        for array in [*outputs, *(array for call in calls for array in arrays_of(call))]:
            own = root(array)
            self._roots[own.data.ptr] = own
        self.before = {address: own.copy() for address, own in self._roots.items()}
        self.host = {address: own.get().tobytes() for address, own in self._roots.items()}
        self.host = {address: np.frombuffer(own, np.uint8).copy() for address, own in self.host.items()}

    def restore(self):
        for address, own in self._roots.items():
            own[...] = self.before[address]

    def mirrored(self, array):
        """Return the view of a host copy that lies as ``array`` does on the device."""
        start = root(array).data.ptr
        buffer = self.host[start]
        return np.ndarray(array.shape, array.dtype, buffer.data, array.data.ptr - start, array.strides)

    def on_host(self, call):
        """Return the call with host arrays."""
        return Op(call.name, tuple(map(self._operand, call.operands)), self.mirrored(call.out), call.options)

    def _operand(self, operand):
        return self.mirrored(operand) if hasattr(operand, "strides") else operand


def arrays_of(call):
    """Return the arrays of a call."""
    return [part for part in (*call.operands, call.out) if hasattr(part, "strides")]


def root(array):
    """Return the array that owns the memory of ``array``; it is contiguous."""
    while array.base is not None:
        array = array.base
    assert array.flags.c_contiguous
    return array


def both_ways(machine, write, outputs, kept=None, plain=None, **numbers):
    """Run what ``write(device)`` calls fused, and one by one; return copies of ``outputs`` in host memory after either.

    See `tasks_both_ways`.
    """
    return tasks_both_ways(machine, [recorded(machine.device, write)], outputs, kept, plain, **numbers)


@np.errstate(all="ignore")
def tasks_both_ways(machine, tasks, outputs, kept=None, plain=None, **numbers):
    """Run ``tasks``, lists of calls, fused, and one by one; return copies of ``outputs`` after either.

    Those that are run one by one are NumPy's: CuPy's own kernels flush subnormal numbers on a GPU. ``plain`` is another
    function (calls, arrays of the host to keep, numbers) that runs calls.
    """
    calls = [call for task in tasks for call in task]
    memory = Memory(calls, outputs)
    machine.run(tasks, outputs if kept is None else kept, **numbers)
    found = [array.get() for array in outputs]
    memory.restore()
    own, mirrored = [memory.on_host(call) for call in calls], [memory.mirrored(array) for array in outputs]
    if plain:
        plain(own, mirrored, **numbers)
    else:
        for call in own:
            call.call(Cpu())(numbers)
    return found, [array.copy() for array in mirrored]


def on_device(machine, values, layout="C", offset=0):
    """Return an array of these values on the device, that lies in memory as ``layout`` says; see `LAYOUTS`."""
    xp, values = machine.device.xp, np.asarray(values)
    if values.ndim < 2 or layout == "C":
        whole = xp.zeros(values.size + offset, values.dtype)
        own = whole[offset:].reshape(values.shape)
    elif layout == "F":
        own = xp.zeros(values.shape[::-1], values.dtype).T
    else:
        rows, columns = values.shape
        sizes = 2 * rows + 3, 3 * columns + 2
        whole = xp.zeros(sizes if layout[0] == "c" else sizes[::-1], values.dtype)
        whole = whole if layout[0] == "c" else whole.T
        own = whole[2 : 2 + rows, 1 : 1 + columns] if layout in ("c", "f") else whole[1::2, 1::3][:rows, :columns]
    own[...] = xp.asarray(values)
    return own


# Row after row, column after column, parts of larger matrices, with gaps in both directions.
LAYOUTS = ["C", "F", "c", "f", "c gaps", "f gaps"]


def assert_bits(found, expected, what=""):
    """Check that arrays are the same, bit for bit, but for the bits of NaN."""
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=str(what))
        numeric = other == other  # noqa: PLR0124 - not NaN
        np.testing.assert_array_equal(np.signbit(one[numeric]), np.signbit(other[numeric]), err_msg=str(what))
