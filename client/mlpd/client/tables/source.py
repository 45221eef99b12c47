"""`Source`: a table that is read in batches, as often as wanted, whatever it is stored in."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
from mlpd.client.tables.files import OnProgress
from mlpd.client.tables.header import Header
from mlpd.client.tables.kinds import Notation
from mlpd.client.tables.libraries import load
from numpy.typing import NDArray


class NeedsText(Exception):
    """A ``column`` that was read as numbers has a cell that is none: its cells must be looked at as texts."""

    def __init__(self, column: int) -> None:
        super().__init__(column)
        self.column = column


class Source(ABC):
    """A table by its columns, which are counted from 0.

    ``has_header`` says whether a first line names them, None where there are no lines. ``kinds`` are what they hold,
    "text" where their cells must tell, "" where that fits no column; ``categories`` are those that are said to be such,
    whatever their cells are, and ``codes`` have digits with a 0 in front, as a number is not written. ``notes`` say
    what was found out; ``doubt`` is why all of it may be wrong, and is told where nothing else is. ``on_progress`` is
    called with the bytes that have been read and those of the file. ``dropped`` are rows (rows,) that do not count.
    """

    header: Header
    has_header: bool | None = None
    notation: Notation = Notation()
    kinds: list[str]
    categories: Collection[int] = ()
    codes: Collection[int] = ()
    notes: list[str]
    doubt: str = ""
    on_progress: OnProgress | None = None
    dropped: NDArray[np.bool_] | None = None

    @abstractmethod
    def batches(self, columns: Sequence[int], texts: Collection[int]) -> Iterator[list[Any]]:
        """Yield the ``columns`` as Arrow arrays, some rows at a time; of those in ``texts``, as they are written.

        Raises `NeedsText` for another that is no number, and `InvalidRequest` for what can't be read.
        """

    def rows(self, columns: Sequence[int], texts: Collection[int]) -> Iterator[list[Any]]:
        """Yield the `batches` without rows that are dropped."""
        if self.dropped is None:
            yield from self.batches(columns, texts)
            return
        arrow, start = load("pyarrow", self.header.table), 0
        for arrays in self.batches(columns, texts):
            kept = ~self.dropped[start : start + len(arrays[0])]
            start += len(arrays[0])
            if kept.any():
                mask = arrow.array(kept)
                yield [array.filter(mask) for array in arrays]

    def row_of(self, row: int) -> int:
        """Return which row it is of all, counted from 0, that is ``row`` of those that are not dropped."""
        return row if self.dropped is None else int(np.flatnonzero(~self.dropped)[row])

    @abstractmethod
    def where(self, row: int) -> str:
        """Return how an error names a row, counted from 0."""

    def check_repeated_header(self) -> None:  # noqa: B027 - most have no lines
        """Raise `InvalidRequest` for a row that is the header again; every name in it is a text of its column."""

    def hint(self, row: int, text: str) -> str:
        """Return what to do about a cell that is not what its column holds."""
        return ""
