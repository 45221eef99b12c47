"""The plan of a micro-batch: which calls make it, which of them can be made at the same time, and in which order."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from mlpd.core.execution.recording import Op
from numpy.typing import NDArray

Task = Sequence[Op]  # what one thread does, call by call


class Variant(NamedTuple):
    """What decides which calls a micro-batch makes: its rows, the slot they are in, its place in the step."""

    rows: int
    slot: int
    is_first: bool
    is_last: bool
    flushes: bool


@dataclass(frozen=True)
class Plan:
    """Calls that bring the rows, and phases of calls that learn from them; a phase begins when the last has ended.

    Tasks of a phase have nothing to do with each other, nor has bringing the next rows with any phase from
    ``free_phase`` on. Where it ``joins``, task ``i`` of the next micro-batch's first phase may follow task ``i`` of the
    last phase at once.
    """

    prepare: Sequence[Task]
    phases: Sequence[Sequence[Task]]
    joins: bool

    @property
    def free_phase(self) -> int:
        """The first phase beside which other rows may be brought: none that goes on with the phase before."""
        return 1 if self.joins else 0

    def tasks(self) -> Iterator[Task]:
        """Yield all tasks in an order in which one thread may do them."""
        yield from self.prepare
        for phase in self.phases:
            yield from phase


@dataclass(frozen=True)
class Work:
    """Micro-batches to run one after the other: number ``which[i]`` of ``variants``, and columns of scalars by name."""

    variants: Sequence[Variant]
    which: NDArray[np.int64]
    numbers: Mapping[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(self.which)

    def part(self, start: int, end: int) -> "Work":
        """Return those from ``start`` to before ``end``."""
        return Work(
            self.variants, self.which[start:end], {name: column[start:end] for name, column in self.numbers.items()}
        )


def share(width: int, block: int, count: int) -> tuple[int, int]:
    """Return the first of ``width`` units or rows that is the block's, and the first that is not any more."""
    return width * block // count, width * (block + 1) // count
