"""Rows of a table held out: of each class in proportion, and none that only they would have something of."""

from dataclasses import replace

import numpy as np
from mlpd.client.errors import InvalidRequest
from mlpd.client.tables.table import LabelledTable
from numpy.typing import NDArray


def split_table(table: LabelledTable, fraction: float, seed: int = 0) -> tuple[LabelledTable, LabelledTable]:
    """Return the rows to train on and the ``fraction`` of rows held out, both in the table's order.

    A class keeps a row to train on, and so does a column that lacks values: those it lacks must be learnt of. Raises
    `InvalidRequest` where that leaves no row on one side.
    """
    row_count = len(table.inputs)
    noise = np.random.Philox(key=seed).random_raw(row_count)
    groups = np.zeros(row_count, np.int64) if table.labels is None else table.labels.astype(np.int64)
    order = np.lexsort((noise, groups))
    starts = np.flatnonzero(np.diff(groups[order], prepend=groups[order][:1] - 1))
    is_held_out = np.zeros(row_count, bool)
    for own in np.split(order, starts[1:]):
        is_held_out[own[: min(round(fraction * len(own)), len(own) - 1)]] = True
    for values in _columns_that_lack(table):
        missing = np.flatnonzero(np.isnan(values))
        if is_held_out[missing].all():
            is_held_out[missing[0]] = False
    if not is_held_out.any() or is_held_out.all():
        rule = f"leave rows on both sides, got {int(is_held_out.sum())} of {row_count} held out"
        raise InvalidRequest(f"test_fraction must {rule}; with 0 all rows are trained on")
    return _rows(table, ~is_held_out), _rows(table, is_held_out)


def _columns_that_lack(table: LabelledTable) -> list[NDArray[np.generic]]:
    if table.inputs.dtype.kind != "f" or table.inputs.ndim != 2:
        return []
    return [values for values in table.inputs.T if np.isnan(values).any()]


def _rows(table: LabelledTable, chosen: NDArray[np.bool_]) -> LabelledTable:
    labels, targets, weights = (
        None if values is None else values[chosen] for values in (table.labels, table.targets, table.weights)
    )
    return replace(table, inputs=table.inputs[chosen], labels=labels, targets=targets, weights=weights)
