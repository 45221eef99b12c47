"""Chaining, or back-to-back products: blocks that make narrow rows go on with the product that begins with these rows.

So the gradient of a last hidden layer needs no launch after that of the few outputs.
"""

from collections.abc import Iterator
from typing import NamedTuple

from mlpd.core.arithmetic.numbers import BYTES
from mlpd.core.cuda.calls import MOST_NUMBERS, NARROW
from mlpd.core.cuda.groups import Group, MatrixProduct, View, conflict, matrix_view
from mlpd.core.devices.arrays import is_row_major
from mlpd.core.plans.ranges import Range

_MOST_COLUMNS = 2048  # of the product: eight a thread, of which each is computed after the other


def chain(groups: list[Group]) -> None:
    """Let groups go on with a product that begins with rows of theirs, if nothing stands between the two."""
    for group in groups.copy():
        if not _is_short_product(group):
            continue
        for before in reversed(groups[: groups.index(group)]):
            if _can_go_on(before, group):
                before.following = group
                groups.remove(group)
                break
            if conflict(before, group):
                break


def _is_short_product(group: Group) -> bool:
    product = group.product
    if product is None or product.op.name != "matmul" or group.rows_whole or group.grid.columns > _MOST_COLUMNS:
        return False
    a = product.op.operands[0]
    return a.shape[1] <= NARROW and is_row_major(a)


def _can_go_on(before: Group, group: Group) -> bool:
    """Whether each block of ``before`` makes all that the same rows of ``group`` wait for."""
    product, first = group.product, before.product
    if product is None or first is None or before.following or not before.rows_whole:
        return False
    a = product.op.operands[0]
    fits = before.grid.rows == group.grid.rows and before.grid.columns == a.shape[1] <= NARROW
    if not fits or matrix_view(a) not in {before.views[place] for place in before.stored}:
        return False
    if before.number_count + group.number_count >= MOST_NUMBERS:
        return False
    return all(
        one.is_apart_from(other)
        for one in _accesses(before, first)
        for other in _accesses(group, product)
        if (one.writes or other.writes) and one.span.meets(other.span)
    )


class _Access(NamedTuple):
    """Memory that a call reads or writes; ``view`` is None where a row of the grid takes all of it."""

    span: Range
    view: View | None
    columns: int
    writes: bool

    def is_apart_from(self, other: "_Access") -> bool:
        """Whether each row of the grid takes the same bytes in both, and no other row's."""
        if self.view is None or other.view is None:
            return False
        own, its = (access.view._replace(kind="", column=0) for access in (self, other) if access.view)
        return own == its and self.has_rows_apart() and other.has_rows_apart()

    def has_rows_apart(self) -> bool:
        """Whether no two rows share a byte."""
        view = self.view
        return view is not None and 0 <= (self.columns - 1) * view.column <= view.row - BYTES[view.kind]


def _accesses(group: Group, product: MatrixProduct) -> Iterator[_Access]:
    a, b = product.op.operands[:2]
    yield _Access(Range.of(a), matrix_view(a), a.shape[1], False)
    yield _Access(Range.of(b), None, 0, False)
    for place in group.loaded | group.stored:
        yield _Access(group.ranges[place], group.views[place], group.grid.columns, place in group.stored)
