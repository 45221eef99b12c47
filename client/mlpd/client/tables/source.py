"""`Source`: a table that is read in batches, as often as wanted, whatever it is stored in."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from mlpd.client.tables.header import Header


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
    called with the bytes that have been read and those of the file.
    """

    header: Header
    has_header: bool | None = None
    decimal: str = "."
    kinds: list[str]
    categories: Collection[int] = ()
    codes: Collection[int] = ()
    notes: list[str]
    doubt: str = ""
    on_progress: Callable[[int, int], None] | None = None

    @abstractmethod
    def batches(self, columns: Sequence[int], texts: Collection[int]) -> Iterator[list[Any]]:
        """Yield the ``columns`` as Arrow arrays, some rows at a time; of those in ``texts``, as they are written.

        Raises `NeedsText` for another that is no number, and `InvalidRequest` for what can't be read.
        """

    @abstractmethod
    def where(self, row: int) -> str:
        """Return how an error names a row, counted from 0."""

    def check_repeated_header(self) -> None:  # noqa: B027 - most have no lines
        """Raise `InvalidRequest` for a row that is the header again; every name in it is a text of its column."""

    def hint(self, row: int, text: str) -> str:
        """Return what to do about a cell that is not what its column holds."""
        return ""
