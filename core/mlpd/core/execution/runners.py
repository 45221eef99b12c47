"""Runners of plans, behind one door: call by call with the array library, or compiled, by threads."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from mlpd.core.devices.arrays import Array, Device
from mlpd.core.execution.plan import Plan, Variant, Work
from mlpd.core.execution.recording import Numbers, Op

# Names the arithmetic of compiled code: the digest that `arithmetic.digest_of` finds wherever it is right.
ARITHMETIC = "349f837f2eb80204"


class RunnerUnavailable(Exception):
    """A run's runner isn't there; the message says why."""


class Program(Protocol):
    """What can be run: plans by their variants, in numbers of type ``dtype``."""

    dtype: np.dtype[Any]
    task_limit: int  # tasks that can be done at the same time

    def record(self, variant: Variant) -> Plan:
        """Return the plan of micro-batches of this kind."""

    @property
    def kept(self) -> Sequence[Array]:
        """Arrays that live longer than a micro-batch; what else a plan writes nobody looks at afterwards."""


@dataclass(frozen=True)
class PlannedCall:
    """One kernel or call of a task: its name, the bytes it reads and writes, its floating-point operations.

    ``bind`` returns what runs it with a micro-batch's numbers.
    """

    name: str
    bytes: int
    operations: int
    bind: Callable[[Numbers], Callable[[], object]]


class Runner(Protocol):
    """Runs micro-batches; close it when they are done. For use by one thread."""

    def calls(self, plan: Plan) -> list[list[PlannedCall]]:
        """Return what it makes of each task of a plan, to be looked at and run one by one."""

    def prepare(self, work: Work) -> Callable[[], None]:
        """Return what runs micro-batches of one epoch, any number of times; the device may be busy with them still."""

    def close(self) -> None:
        """Give up threads."""


class PlainRunner:
    """Makes each call with NumPy or CuPy: the reference for all others."""

    def __init__(self, program: Program, device: Device) -> None:
        self._program, self._device = program, device
        self._calls: dict[Variant, list[Any]] = {}

    def calls(self, plan: Plan) -> list[list[PlannedCall]]:
        """Return each task's calls."""
        return [[self._planned(op) for op in task] for task in plan.tasks()]

    def _planned(self, op: Op) -> PlannedCall:
        call = op.call(self._device)
        return PlannedCall(op.name, op.bytes, op.operations, lambda numbers: lambda: call(numbers))

    def prepare(self, work: Work) -> Callable[[], None]:
        """Return what runs micro-batches one after the other."""
        return partial(self._run, work)

    @np.errstate(all="ignore")  # what overflows is found in a report or a checkpoint, and ends the run with a reason
    def _run(self, work: Work) -> None:
        columns = {name: column.tolist() for name, column in work.numbers.items()}
        for i, number in enumerate(work.which.tolist()):
            variant = work.variants[number]
            if variant not in self._calls:
                plan = self._program.record(variant)
                self._calls[variant] = [op.call(self._device) for task in plan.tasks() for op in task]
            numbers = {name: column[i] for name, column in columns.items()}
            for call in self._calls[variant]:
                call(numbers)

    def close(self) -> None:
        """Do nothing: there are no threads."""


def missing_for(runner: str) -> str:
    """Say what is missing for a runner to be there; nothing if it is."""
    if runner != "compiled":
        return ""
    if not find_spec("llvmlite"):
        return "llvmlite, which comes with mlpd[server], is not installed"
    return ""


def open_runner(
    runner: str, program: Program, device: Device, thread_count: int, kernels: Path | None = None
) -> Runner:
    """Return the runner of this name; raises `RunnerUnavailable`.

    A compiled one has ``thread_count`` threads, and keeps its code in ``kernels``.
    """
    if runner == "plain":
        return PlainRunner(program, device)
    if missing := missing_for(runner):
        raise RunnerUnavailable(f"runner {runner} can't be used: {missing}")
    from mlpd.core.execution.compiled import CompiledRunner

    return CompiledRunner(program, thread_count, kernels)
