"""Packing: what is compiled of a group, and the numbers that go with it."""

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any, NamedTuple

from mlpd.core.arithmetic.numbers import BYTES
from mlpd.core.codegen.kernels import Product
from mlpd.core.cuda.calls import (
    LANES,
    NARROW,
    SUM_BYTES,
    ArrayCode,
    Call,
    CallCode,
    DrawCode,
    PassCode,
    ProductCode,
    Source,
    SumCode,
    SumsCode,
    Typed,
    blocks_of,
)
from mlpd.core.cuda.groups import Draw, Group, MatrixProduct, Sum, bits_of
from mlpd.core.cuda.products import UNIT, narrow_tile, tile_for
from mlpd.core.devices.arrays import Array, address_of, is_row_major

_OPERATIONS_A_WORD = 30  # of Philox, roughly; they are integer operations, counted as floating-point ones
_INTEGER = "int64"


def pack(group: Group) -> Call:
    """Return the call of a group that is complete."""
    source, (shape, columns) = _source(group), _shape(group)
    steps = PassCode(
        shape,
        columns,
        tuple(_array_code(group, place) for place in range(len(group.views))),
        tuple(group.steps),
        tuple(sorted(group.stored)),
        tuple(constant.kind for constant in group.constants),
        tuple(scalar.kind for scalar in group.scalars),
    )
    numbers = [*source.numbers, *group.grid]
    for place, view in enumerate(group.views):
        numbers += [view.address, view.row, view.column]
        if chosen := group.chosen.get(place):
            numbers += [0 if chosen.order is None else address_of(chosen.order), Typed(chosen.first, _INTEGER)]
    numbers += [constant.number for constant in group.constants]
    numbers += group.scalars
    own = Call(
        CallCode(source.code, steps),
        tuple(numbers),
        source.blocks,
        source.shared_bytes,
        tuple(group.reads),
        tuple(group.stores),
        group.plain.operations if group.plain else source.operations + prod(group.grid) * len(group.steps),
        group.plain.bytes if group.plain else _bytes_of(group),
        group.plain,
    )
    return _with_following(own, pack(group.following)) if group.following else own


def _with_following(call: Call, following: Call) -> Call:
    """Return a call whose blocks go on with ``following``; it has the ranges of both."""
    return replace(
        call,
        code=replace(call.code, following=following.code),
        numbers=call.numbers + following.numbers,
        operations=call.operations + following.operations,
        bytes=call.bytes + following.bytes,
    )


def _shape(group: Group) -> tuple[str, int]:
    """Return the shape of a group's pass, and its columns where code knows them."""
    if not group.rows_whole:
        return "elements", 0
    return ("narrow", group.grid.columns) if group.grid.columns <= NARROW else ("rows", 0)


def _bytes_of(group: Group) -> int:
    size = sum(group.sizes[place] for place in (*group.loaded, *group.stored))
    if group.chosen:
        return size + sum(prod(group.grid) * chosen.dtype.itemsize for chosen in group.chosen.values())
    return size + sum(span.end - span.start for span in group.source_ranges)


def _array_code(group: Group, place: int) -> ArrayCode:
    view = group.views[place]
    size = BYTES[view.kind]
    columns = "same" if view.column == 0 else "next" if view.column == size else "far"
    chosen = group.chosen.get(place)
    if chosen is None:
        return ArrayCode(view.kind, view.row != 0, columns)
    return ArrayCode(view.kind, True, columns, "consecutive" if chosen.order is None else "listed")


class _Source(NamedTuple):
    code: Source
    numbers: list[Any]
    blocks: int
    shared_bytes: int
    operations: int


def _source(group: Group) -> _Source:
    if not group.sources:
        shape, _ = _shape(group)
        return _Source(None, [], blocks_of(shape, group.grid), 0, 0)
    match group.sources[0]:
        case MatrixProduct() as product:
            return _product(group, product)
        case Draw() as draw:
            words = draw.words
            numbers = [words.seed, Typed(draw.step, _INTEGER), Typed(draw.first_row, _INTEGER)]
            numbers += [words.layer, words.purpose, words.start_row, words.whole, words.first]
            count = prod(group.grid)
            blocks = blocks_of("elements", group.grid)
            return _Source(DrawCode(draw.target), numbers, blocks, 0, _OPERATIONS_A_WORD * count)
        case first:
            sums = [one for one in group.sources if isinstance(one, Sum)]
            return _sums(first, sums, group.grid.rows)


def _sums(first: Sum, sums: Sequence[Sum], count: int) -> _Source:
    numbers: list[Any] = [first.rows, first.columns, first.part_rows]
    for one in sums:
        numbers += [one.values.address, one.values.row, one.values.column]
    along_rows = abs(first.values.row) < abs(first.values.column) or first.columns == 1
    own = tuple(SumCode(one.name, one.values.kind, one.kind, one.target) for one in sums)
    operations = len(sums) * first.rows * first.columns
    return _Source(SumsCode(own, along_rows), numbers, -(-count // LANES), len(sums) * SUM_BYTES, operations)


def _product(group: Group, product: MatrixProduct) -> _Source:
    op = product.op
    (a, b), out, kind = op.operands[:2], op.out, op.out.dtype.name
    a_inner, b_inner = is_row_major(a), not is_row_major(b)
    (rows, inner), columns = a.shape, b.shape[1]
    lines = (a if a_inner else a.T), (b.T if b_inner else b), out
    numbers: list[Any] = []
    for matrix in lines:
        numbers += [address_of(matrix), _line_stride(matrix)]
    adds = op.name == "add_product"
    numbers += [rows, columns, inner, bits_of(op.operands[2], kind) if adds else 0]
    chosen = op.options.get("tile") or tile_for(kind, rows, columns, inner)
    tile = narrow_tile(columns) if group.rows_whole else chosen
    in_units = (a_inner or _is_in_units(lines[0])) and (b_inner or _is_in_units(lines[1]))
    code = ProductCode(Product(kind, a_inner, b_inner, adds), tile, in_units, product.target)
    return _Source(code, numbers, tile.blocks(rows, columns), tile.shared_bytes(inner), op.operations)


def _is_in_units(matrix: Array) -> bool:
    """Whether each line of a row-major matrix can be copied ``UNIT`` bytes at a time."""
    width = UNIT // int(matrix.itemsize)
    return not (address_of(matrix) % UNIT or matrix.shape[1] % width or _line_stride(matrix) % width)


def _line_stride(matrix: Array) -> int:
    """Return how many numbers a line of a row-major matrix is from the next."""
    if len(matrix) == 1:
        return int(matrix.shape[1])
    return int(matrix.strides[0]) // int(matrix.itemsize)
