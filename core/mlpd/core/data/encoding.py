"""Rows of a table as what a network sees: one value a category, and missing numbers filled in, each with a mark.

A number, a boolean or a date is one value. A category is as many values, of which the one at its place is 1; all are 0
where it is unknown. A column that lacks values in some training rows has one value more, which is 1 where the value is
missing; a number counts as the median of the training rows then.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from mlpd.core.data.columns import CATEGORY, Column, Fault, value_fault
from mlpd.core.devices.arrays import HostArray
from numpy.typing import NDArray

_BLOCK_VALUES = 2**22


class Encoder:
    """Encodes rows (rows, columns) of a model's ``columns`` as (rows, width). Threads may share one."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self.columns = tuple(columns)
        widths = [column.width(lacks_values=column.missing_value is not None) for column in columns]
        self._starts = np.concatenate([[0], np.cumsum(widths)]).tolist()
        self.width: int = self._starts[-1]

    def __call__(self, rows: HostArray) -> HostArray:
        """Return ``rows`` encoded: float32 where that holds all values of their type, else float64."""
        encoded = np.zeros((len(rows), self.width), np.result_type(rows.dtype, np.float32))
        self.encode(rows, encoded)
        return encoded

    def encode(self, rows: HostArray, out: HostArray) -> None:
        """Write ``rows`` encoded to ``out`` (rows, width), all zeros before."""
        every = np.arange(len(rows))
        for place, (column, start) in enumerate(zip(self.columns, self._starts, strict=False)):
            values = rows[:, place]
            if column.kind == CATEGORY:
                known = np.flatnonzero(values >= 0)
                out[known, start + values[known].astype(np.intp)] = 1
            else:
                out[:, start] = values
            if column.missing_value is not None:
                missing = every[np.isnan(values)]
                out[missing, start + (len(column.categories) or 1)] = 1
                if column.kind != CATEGORY:
                    out[missing, start] = column.missing_value

    def fault(self, rows: HostArray) -> Fault | None:
        """Return the first value of ``rows`` that its column can't have; None if there is none.

        Other than what `value_faults` names, that is a missing value where no training row lacked one.
        """
        for place, column in enumerate(self.columns):
            values = rows[:, place]
            if column.missing_value is None and column.kind != CATEGORY and rows.dtype.kind == "f":
                missing = np.isnan(values)
                if missing.any():
                    return Fault(int(missing.argmax()), column, "have a value, as in all rows that were trained on")
            if fault := value_fault(column, values, unknown=True):
                return fault
        return None


def learned_columns(
    columns: Sequence[Column], inputs: HostArray, chosen: NDArray[np.int64] | None
) -> tuple[Column, ...]:
    """Return ``columns`` as those of a model that is trained on the ``chosen`` rows of ``inputs``, None = on all.

    A column of which any of all rows lack a value, chosen or not, gets the median of the chosen ones that have it, 0 if
    none has.
    """
    if inputs.dtype.kind != "f":
        return tuple(columns)
    learned = list(columns)
    for place in np.flatnonzero(_lacks_values(inputs)).tolist():
        values = inputs[:, place] if chosen is None else inputs[chosen, place]
        values = values[~np.isnan(values)].astype(np.float64)
        is_number = columns[place].kind != CATEGORY and len(values) > 0
        learned[place] = replace(columns[place], missing_value=float(np.median(values)) if is_number else 0.0)
    return tuple(learned)


def encoded(encoder: Encoder, inputs: HostArray) -> HostArray:
    """Return all of ``inputs`` encoded, made in blocks."""
    rows = max(1, _BLOCK_VALUES // encoder.width)
    whole = np.zeros((len(inputs), encoder.width), np.result_type(inputs.dtype, np.float32))
    for start in range(0, len(inputs), rows):
        encoder.encode(inputs[start : start + rows], whole[start : start + rows])
    return whole


def _lacks_values(inputs: HostArray) -> NDArray[np.bool_]:
    """Return of which columns any row lacks a value."""
    rows, lacks = max(1, _BLOCK_VALUES // inputs.shape[1]), np.zeros(inputs.shape[1], bool)
    for start in range(0, len(inputs), rows):
        lacks |= np.isnan(inputs[start : start + rows]).any(axis=0)
    return lacks
