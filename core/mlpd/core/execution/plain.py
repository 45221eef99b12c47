"""Runs plans call by call with the array library."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from mlpd.core.devices.arrays import Device
from mlpd.core.plans.plan import Plan, Variant, Work
from mlpd.core.plans.recording import Op
from mlpd.core.plans.runner import PlannedCall, Program


class PlainRunner:
    """Makes each call with NumPy or CuPy: the reference for all others."""

    def __init__(self, program: Program, device: Device) -> None:
        self._program, self._device = program, device
        self._calls: dict[Variant, list[Any]] = {}

    def calls(self, plan: Plan) -> list[list[PlannedCall]]:
        """Return the calls of each task, to be run one by one."""
        return [[self._planned(op) for op in task] for task in plan.tasks()]

    def _planned(self, op: Op) -> PlannedCall:
        call = op.call(self._device)
        return PlannedCall(op.name, op.bytes, op.operations, lambda numbers: lambda: call(numbers))

    def prepare(self, work: Work) -> Callable[[], None]:
        """Return a function that runs ``work`` in order; a GPU may still be busy when it returns."""
        return partial(self._run, work)

    @np.errstate(all="ignore")  # a report or a checkpoint finds what overflowed, and ends the run with a reason
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
