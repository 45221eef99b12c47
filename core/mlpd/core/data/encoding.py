"""Rows of a table as what a network sees: one value a category, and missing numbers filled in, each with a mark.

A number, a boolean or a date is one value, the median of the training rows where it is missing. A category is as many
values, of which the one at its place is 1; all are 0 where it is missing or unknown. A column that lacks values in some
of the data has one value more, the mark, which is 1 where the value is missing.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from mlpd.core.data.columns import CATEGORY, Column, Fault, Schema, value_fault
from mlpd.core.devices.arrays import HostArray
from numpy.typing import NDArray

_BLOCK_VALUES = 2**22


class Encoder:
    """Encodes rows (rows, columns) of a model's ``columns`` as (rows, width). Threads may share one."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self.columns = tuple(columns)
        self._starts = np.concatenate([[0], np.cumsum([column.width for column in columns])]).tolist()
        self.width: int = self._starts[-1]

    def __call__(self, rows: HostArray) -> HostArray:
        """Return ``rows`` encoded: float32 where that holds all values of their type, else float64."""
        encoded = np.zeros((len(rows), self.width), np.result_type(rows.dtype, np.float32))
        self.encode(rows, encoded)
        return encoded

    def encode(self, rows: HostArray, out: HostArray) -> None:
        """Write ``rows`` encoded to ``out`` (rows, width), all zeros before."""
        for place, (column, start) in enumerate(zip(self.columns, self._starts, strict=False)):
            values = rows[:, place]
            if column.kind == CATEGORY:
                known = np.flatnonzero(values >= 0)
                out[known, start + values[known].astype(np.intp)] = 1
            else:
                out[:, start] = values
            missing = np.flatnonzero(np.isnan(values))
            if column.marks_missing:
                out[missing, start + (len(column.categories) or 1)] = 1
            if column.missing_value is not None:
                out[missing, start] = column.missing_value

    def fault(self, rows: HostArray) -> Fault | None:
        """Return the first value of ``rows`` that its column can't have; None if there is none."""
        found = (value_fault(column, rows[:, place], unknown=True) for place, column in enumerate(self.columns))
        return next(filter(None, found), None)


def learned_columns(
    columns: Sequence[Column], inputs: HostArray, chosen: NDArray[np.int64] | None
) -> tuple[Column, ...]:
    """Return ``columns`` as those of a model that is trained on the ``chosen`` rows of ``inputs``, None = on all.

    A mark goes to each column that lacks a value in any row, chosen or not. A column without any has the median 0.
    """
    count = len(inputs) if chosen is None else len(chosen)
    step, learned = max(1, _BLOCK_VALUES // max(count, 1)), []
    lacks = _lacks_values(inputs)
    for start in range(0, len(columns), step):
        some = inputs[:, start : start + step]
        values = (some if chosen is None else some[chosen]).astype(np.float64)
        for place, column in enumerate(columns[start : start + step], start):
            own = values[:, place - start]
            own = own[~np.isnan(own)] if lacks[place] else own
            median = None if column.kind == CATEGORY else float(np.median(own)) if len(own) else 0.0
            learned.append(replace(column, missing_value=median, marks_missing=bool(lacks[place])))
    return tuple(learned)


def takes_encoding(schema: Schema, inputs: HostArray) -> bool:
    """Return whether a network can't take ``inputs`` of a model's ``schema`` as they are."""
    return not schema.is_plain or (bool(schema.columns) and bool(_lacks_values(inputs).any()))


def encoded(encoder: Encoder, inputs: HostArray) -> HostArray:
    """Return all of ``inputs`` encoded, made in blocks."""
    rows = max(1, _BLOCK_VALUES // encoder.width)
    whole = np.zeros((len(inputs), encoder.width), np.result_type(inputs.dtype, np.float32))
    for start in range(0, len(inputs), rows):
        encoder.encode(inputs[start : start + rows], whole[start : start + rows])
    return whole


def _lacks_values(inputs: HostArray) -> NDArray[np.bool_]:
    """Return which columns lack a value in any row."""
    if inputs.dtype.kind != "f":
        return np.zeros(inputs.shape[1], bool)
    rows, lacks = max(1, _BLOCK_VALUES // inputs.shape[1]), np.zeros(inputs.shape[1], bool)
    for start in range(0, len(inputs), rows):
        lacks |= np.isnan(inputs[start : start + rows]).any(axis=0)
    return lacks
