"""Fusion for CUDA: the calls of a plan become few, each with a source of values and a pass over them.

A recorded call joins the last group that it fits, unless a group between them touches what it touches. Then groups are
merged with the product or the sums whose results they begin with.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numpy as np
from mlpd.core.codegen.kernels import KINDS, Ref, Step
from mlpd.core.cuda.calls import LONGEST_SUM, MOST_NUMBERS, MOST_SUMS, NARROW, PART_ROWS, Grid, Typed
from mlpd.core.cuda.chaining import chain
from mlpd.core.cuda.groups import (
    Draw,
    Group,
    MatrixProduct,
    Sum,
    View,
    bits_of,
    conflict,
    grid_of,
    matrix_view,
    number_in,
    view_of,
)
from mlpd.core.devices.arrays import Array, address_of, is_row_major
from mlpd.core.plans.plan import Task
from mlpd.core.plans.ranges import Range
from mlpd.core.plans.recording import (
    ELEMENTWISE,
    REDUCTIONS,
    Chosen,
    NotRecordable,
    Op,
    Scalar,
    calculation_type,
    compilable,
)

_log = logging.getLogger(__name__)

_STEP_NUMBERS = 16  # at most, that a step adds to a launch: those of three arrays, of which one has chosen rows

Empty = Callable[[tuple[int, ...], Any], Array]  # makes an array (shape, type) of any values


class Fuser:
    """Collects a plan's calls into groups; ``empty`` makes memory for parts of long sums."""

    def __init__(self, empty: Empty, start: int) -> None:
        self.groups: list[Group] = []
        self._time = start
        self.scratch: list[Array] = []
        self._empty = empty

    def add(self, op: Op) -> None:
        """Add the next call; raises `NotRecordable`."""
        self._time += 1
        if 0 in op.out.shape:
            return
        for array in (*op.operands, op.out):
            if hasattr(array, "dtype") and not (array.dtype.name in KINDS and array.dtype.isnative):
                raise NotRecordable(f"numbers of type {array.dtype} can't be compiled")
        if op.name in ELEMENTWISE:
            self._elementwise(op.name, op.operands, op.out, op.options)
        else:
            self._others[op.name](op)

    @property
    def _others(self) -> dict[str, Callable[[Op], None]]:
        """What adds the calls that are not element-wise, by name."""
        reductions = dict.fromkeys(REDUCTIONS, self._reduce)
        products = dict.fromkeys(("matmul", "add_product"), self._product)
        return {
            **reductions,
            **products,
            "draw": self._draw,
            "gather": self._gather,
            "column_sums": lambda op: self._sum("sum", op.operands[1], op.out, 0, op.out.dtype.name),
            "square_sum": lambda op: self._sum(op.name, op.operands[0], op.out, None, op.out.dtype.name),
        }

    def add_plain(self, op: Op) -> None:
        """Add the call that `add` has just refused, to be made by the array library."""
        group = Group(Grid(1, 1), plain=op)
        group.read_source(self._time, *(operand for operand in op.operands if hasattr(operand, "strides")))
        place = group.place(View(0, op.out.dtype.name, 0, 0), Range.of(op.out), int(op.out.nbytes))
        group.write_times[place] = self._time
        self.groups.append(group)

    def _gather(self, op: Op) -> None:
        if not isinstance(op.operands[2], Scalar):
            raise NotRecordable(f"gather can only be compiled of a scalar that a step has, got {op.operands[2]}")
        self._elementwise("copyto", (Chosen(*op.operands),), op.out, {})

    def _find(self, fits: Callable[[Group], bool], reads: Sequence[Range], out: Range, grid: Grid) -> Group:
        """Return the last group that ``fits``, if no later one touches what is touched here; else a new one."""
        for group in reversed(self.groups):
            if fits(group):
                return group
            written = group.writes
            if any(span.meets(out) for span in (*written, *group.reads)) or any(
                own.meets(span) for own in reads for span in written
            ):
                break
        self.groups.append(Group(grid))
        return self.groups[-1]

    def _elementwise(self, name: str, operands: Sequence[Any], out: Array, options: Any) -> None:
        shape, kind = out.shape, calculation_type(operands, out, options)
        operands = compilable(name, operands, kind)
        chosen = [operand for operand in operands if isinstance(operand, Chosen)]
        # A chosen row is a row of its grid, even if it is the only one.
        is_matrix = bool(chosen) and len(shape) == 2
        grid = Grid(*shape) if is_matrix else grid_of(shape)
        arrays = [(view_of(o, shape), Range.of(o)) for o in operands if hasattr(o, "strides")]
        written = matrix_view(out) if is_matrix else view_of(out, shape), Range.of(out)
        for own, span in arrays:
            if span.meets(written[1]) and own != written[0]:
                raise NotRecordable(f"{name} can't be compiled whose output half overlaps what it looks at")
        reads = [span for _, span in arrays]
        reads += [Range.of(a) for c in chosen for a in (c.source, c.order) if a is not None]

        def fits(group: Group) -> bool:
            return _fits(group, grid) and not (chosen and group.sources) and group.can_take(arrays, written)

        group = self._find(fits, reads, written[1], grid)
        if group.grid != grid:
            group.grid, group.rows_whole = Grid(grid.rows, max(grid.columns, group.grid.columns)), True
        refs = []
        for operand in operands:
            if isinstance(operand, Chosen):
                refs.append(Ref("array", group.choose(operand, self._time)))
            elif hasattr(operand, "strides"):
                refs.append(Ref("array", group.read(group.place(*arrays.pop(0), int(operand.nbytes)), self._time)))
            elif isinstance(operand, Scalar):
                refs.append(number_in(group.scalars, "scalar", Typed(operand, kind)))
            else:
                refs.append(number_in(group.constants, "constant", Typed(bits_of(operand, kind), kind)))
        target = group.place(*written, int(out.nbytes))
        group.write_times[target] = self._time
        group.steps.append(Step(name, kind, tuple(refs), target))

    def _reduce(self, op: Op) -> None:
        """Add a reduction: of rows to a pass, of columns or of all numbers as sums."""
        (values,), out, axis = op.operands, op.out, op.options.get("axis")
        kind = np.dtype(op.options.get("dtype") or out.dtype).name
        if op.name == "argmax" and (axis != 1 or out.dtype != np.int64):
            raise NotRecordable("argmax can only be compiled along axis 1, into numbers of type int64")
        if axis is not None and values.shape[axis] == 1:  # each number is its own result, and the first
            operand = 0 if op.name == "argmax" else values.reshape(out.shape)
            self._elementwise("copyto", (operand,), out, {})
        elif axis == 1 and values.ndim == 2:
            self._reduce_rows(op.name, values, out, values.dtype.name if op.name == "argmax" else kind)
        elif op.name == "sum":
            self._sum(op.name, values, out, axis, kind)
        else:
            raise NotRecordable(f"{op.name} can only be compiled along rows")

    def _reduce_rows(self, name: str, values: Array, out: Array, kind: str) -> None:
        grid, column = Grid(*values.shape), out.reshape(-1, 1)
        own = matrix_view(values), Range.of(values)
        result = matrix_view(column), Range.of(out)
        _require_apart(name, result[1], own[1])

        def fits(group: Group) -> bool:
            whole = not group.sources or (grid.columns <= NARROW and group.product is not None)
            return group.grid == grid and whole and _has_room(group) and group.can_take([own], result)

        group = self._find(fits, [own[1]], result[1], grid)
        group.rows_whole = True
        place = group.read(group.place(*own, int(values.nbytes)), self._time)
        target = group.place(*result, int(out.nbytes))
        group.write_times[target] = self._time
        group.steps.append(Step(name, kind, (Ref("array", place),), target, "row"))

    def _sum(self, name: str, values: Array, out: Array, axis: int | None, kind: str) -> None:
        """Add a sum over the rows of ``values``, or of all its numbers; a long one as a sum of parts."""
        if axis is not None and values.shape[axis] == 1:
            self._elementwise("copyto", (values.reshape(out.shape),), out, {})
            return
        if axis is None and values.ndim > 1 and max(values.shape) != values.size:
            if not values.flags.c_contiguous:
                raise NotRecordable(f"{name} of all numbers can't be compiled of an array that is not contiguous")
            values = values.reshape(-1)
        if values.size == max(values.shape, default=1):
            stride = next((int(s) for s, n in zip(values.strides, values.shape, strict=True) if n != 1), 0)
            rows, columns, view = int(values.size), 1, View(address_of(values), values.dtype.name, stride, 0)
        elif axis == 0 and values.ndim == 2:
            (rows, columns), view = values.shape, matrix_view(values)
        else:
            raise NotRecordable(f"{name} can't be compiled along axis {axis} of {values.ndim}")
        if rows > LONGEST_SUM:
            parts = self._empty((-(-rows // PART_ROWS), columns), np.dtype(kind))
            self.scratch.append(parts)
            self._add_sum(Sum(name, kind, view, rows, columns, PART_ROWS), values, parts)
            name, values, rows, view = "sum", parts, len(parts), matrix_view(parts)
        self._add_sum(Sum(name, kind, view, rows, columns, max(rows, 1)), values, out)

    def _add_sum(self, total: Sum, values: Array, out: Array) -> None:
        """Add a sum to a group with sums over as many rows, or to a new one."""
        flat = out.reshape(-1)
        parts = max(1, -(-total.rows // total.part_rows))
        grid, own = Grid(total.columns * parts, 1), (total.values, Range.of(values))
        result = view_of(flat, flat.shape), Range.of(flat)
        _require_apart(total.name, result[1], own[1])

        def fits(group: Group) -> bool:
            first = group.sources[0] if group.sources else None
            alike = isinstance(first, Sum) and (first.rows, first.part_rows) == (total.rows, total.part_rows)
            fits = alike and group.grid == grid and not group.steps and len(group.sources) < MOST_SUMS
            if any(span.meets(own[1]) for span in group.writes):  # even a number that is its own sum
                return False
            return fits and group.can_take([own], result)

        group = self._find(fits, [own[1]], result[1], grid)
        target = group.place(*result, int(flat.nbytes))
        group.sources.append(replace(total, target=target))
        group.read_source(self._time, values)
        group.write_times[target] = self._time

    def _product(self, op: Op) -> None:
        a, b = op.operands[:2]
        if {a.dtype, b.dtype} != {op.out.dtype}:
            raise NotRecordable(f"a product can't be compiled of {a.dtype} and {b.dtype} into {op.out.dtype}")
        if not a.shape[1]:
            raise NotRecordable("a product of nothing can't be compiled")
        if not is_row_major(op.out) or not all(is_row_major(m) or is_row_major(m.T) for m in (a, b)):
            raise NotRecordable(f"a product of matrices with strides {a.strides} and {b.strides} can't be compiled")
        _require_apart("a product", Range.of(op.out), Range.of(a), Range.of(b))
        group = Group(Grid(*op.out.shape))
        self.groups.append(group)
        target = group.place(matrix_view(op.out), Range.of(op.out), int(op.out.nbytes))
        group.sources.append(MatrixProduct(op, target))
        group.read_source(self._time, a, b)
        group.write_times[target] = self._time
        if op.name == "add_product":
            group.loaded.add(target)
            group.read_times.append((self._time, group.ranges[target]))

    def _draw(self, op: Op) -> None:
        words, step, first_row = op.operands
        if not (isinstance(step, Scalar) and isinstance(first_row, Scalar)):
            raise NotRecordable(f"draw can only be compiled of scalars that a step has, got {step}, {first_row}")
        group = Group(Grid(*op.out.shape))
        self.groups.append(group)
        target = group.place(matrix_view(op.out), Range.of(op.out), int(op.out.nbytes))
        group.sources.append(Draw(words, step, first_row, target))
        group.write_times[target] = self._time


def _fits(group: Group, grid: Grid) -> bool:
    """Whether steps over ``grid`` may join: it is the group's, or one of them has a number for each of its rows."""
    own = group.grid
    if not _has_room(group):
        return False
    if grid == own:
        return True
    if grid.rows != own.rows or 1 not in (grid.columns, own.columns):
        return False
    narrow = max(grid.columns, own.columns) <= NARROW
    if grid.columns > 1:
        return narrow and not group.sources
    return (narrow and (not group.sources or group.product is not None)) or group.rows_whole


def _has_room(group: Group, numbers: int = _STEP_NUMBERS) -> bool:
    """Whether a launch could take ``numbers`` more beside those of the group; a plain call takes none."""
    return not group.plain and group.number_count + numbers < MOST_NUMBERS


def _require_apart(name: str, out: Range, *reads: Range) -> None:
    """Raise `NotRecordable` if a call that takes many numbers for one would overwrite some of them."""
    if any(span.meets(out) for span in reads):
        raise NotRecordable(f"{name} can't be compiled whose output overlaps what it looks at")


def fuse(tasks: Sequence[Task], kept: Sequence[Array], empty: Empty) -> tuple[list[list[Group]], list[Array]]:
    """Return the groups of each task's calls, and memory that they need for themselves.

    A group stores an array that another group reads or that is ``kept``; others stay in registers.
    """
    starts = [0, *accumulate(map(len, tasks))]
    fusers = [Fuser(empty, start) for start in starts[:-1]]
    for fuser, task in zip(fusers, tasks, strict=True):
        for op in task:
            try:
                fuser.add(op)
            except NotRecordable as error:
                _log.warning("%s is called as it is, because %s", op.name, error)
                fuser.add_plain(op)
    lasting = [Range.of(array) for array in kept]
    own = [fuser.groups for fuser in fusers]
    _settle(own, lasting)
    for groups in own:
        for group in groups.copy():
            if _merge(groups, group):
                _settle(own, lasting)
    for groups in own:
        chain(groups)
    return own, [array for fuser in fusers for array in fuser.scratch]


def _settle(tasks: Sequence[Sequence[Group]], kept: Sequence[Range]) -> None:
    """Choose what each group stores: what others read later, what is kept, and what a warp itself needs again.

    The parts of a long sum are read at the time at which they are written, for they are of one call.
    """
    every = [group for groups in tasks for group in groups]
    reads = [(time, span, group) for group in every for time, span in group.read_times]
    for group in every:
        lasting = set(group.write_times) if group.plain else set[int]()
        lasting |= group.crossing if group.rows_whole and group.grid.columns > NARROW else set()
        for place, written in group.write_times.items():
            own = group.ranges[place]
            if any(own.meets(span) for span in kept) or any(
                time >= written and reader is not group and own.meets(span) for time, span, reader in reads
            ):
                lasting.add(place)
        group.stored = lasting


def _merge(groups: list[Group], group: Group) -> bool:
    """Let the group whose results ``group`` begins with go on with its steps, if nothing stands between the two."""
    if group.sources or group.chosen or group.plain:
        return False
    place = groups.index(group)
    for number in range(place - 1, -1, -1):
        before = groups[number]
        gives = before.written_views & {group.views[own] for own in group.loaded}
        if gives and before.sources and _can_go_on(before, group, groups[number + 1 : place]):
            before.go_on(group)
            groups.remove(group)
            return True
        if conflict(before, group):
            return False
    return False


def _can_go_on(before: Group, group: Group, between: Sequence[Group]) -> bool:
    """Whether ``before`` can make the steps of ``group``, although groups ``between`` come later then."""
    if not _has_room(before, group.number_count):
        return False
    whole = group.rows_whole and not (
        before.product is not None and before.grid == group.grid and group.grid.columns <= NARROW
    )
    if whole or not _fits(before, group.grid):
        return False
    # Those must still find what is overwritten, even if nobody wants to know by what.
    changed = [before.ranges[place] for place in before.stored if before.views[place] in group.written_views]
    if any(own.meets(span) for own in changed for one in between for span in one.reads):
        return False
    reads = [(group.views[place], group.ranges[place]) for place in group.loaded]
    return all(before.can_take(reads, (group.views[place], group.ranges[place])) for place in group.stored)
