"""What a runner of plans is, and what it runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from mlpd.core.devices.arrays import Array
from mlpd.core.execution.plan import Plan, Variant, Work
from mlpd.core.execution.recording import Numbers

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
