"""The protocols of runners and of the programs they run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from mlpd.core.devices.arrays import Array
from mlpd.core.plans.plan import Plan, Variant, Work
from mlpd.core.plans.recording import Numbers

# Names the arithmetic of compiled code: what `verification.digest_of` returns wherever its results are right.
ARITHMETIC = "349f837f2eb80204"


class RunnerUnavailable(Exception):
    """A runner can't be used here; the message says why."""


class Program(Protocol):
    """Makes the plans that a runner runs, one for each variant, in numbers of type ``dtype``."""

    dtype: np.dtype[Any]
    task_limit: int  # the most tasks that can run at the same time

    def record(self, variant: Variant) -> Plan:
        """Return the plan of micro-batches like ``variant``."""

    @property
    def kept(self) -> Sequence[Array]:
        """Arrays whose values outlive a micro-batch; a plan need not store others."""


@dataclass(frozen=True)
class PlannedCall:
    """One kernel or call of a task: its name, the bytes it reads and writes, its floating-point operations.

    ``bind(numbers)`` returns a function that runs it with a micro-batch's numbers.
    """

    name: str
    bytes: int
    operations: int
    bind: Callable[[Numbers], Callable[[], object]]


class Runner(Protocol):
    """Runs micro-batches, for one thread; close it in the end."""

    def calls(self, plan: Plan) -> list[list[PlannedCall]]:
        """Return the calls that each task of ``plan`` becomes, to be run one by one."""

    def prepare(self, work: Work) -> Callable[[], None]:
        """Return a function that runs ``work``, all of one epoch, in order; it may be called again.

        A GPU may still be busy when it returns.
        """

    def close(self) -> None:
        """End the runner's threads."""
