"""Fusion: consecutive calls of a task become one kernel if one pass over memory can make them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from mlpd.core.codegen.kernels import KINDS, ArgMax, ArrayOperand, Call, Draw, Kernel, Product, Ref, Step
from mlpd.core.devices.arrays import HostArray, is_row_major
from mlpd.core.plans.plan import Task
from mlpd.core.plans.ranges import Range
from mlpd.core.plans.recording import ELEMENTWISE, Chosen, NotRecordable, Op, Scalar, calculation_type, compilable

# A product of at most so many rows does not copy a second factor of at least so many bytes: that was faster.
_FEW_ROWS, _LARGE_BYTES = 48, 2**19
_OPERATIONS_A_WORD = 30  # of Philox, roughly; they are integer operations, counted as floating-point ones


class _View(NamedTuple):
    """An array over a grid: its address, its type, and its strides in bytes along both loops; 0 repeats a number."""

    address: int
    kind: str
    outer: int
    inner: int


class _Grid(NamedTuple):
    outer: int
    inner: int
    axes: tuple[int, ...]  # of arrays: outer, then inner; an axis of size 1 is left out

    def view(self, array: HostArray) -> _View:
        strides = [array.strides[axis] for axis in self.axes]
        outer, inner = [0, 0, *strides][-2:]
        return _View(array.ctypes.data, array.dtype.name, outer if self.outer > 1 else 0, inner)


def _grid(array: HostArray) -> _Grid:
    axes = [axis for axis, size in enumerate(array.shape) if size != 1]
    if len(axes) > 2:
        raise NotRecordable(f"arrays of {len(axes)} dimensions can't be compiled")
    if len(axes) == 2 and array.strides[axes[0]] < array.strides[axes[1]]:
        axes.reverse()
    sizes = [1, 1] + [array.shape[axis] for axis in axes]
    return _Grid(sizes[-2], sizes[-1], tuple(axes))


@dataclass
class _Group:
    """The calls of one pass over a grid; the sets hold indices of ``arrays``."""

    grid: _Grid
    shape: tuple[int, ...]
    views: list[_View] = field(default_factory=list)
    arrays: list[HostArray] = field(default_factory=list)
    ranges: list[Range] = field(default_factory=list)  # of the arrays; asking NumPy for an address is slow
    chosen: dict[int, Chosen] = field(default_factory=dict)
    constants: list[float] = field(default_factory=list)
    scalars: list[Scalar] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    loaded: set[int] = field(default_factory=set)
    written: set[int] = field(default_factory=set)
    reduced: set[int] = field(default_factory=set)

    def place(self, array: HostArray) -> int:
        """Return the index of ``array``, which has the shape of the grid; add it if it is new."""
        view = self.grid.view(array)
        if view not in self.views:
            self.add(view, array)
        return self.views.index(view)

    def add(self, view: _View, array: HostArray) -> None:
        """Add an array that has no equal view here."""
        self.views.append(view)
        self.arrays.append(array)
        self.ranges.append(Range.of(array))

    def find(self, array: HostArray) -> int | None:
        """Return the index of ``array``; None if it is not here."""
        view = self.grid.view(array)
        return self.views.index(view) if view in self.views else None

    def accepts(self, reads: Sequence[HostArray], out: HostArray, *, reduces: bool) -> bool:
        """Return whether a call may join the pass.

        It must not touch the result of a reduction, which only the whole pass completes, and no array that is written
        may overlap another in part. A call that ``reduces`` must write to an array that is new here.
        """
        ranges = self.ranges
        for array in reads:
            place, own = self.find(array), Range.of(array)
            if place in self.reduced:
                return False
            if any(own.meets(ranges[other]) for other in self.written if other != place):
                return False
        place, own = self.find(out), Range.of(out)
        if place in self.reduced or (reduces and place is not None):
            return False
        return not any(own.meets(one) for other, one in enumerate(ranges) if other != place)


class Fuser:
    """Collects a task's calls into passes."""

    def __init__(self) -> None:
        self._groups: list[_Group | Call] = []

    def add(self, op: Op) -> None:
        """Add the next call to the last pass or to a new one; raises `NotRecordable`."""
        if 0 in op.out.shape:
            return
        for array in (*op.operands, op.out):
            if isinstance(array, np.ndarray) and not (array.dtype.name in KINDS and array.dtype.isnative):
                raise NotRecordable(f"numbers of type {array.dtype} can't be compiled")
        if op.name in _ALONE:
            self._groups.append(_ALONE[op.name](op))
        elif op.name == "gather":
            _require_scalars(op.name, op.operands[2])
            self._elementwise("copyto", (Chosen(*op.operands),), op.out, {})
        elif op.name in ELEMENTWISE:
            self._elementwise(op.name, op.operands, op.out, op.options)
        elif op.name == "column_sums":
            self._reduce("sum", op.operands[1], op.out, 0, None)
        else:
            self._reduce(op.name, op.operands[0], op.out, op.options.get("axis"), op.options.get("dtype"))

    def _group(self, space: HostArray, reads: Sequence[HostArray], out: HostArray, *, reduces: bool) -> _Group:
        grid = _grid(space)
        last = self._groups[-1] if self._groups else None
        if isinstance(last, _Group) and last.shape == space.shape and last.accepts(reads, out, reduces=reduces):
            return last
        group = _Group(grid, space.shape)
        self._groups.append(group)
        return group

    def _elementwise(self, name: str, operands: Sequence[Any], out: HostArray, options: Any) -> None:
        arrays = [operand for operand in operands if isinstance(operand, np.ndarray)]
        kind = calculation_type(operands, out, options)
        operands = compilable(name, operands, kind)
        reads = [np.broadcast_to(array, out.shape) for array in arrays]
        for array in reads:
            if Range.of(array).meets(Range.of(out)) and _grid(out).view(array) != _grid(out).view(out):
                raise NotRecordable(f"{name} can't be compiled whose output half overlaps what it looks at")
        group = self._group(out, reads, out, reduces=False)
        refs = []
        for operand in operands:
            if isinstance(operand, np.ndarray):
                place = group.place(np.broadcast_to(operand, out.shape))
                if place not in group.written:
                    group.loaded.add(place)
                refs.append(Ref("array", place))
            elif isinstance(operand, Chosen):
                refs.append(Ref("array", _choose(group, operand)))
            elif isinstance(operand, Scalar):
                refs.append(_number(group.scalars, "scalar", operand))
            else:
                refs.append(_constant(group, float(operand)))
        target = group.place(out)
        group.written.add(target)
        group.steps.append(Step(name, kind, tuple(refs), target))

    def _reduce(self, name: str, values: HostArray, out: HostArray, axis: int | None, dtype: Any) -> None:
        kind = np.dtype(dtype or out.dtype).name
        if axis is None:
            if not values.flags.forc:
                raise NotRecordable(f"{name} of all numbers can't be compiled of an array that is not contiguous")
            values = values.reshape(1, -1) if values.flags.c_contiguous else values.T.reshape(1, -1)
            axis = 1
        result = out.reshape([1 if i == axis else size for i, size in enumerate(values.shape)])
        if not np.may_share_memory(result, out):
            raise NotRecordable(f"{name} can't be compiled into an array of shape {out.shape} that is not contiguous")
        spread = np.broadcast_to(result, values.shape)
        group = self._group(values, [values], spread, reduces=True)
        place = group.place(values)
        if place not in group.written:
            group.loaded.add(place)
        target = group.place(spread)
        group.written.add(target)
        group.reduced.add(target)
        axes = group.grid.axes
        outer = len(axes) == 2 and axes[0] == axis
        if outer and not values.shape[axis]:
            raise NotRecordable(f"{name} of nothing can't be compiled along axis {axis}")
        along = "outer" if outer and group.grid.outer > 1 else "inner"
        if values.shape[axis] == 1:  # nothing to add up: each number is its own result
            along = "outer"
        group.steps.append(Step(name, kind, (Ref("array", place),), target, along))

    def passes(self) -> list["_Group | Call"]:
        """Return the passes, and the calls that have a kernel to themselves."""
        return self._groups


def reads_of(group: "_Group | Call") -> list[HostArray]:
    """Return the arrays that a pass reads."""
    if isinstance(group, Call):
        return list(group.reads)
    return [*(group.arrays[i] for i in group.loaded), *(chosen.source for chosen in group.chosen.values())]


def fuse(tasks: Sequence[Task], kept: Sequence[HostArray]) -> list[list[Call]]:
    """Return the calls of kernels that each task becomes.

    A pass stores an array that another pass reads, that is ``kept``, or that a reduction fills; others stay in
    registers.
    """
    passes: list[list[_Group | Call]] = []
    for task in tasks:
        fuser = Fuser()
        for op in task:
            fuser.add(op)
        passes.append(fuser.passes())
    everyone = [(Range.of(array), id(group)) for own in passes for group in own for array in reads_of(group)]
    everyone += [(Range.of(array), 0) for array in kept]
    starts, ends, readers = (
        np.array(column, np.int64)
        for column in ([r.start for r, _ in everyone], [r.end for r, _ in everyone], [reader for _, reader in everyone])
    )

    def finished(group: _Group | Call) -> Call:
        if isinstance(group, Call):
            return group
        stored = []
        for place in sorted(group.written):
            own = group.ranges[place]
            if place in group.reduced or ((starts < own.end) & (ends > own.start) & (readers != id(group))).any():
                stored.append(place)
        return _call(group, stored)

    return [[finished(group) for group in own] for own in passes]


def _choose(group: _Group, chosen: Chosen) -> int:
    place = len(group.views)
    # Its view must equal no other, because two orders may choose from one source.
    group.add(_View(chosen.source.ctypes.data, chosen.source.dtype.name, 0, -1 - place), chosen.source[:0])
    group.chosen[place] = chosen
    return place


def _number(known: list[Any], what: str, number: Any) -> Ref:
    if number not in known:
        known.append(number)
    return Ref(what, known.index(number))


def _constant(group: _Group, number: float) -> Ref:
    # By their bits, because -0.0 == 0.0.
    for index, known in enumerate(group.constants):
        if np.float64(known).tobytes() == np.float64(number).tobytes():
            return Ref("constant", index)
    group.constants.append(number)
    return Ref("constant", len(group.constants) - 1)


def _call(group: _Group, stored: list[int]) -> Call:
    grid = group.grid
    outer, inner = grid.outer, grid.inner
    views = group.views
    flat = not group.chosen and not group.reduced and outer > 1
    if flat and all(view.outer == inner * view.inner for view in views):
        outer, inner = 1, outer * inner
        views = [view._replace(outer=0) for view in views]
    operands: list[ArrayOperand] = []
    arguments: list[Any] = [outer, inner]
    for place, view in enumerate(views):
        if chosen := group.chosen.get(place):
            operands.append(_chosen_operand(group, chosen))
            source, order, first = chosen.source, chosen.order, chosen.first
            width = source.strides[-1] if source.ndim > 1 and source.shape[1] > 1 else 0
            arguments += [view.address, source.strides[0], width, 0 if order is None else order.ctypes.data, first]
            continue
        size = np.dtype(view.kind).itemsize
        lies = "same" if view.inner == 0 else "next" if view.inner == size else "far"
        if inner == 1 and not any(step.target == place and step.along == "inner" for step in group.steps):
            lies = "next"
        operands.append(ArrayOperand(view.kind, lies))
        arguments += [view.address, view.outer, view.inner]
    kernel = Kernel(tuple(operands), tuple(group.steps), tuple(stored))
    arguments += [*map(float, group.constants), *group.scalars]
    chosen_rows = [chosen.source[: group.shape[0]] for chosen in group.chosen.values()]
    reads = tuple([group.arrays[i] for i in group.loaded] + chosen_rows)
    return Call(
        kernel, tuple(arguments), reads, tuple(group.arrays[i] for i in stored), outer * inner * len(group.steps)
    )


def _chosen_operand(group: _Group, chosen: Chosen) -> ArrayOperand:
    rows_first = bool(group.grid.axes) and group.grid.axes[0] == 0 and len(group.grid.axes) == 2
    along = "outer" if rows_first else "inner"
    if len(group.grid.axes) < 2 and group.shape[0] == 1:  # one row of many values
        along = "outer"
    contiguous = chosen.source.ndim > 1 and chosen.source.strides[-1] == chosen.source.itemsize
    lies = "next" if contiguous and along == "outer" else "far"
    return ArrayOperand(chosen.source.dtype.name, lies, along, chosen.order is not None)


def _product(op: Op) -> Call:
    """Return the call of a product, transposed if its output is column-major: kernels write row-major ones."""
    (a, b), out, adds = op.operands[:2], op.out, op.name == "add_product"
    reads = (a, b, out) if adds else (a, b)
    if {a.dtype, b.dtype} != {out.dtype}:
        raise NotRecordable(f"a product can't be compiled of {a.dtype} and {b.dtype} into {out.dtype}")
    if not is_row_major(out):
        a, b, out = b.T, a.T, out.T
    (rows, inner), columns = a.shape, b.shape[1]
    a_inner, b_inner = is_row_major(a), not is_row_major(b)
    lines = (a if a_inner else a.T), (b.T if b_inner else b), out
    if not inner:
        raise NotRecordable("a product of nothing can't be compiled")
    if not all(map(is_row_major, lines)):
        raise NotRecordable(f"a product of matrices with strides {a.strides} and {b.strides} can't be compiled")
    places = [number for matrix in lines for number in (matrix.ctypes.data, matrix.strides[0])]
    in_place = not b_inner and rows <= _FEW_ROWS and b.nbytes >= _LARGE_BYTES
    kernel = Product(out.dtype.name, a_inner, b_inner, adds, in_place)
    return Call(kernel, (rows, columns, inner, *places, *op.operands[2:]), reads, (op.out,), op.operations)


def _require_scalars(name: str, *operands: Any) -> None:
    if not all(isinstance(operand, Scalar) for operand in operands):
        raise NotRecordable(f"{name} can only be compiled of scalars that a step has, got {operands}")


def _draw(op: Op) -> Call:
    words, step, first_row = op.operands
    _require_scalars(op.name, step, first_row)
    of_layer = words.layer, words.purpose, words.start_row, words.whole, words.first
    arguments = (*op.out.shape, op.out.ctypes.data, op.out.strides[0], words.seed, step, first_row, *of_layer)
    return Call(Draw(), arguments, (), (op.out,), _OPERATIONS_A_WORD * op.out.size)


def _argmax(op: Op) -> Call:
    (values,), out = op.operands, op.out
    if op.options.get("axis") != 1 or out.dtype != np.int64 or not out.flags.c_contiguous:
        raise NotRecordable("argmax can only be compiled along axis 1, into contiguous numbers of type int64")
    if len(values) > 1 and values.strides[0] != values.itemsize:
        raise NotRecordable("argmax can't be compiled along rows that are contiguous")
    arguments = (values.shape[1], len(values), values.ctypes.data, values.strides[1], 0, out.ctypes.data, 0, 0)
    return Call(ArgMax(values.dtype.name), arguments, (values,), (out,), values.size)


# Calls that have a kernel to themselves.
_ALONE: dict[str, Callable[[Op], Call]] = {
    "matmul": _product,
    "add_product": _product,
    "draw": _draw,
    "argmax": _argmax,
}
