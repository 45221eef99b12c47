"""Calls: what a few blocks of a launch do, as a value without sizes or addresses, and the numbers that go with it.

A call has a source of values, one of those below or none, and a pass: steps over a grid of (rows, columns) that begin
with these values and with arrays in memory. Its code is compiled once for networks of all sizes.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

from mlpd.core.codegen.kernels import Product, Step
from mlpd.core.cuda.products import THREADS, Tile
from mlpd.core.plans.ranges import Range
from mlpd.core.plans.recording import Op

LANES = 16  # that add up a sum over rows
NARROW = 16  # columns of a grid whose rows a thread takes whole
ROWS_A_BLOCK = {"narrow": 64, "rows": 8}
PART_ROWS = 2048  # sums over more than `LONGEST_SUM` rows are made of parts of so many
LONGEST_SUM = 8192
SUM_BYTES = 8 * THREADS  # of shared memory
MOST_NUMBERS = 500  # that a launch takes by value: of 4,096 bytes, some are left for the rest
MOST_SUMS = 24  # of a call: any kernel may have 48 KiB of shared memory


class Typed(NamedTuple):
    """The bits of a constant, or a scalar of a micro-batch, and the type in which a step takes it."""

    number: Any
    kind: str


class Grid(NamedTuple):
    """Rows and columns of a pass; vectors have one column."""

    rows: int
    columns: int


class ArrayCode(NamedTuple):
    """An array as code sees it: its type, and whether it ``moves`` from row to row.

    ``columns`` says how it lies along a row: "same" (one number), "next" to each other, or "far" apart. Rows may be
    ``chosen``: "listed" by an order or "consecutive", from a place on that a scalar gives.
    """

    kind: str
    moves: bool
    columns: str
    chosen: str = ""


@dataclass(frozen=True)
class PassCode:
    """Steps over a grid; arrays with indices in ``stored`` are written to memory.

    ``shape`` says which thread does what: "elements", one element each; "narrow", a row of ``columns`` each; "rows", a
    warp each. Numbers that a step takes are given in the type in which it computes: ``constants`` and ``scalars`` name
    these types.
    """

    shape: str
    columns: int
    arrays: tuple[ArrayCode, ...]
    steps: tuple[Step, ...]
    stored: tuple[int, ...]
    constants: tuple[str, ...]
    scalars: tuple[str, ...]


@dataclass(frozen=True)
class ProductCode:
    """A product, computed by a kind of ``tile``: the values of array ``target``.

    ``in_units`` says how its matrices are copied, see `products.call`.
    """

    product: Product
    tile: Tile
    in_units: bool
    target: int


class SumCode(NamedTuple):
    """A sum over rows of numbers of type ``kind``, computed in type ``total_kind``: the values of array ``target``."""

    name: str
    kind: str
    total_kind: str
    target: int


@dataclass(frozen=True)
class SumsCode:
    """Sums over the same rows; ``along_rows`` if numbers of a column are next to each other in memory."""

    sums: tuple[SumCode, ...]
    along_rows: bool


@dataclass(frozen=True)
class DrawCode:
    """Random words, as `Device.draw` gives them: the values of array ``target``."""

    target: int


Source = ProductCode | SumsCode | DrawCode | None


@dataclass(frozen=True)
class CallCode:
    """What is compiled: a source and a pass; ``following`` is a product of the rows that a block has made by then."""

    source: Source
    steps: PassCode
    following: "CallCode | None" = None

    @property
    def name(self) -> str:
        """The names of what it does."""
        match self.source:
            case ProductCode():
                own = ["product"]
            case SumsCode(sums=sums):
                own = [one.name for one in sums]
            case DrawCode():
                own = ["draw"]
            case _:
                own = []
        following = [self.following.name] if self.following else []
        return " ".join(own + [step.name for step in self.steps.steps] + following)


@dataclass(frozen=True, eq=False)
class Call:
    """A call's code, and its ``numbers``: integers, floats with their type, and scalars with theirs.

    It takes ``blocks`` blocks with ``shared_bytes`` each, reads and writes ranges of memory, ``bytes`` in all, and
    makes so many floating-point ``operations``.
    """

    code: CallCode
    numbers: tuple[Any, ...]
    blocks: int
    shared_bytes: int
    reads: tuple[Range, ...]
    writes: tuple[Range, ...]
    operations: int
    bytes: int
    plain: Op | None = None  # a call of the array library, for which there is no code

    def meets(self, other: "Call") -> bool:
        """Whether one of the two must wait for the other: it reads or writes what the other writes."""
        return _meet(self.writes, other.reads) or _meet(self.writes, other.writes) or _meet(self.reads, other.writes)


def _meet(some: tuple[Range, ...], others: tuple[Range, ...]) -> bool:
    return any(one.meets(other) for one in some for other in others)


def blocks_of(shape: str, grid: Grid) -> int:
    """Return how many blocks a pass of this shape takes that has no source."""
    count, each = (grid.rows, ROWS_A_BLOCK[shape]) if shape in ROWS_A_BLOCK else (grid.rows * grid.columns, THREADS)
    return -(-count // each)
