"""Which rows of a data set are held out for validation: of each class in proportion, but never all of a class."""

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from mlpd.core.devices.arrays import HostArray
from mlpd.core.random import Purpose, bits
from numpy.typing import NDArray


def train_class_counts(row_counts: Sequence[int], count: int) -> list[int]:
    """Return how many rows of each class are left where ``count`` are held out; one at least where there are any."""
    candidates = _candidate_counts(row_counts, count)
    taken = _taken(candidates, min(count, sum(candidates)))
    return [rows - out for rows, out in zip(row_counts, taken, strict=True)]


def held_out_rows(targets: HostArray, count: int, seed: int) -> NDArray[np.int64]:
    """Choose ``count`` rows at random, but from each class in proportion: every so many of them, sorted by class.

    Where that would take all rows of a class, one row of each stays out of the choice.
    """
    noise = bits(seed, Purpose.SPLIT, 0, len(targets))
    if targets.ndim > 1:
        order = np.argsort(noise, kind="stable")
    else:
        order = np.lexsort((noise, targets))
        row_counts = np.bincount(targets)
        if _candidate_counts(row_counts.tolist(), count) != row_counts.tolist():
            order = np.delete(order, np.cumsum(row_counts)[row_counts > 0] - 1)
    places = (2 * np.arange(count) + 1) * len(order) // (2 * count)
    return np.sort(order[places])


def _candidate_counts(row_counts: Sequence[int], count: int) -> list[int]:
    """Return from how many rows of each class is chosen: from all, or from all but one of each."""
    used_up = any(0 < rows == taken for rows, taken in zip(row_counts, _taken(row_counts, count), strict=True))
    return [max(rows - used_up, 0) for rows in row_counts]


def _taken(row_counts: Sequence[int], count: int) -> list[int]:
    """Return how many of ``count`` evenly spread places fall to each class, where rows are sorted by class.

    Place number i is ``(2 i + 1) rows // (2 count)``: so many of them lie before the end of a class.
    """
    rows = sum(row_counts)
    before = [((2 * count * end - 1) // rows + 1) // 2 if end else 0 for end in accumulate(row_counts)]
    return [later - earlier for earlier, later in zip([0, *before], before, strict=False)]
