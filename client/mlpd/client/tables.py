"""CSV files as tables of numbers: whether the first line names the columns, and what stands in which."""

import csv
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from mlpd.client.columns import check_names, is_unnamed, listed
from mlpd.client.errors import InvalidRequest
from numpy.typing import NDArray

# How a cell says that its value is missing; none of these is a number, and none makes a line a header.
_MISSING = {"", "?", "-", "na", "n/a", "nan", "null", "none"}
_ASK = "say which, with --header or --no-header (header=True or False)"

Choose = Callable[["Header"], Sequence[int]]


class NotANumber(InvalidRequest):
    """A cell must hold a number, and does not."""

    def __init__(self, message: str, line: int, column: int) -> None:
        super().__init__(message)
        self.line = line
        self.column = column


@dataclass(frozen=True)
class Header:
    """How many columns a file has, and their names: none where its first line is a row."""

    path: Path
    count: int
    names: tuple[str, ...]

    def column(self, field: str, wanted: str) -> int:
        """Return where the column is that is called ``wanted``, or has this number, negative from the end."""
        if wanted in self.names:
            return self.names.index(wanted)
        try:
            number = int(wanted)
        except ValueError:
            known = f"one of {listed(self.names)}" if self.names else "a number: the file has no header"
            raise InvalidRequest(f"{field} must be {known}, got {wanted}") from None
        if self.count < 2 or not -self.count <= number < self.count:
            rule = f"between {-self.count} and {self.count - 1} in {self.path.name}"
            raise InvalidRequest(f"{field} must be {rule}, got {number}")
        return number % self.count

    def name(self, column: int) -> str:
        """Return what to call a column."""
        return self.names[column] if self.names else f"column {column + 1}"


@dataclass(frozen=True)
class Table:
    """The chosen ``columns`` of a file as ``values`` (rows, columns), float64."""

    header: Header
    columns: tuple[int, ...]
    values: NDArray[np.float64]

    def of(self, columns: Sequence[int]) -> NDArray[np.float64]:
        """Return some of the columns, by their places in the file."""
        return self.values if tuple(columns) == self.columns else self.values[:, [*map(self.columns.index, columns)]]

    def row_numbers(self, columns: Sequence[int]) -> list[int]:
        """Return those ``columns`` that have no name and count the rows, 0, 1, 2, ..., as pandas writes its index.

        Raises `InvalidRequest` for a column without a name that holds something else.
        """
        names = self.header.names
        unnamed = [column for column in columns if names and is_unnamed(names[column])]
        for column in unnamed:
            if not np.array_equal(self.of([column])[:, 0], np.arange(len(self.values))):
                where = f"{self.header.path.name}, line 1, column {column + 1}"
                raise InvalidRequest(
                    f"{where}, must have a name, got {names[column]!r}; if it is an index, leave it out: --leave-out "
                    f"{column - self.header.count}, or index=False where pandas writes the file"
                )
        return unnamed


def read_table(path: Path, header: bool | None, choose: Choose) -> Table:
    """Return the numbers in the columns that ``choose`` takes, in its order; ``header`` says what the first line is.

    Where that is None, it is a header if it has names and no number, or names beside numbers that count the columns.
    A line of nothing else than those can be either, and is refused, as is any other that has names and numbers.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = _rows(path, file)
            line, first = next(rows, (0, []))
            following = next(rows, None)
            cells = [cell.strip() for cell in first]
            doubt = header is None and following is not None and _counts(cells) and all(map(_is_number, cells))
            named = _has_names(path, line, cells) if header is None else header
            found = Header(path, len(first), tuple(cells) if named else ())
            if named:
                _check_header(found, line)
            left = chain([following] if following else [], rows)
            numeric = left if named or not first else chain([(line, first)], left)
            columns = choose(found) if first else ()
            numbers = [_numbers(path, line, row, len(first), columns) for line, row in numeric]
    except NotANumber as error:
        if header is not None or error.line > line:
            raise
        raise InvalidRequest(f"{error.message}; if it names a column, say --header (header=True)") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = str(error).strip().split("\n")[0]
        raise InvalidRequest(f"{path} can't be read as CSV in UTF-8: {reason}") from error
    if not numbers:
        raise InvalidRequest(f"{path.name} must hold at least one row of numbers, got none")
    if doubt:
        raise InvalidRequest(f"{path.name}, line {line}, {_shown(cells)}, can be a header or a row: {_ASK}")
    return Table(found, tuple(columns), np.stack(numbers))


def _rows(path: Path, file: Iterator[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield lines with their numbers, but for empty ones; of a single column, those would be cells."""
    reader = csv.reader(file)
    started, empty = False, 0
    for row in reader:
        if not row:
            empty = reader.line_num if started else 0
            continue
        if empty and len(row) == 1:
            raise InvalidRequest(f"{path.name}, line {empty}, must be a number, got an empty line")
        yield reader.line_num, row
        started, empty = True, 0


def _has_names(path: Path, line: int, cells: Sequence[str]) -> bool:
    numbers = sum(map(_is_number, cells))
    names = sum(not _is_number(cell) and cell.lower() not in _MISSING for cell in cells)
    if ((numbers > 1 and names) or (numbers and not cells[0])) and _counts(cells):
        return True
    if numbers and names:
        raise InvalidRequest(f"{path.name}, line {line}, {_shown(cells)}, has names and numbers: {_ASK}")
    return names > 0


def _counts(cells: Sequence[str]) -> bool:
    """Whether the numbers in a line number its columns, from 0 or 1, after an index without a name."""
    start = 1 if len(cells) > 1 and not cells[0] else 0
    places = [(place, cell) for place, cell in enumerate(cells[start:]) if _is_number(cell)]
    firsts = (0, 1) if len(cells) > 1 else (0,)
    return any(all(cell == str(place + first) for place, cell in places) for first in firsts)


def _check_header(header: Header, line: int) -> None:
    field = f"{header.path.name}, line {line},"
    named = [name for name in header.names if name]
    check_names(field, named, len(named))


def _numbers(path: Path, line: int, row: list[str], count: int, columns: Sequence[int]) -> NDArray[np.float64]:
    if len(row) != count:
        raise InvalidRequest(f"{path.name}, line {line}, must have {count} cells as the first line, got {len(row)}")
    chosen = row if columns == range(count) else [row[column] for column in columns]
    try:
        _check_underscores(chosen)
        return np.fromiter(map(float, chosen), np.float64, len(columns))  # a list of floats takes four times the memory
    except ValueError:
        column = next(column for column in columns if not _is_float(row[column]))
        sentence = f"{path.name}, line {line}, column {column + 1}, must be a number, got {row[column][:40]!r}"
        raise NotANumber(sentence, line, column) from None


def _is_number(cell: str) -> bool:
    return _is_float(cell) and math.isfinite(float(cell))


def _check_underscores(cells: Sequence[str]) -> None:
    """Raise `ValueError` for what only Python takes for a number: 1_0 is 10 to it, and a name to everybody else."""
    if "_" in "".join(cells):
        raise ValueError


def _is_float(cell: str) -> bool:
    try:
        _check_underscores([cell])
        float(cell)
    except ValueError:
        return False
    return True


def _shown(cells: Sequence[str]) -> str:
    text = "".join(character if character.isprintable() else "?" for character in ",".join(cells))
    return text if len(text) <= 40 else f"{text[:40]}..."
