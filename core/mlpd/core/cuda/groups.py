"""Groups: calls in the making, of recorded ones that a pass over memory can make together."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from mlpd.core.arithmetic.numbers import BITS
from mlpd.core.codegen.kernels import Ref, Step
from mlpd.core.cuda.calls import Grid, Typed
from mlpd.core.devices.arrays import Array, RowWords, address_of
from mlpd.core.plans.ranges import Range
from mlpd.core.plans.recording import Chosen, NotRecordable, Op, Scalar

_OWN_NUMBERS = 16  # of a source and a grid at most


class View(NamedTuple):
    """An array over a grid: its address, its type, and its strides in bytes; 0 repeats a number.

    ``chosen`` tells views of chosen rows from each other; 0 = all rows.
    """

    address: int
    kind: str
    row: int
    column: int
    chosen: int = 0


@dataclass(frozen=True)
class MatrixProduct:
    """The source ``a @ b`` or, if it ``adds``, what ``out`` holds plus ``scale * a @ b``; see `Op`.

    An option ``tile`` of ``op`` is the tile to make it by.
    """

    op: Op
    target: int


@dataclass(frozen=True)
class Sum:
    """A sum of ``values`` (rows, columns), or of their squares, over rows, in type ``kind``.

    Each ``part_rows`` rows are added up by themselves: the results are (parts, columns).
    """

    name: str
    kind: str
    values: View
    rows: int
    columns: int
    part_rows: int
    target: int = 0


@dataclass(frozen=True)
class Draw:
    """The source that draws random words."""

    words: RowWords
    step: Scalar
    first_row: Scalar
    target: int


@dataclass(eq=False)
class Group:
    """A call in the making; sets hold indices of ``views``.

    ``sources`` is a product, a draw, or sums. ``source_ranges`` is what these read, and whence chosen rows come.
    ``rows_whole`` says whether there are steps that reduce rows or work on one number a row.
    """

    grid: Grid
    sources: list[MatrixProduct | Sum | Draw] = field(default_factory=list)
    source_ranges: list[Range] = field(default_factory=list)
    views: list[View] = field(default_factory=list)
    ranges: list[Range] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)  # bytes that a view has in memory
    chosen: dict[int, Chosen] = field(default_factory=dict)
    constants: list[Typed] = field(default_factory=list)
    scalars: list[Typed] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    loaded: set[int] = field(default_factory=set)
    # When a place was last written and a range read, by the number of the recorded call.
    write_times: dict[int, int] = field(default_factory=dict)
    read_times: list[tuple[int, Range]] = field(default_factory=list)
    stored: set[int] = field(default_factory=set)
    rows_whole: bool = False
    plain: Op | None = None  # a call that is made by the array library, alone
    following: "Group | None" = None  # a product of the rows that it makes, by the blocks that have made them

    def place(self, view: View, span: Range, size: int) -> int:
        """Return the index of ``view``; add it if it is new."""
        if view not in self.views:
            self.views.append(view)
            self.ranges.append(span)
            self.sizes.append(size)
        return self.views.index(view)

    def choose(self, chosen: Chosen, time: int) -> int:
        """Return the index of chosen rows, of which each choice has a view of its own."""
        source, place = chosen.source, len(self.views)
        column = int(source.strides[1]) if source.ndim > 1 and source.shape[1] > 1 else 0
        self.chosen[place] = chosen
        self.read_source(time, *(array for array in (source, chosen.order) if array is not None))
        return self.place(
            View(address_of(source), source.dtype.name, int(source.strides[0]), column, place + 1), Range(0, 0), 0
        )

    @property
    def number_count(self) -> int:
        """At most how many numbers `pack` gives its call."""
        return (
            _OWN_NUMBERS
            + 3 * (len(self.views) + len(self.sources))
            + 2 * len(self.chosen)
            + len(self.constants)
            + len(self.scalars)
        )

    @property
    def product(self) -> MatrixProduct | None:
        """The product that its values are, if they are one."""
        source = self.sources[0] if self.sources else None
        return source if isinstance(source, MatrixProduct) else None

    def read(self, place: int, time: int) -> int:
        """Note that call number ``time`` reads the array with this index."""
        if place not in self.write_times:
            self.loaded.add(place)
            self.read_times.append((time, self.ranges[place]))
        return place

    def read_source(self, time: int, *arrays: Array) -> None:
        """Note that call number ``time`` reads ``arrays``, not number by number."""
        for array in arrays:
            self.source_ranges.append(Range.of(array))
            self.read_times.append((time, self.source_ranges[-1]))

    @property
    def reads(self) -> list[Range]:
        """What it reads in memory."""
        own = [*self.source_ranges, *(self.ranges[place] for place in self.loaded)]
        return own + (self.following.reads if self.following else [])

    @property
    def written_views(self) -> set[View]:
        """The views of what it may write."""
        return {self.views[place] for place in self.write_times}

    @property
    def writes(self) -> list[Range]:
        """What it may write."""
        return [self.ranges[place] for place in self.write_times]

    @property
    def stores(self) -> list[Range]:
        """What it does write."""
        own = [self.ranges[place] for place in self.stored]
        return own + (self.following.stores if self.following else [])

    def go_on(self, group: "Group") -> None:
        """Make the steps of ``group``, too."""
        place = {
            old: self.place(group.views[old], group.ranges[old], group.sizes[old]) for old in range(len(group.views))
        }
        for old in group.loaded:
            if place[old] not in self.write_times:
                self.loaded.add(place[old])
        self.read_times += group.read_times

        def moved(ref: Ref) -> Ref:
            if ref.what == "array":
                return Ref("array", place[ref.number])
            known, others = (
                (self.constants, group.constants) if ref.what == "constant" else (self.scalars, group.scalars)
            )
            return number_in(known, ref.what, others[ref.number])

        for step in group.steps:
            self.steps.append(step._replace(operands=tuple(map(moved, step.operands)), target=place[step.target]))
        self.write_times |= {place[old]: time for old, time in group.write_times.items()}
        self.rows_whole |= group.rows_whole or group.grid != self.grid

    @property
    def crossing(self) -> set[int]:
        """What is written for each element of a row: other steps over the row may read it."""
        return {place for place in self.write_times if self.views[place].column}

    def can_take(self, reads: Sequence[tuple[View, Range]], out: tuple[View, Range]) -> bool:
        """Whether a step may join that reads and writes these: none may touch, of one it has, another's number."""
        for view, span in reads:
            own = self.views.index(view) if view in self.views else None
            if any(span.meets(self.ranges[other]) for other in self.write_times if other != own):
                return False
        own = self.views.index(out[0]) if out[0] in self.views else None
        if any(out[1].meets(span) for other, span in enumerate(self.ranges) if other != own):
            return False
        return not any(out[1].meets(span) for span in self.source_ranges)


def conflict(first: Group, second: Group) -> bool:
    """Return whether the second must wait for the first."""
    pairs = ((first.stores, second.reads), (first.stores, second.stores), (first.reads, second.stores))
    return any(one.meets(other) for some, others in pairs for one in some for other in others)


def view_of(array: Array, shape: tuple[int, ...]) -> View:
    """Return ``array``, broadcast to ``shape``, over the grid of its sizes but for those of 1."""
    before = len(shape) - array.ndim
    strides = [
        0 if axis < before or array.shape[axis - before] == 1 else int(array.strides[axis - before])
        for axis, size in enumerate(shape)
        if size != 1
    ]
    if len(strides) > 2:
        raise NotRecordable(f"arrays of {len(strides)} dimensions can't be compiled")
    return View(address_of(array), array.dtype.name, *[*strides, 0, 0][:2])


def matrix_view(array: Array) -> View:
    """Return a matrix over the grid of both its sizes."""
    strides = [0 if own == 1 else int(stride) for own, stride in zip(array.shape, array.strides, strict=True)]
    return View(address_of(array), array.dtype.name, *strides)


def grid_of(shape: Sequence[int]) -> Grid:
    """Return the grid of a shape, whose sizes of 1 do not count."""
    return Grid(*[*(size for size in shape if size != 1), 1, 1][:2])


def number_in(known: list[Typed], what: str, number: Typed) -> Ref:
    """Return a reference to ``number``, which is added to those ``known`` if it is new."""
    if number not in known:
        known.append(number)
    return Ref(what, known.index(number))


def bits_of(number: float, kind: str) -> int:
    """Return the bits of ``number`` in type ``kind``; integers are truncated."""
    if not kind.startswith("float"):
        return int(number)
    return int(np.dtype(kind).type(number).view(BITS[kind]))
