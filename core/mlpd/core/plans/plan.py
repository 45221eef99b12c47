"""The plan of a micro-batch: its calls, their order, and which of them may run at the same time."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from mlpd.core.plans.recording import Op
from numpy.typing import NDArray

Task = Sequence[Op]  # what one thread does, call by call


class Variant(NamedTuple):
    """What the plan of a micro-batch depends on.

    Its rows are in slot ``slot`` of the feed. It may be the first or the last of its step, or both. ``flushes`` says
    whether the optimizer zeroes moments about to become subnormal.
    """

    rows: int
    slot: int
    is_first: bool
    is_last: bool
    flushes: bool


@dataclass(frozen=True)
class Plan:
    """Tasks that load the rows, then phases of tasks that learn from them; a phase begins when the last has ended.

    Tasks of a phase may run at the same time. The next rows may be loaded beside any phase from ``free_phase`` on. If
    the plan ``joins``, task ``i`` of the next micro-batch's first phase waits only for task ``i`` of the last phase.
    """

    prepare: Sequence[Task]
    phases: Sequence[Sequence[Task]]
    joins: bool

    @property
    def free_phase(self) -> int:
        """The first phase beside which the next rows may be loaded: not one that joins the micro-batch before."""
        return 1 if self.joins else 0

    def tasks(self) -> Iterator[Task]:
        """Yield all tasks in an order in which one thread can run them."""
        yield from self.prepare
        for phase in self.phases:
            yield from phase


@dataclass(frozen=True)
class Work:
    """Micro-batches to run in order: number ``i`` has ``variants[which[i]]`` and the scalars ``numbers[name][i]``."""

    variants: Sequence[Variant]
    which: NDArray[np.int64]
    numbers: Mapping[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(self.which)

    def part(self, start: int, end: int) -> "Work":
        """Return micro-batches ``start`` to before ``end``."""
        return Work(
            self.variants, self.which[start:end], {name: column[start:end] for name, column in self.numbers.items()}
        )


def share(width: int, block: int, count: int) -> tuple[int, int]:
    """Return (start, end) of block ``block``'s part, of ``count``, of ``width`` units or rows; ``end`` is excluded."""
    return width * block // count, width * (block + 1) // count
