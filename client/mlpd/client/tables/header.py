"""The first line of a file, and the names of a table's columns."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from mlpd.client.columns import check_names, listed
from mlpd.client.errors import InvalidRequest
from mlpd.client.spelling import did_you_mean
from mlpd.client.tables.kinds import MISSING, is_number

ASK_HEADER = "say which, with --header or --no-header (header=True or False)"


@dataclass(frozen=True)
class Header:
    """How many columns a table has, and their names: none where its first line is a row. ``table`` is its own name."""

    table: str
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
            raise InvalidRequest(f"{field} must be {known}, got {wanted}{did_you_mean(wanted, self.names)}") from None
        if self.count < 2:
            way = "if other characters than , ; | and tab stand between its cells, say which, with --separator"
            raise InvalidRequest(f"{self.table} must have at least two columns, got one, {self.name(0)[:40]}; {way}")
        if not -self.count <= number < self.count:
            rule = f"between {-self.count} and {self.count - 1} in {self.table}"
            raise InvalidRequest(f"{field} must be {rule}, got {number}")
        return number % self.count

    def columns(self, field: str, wanted: Sequence[str]) -> list[int]:
        """Return where the columns are that are ``wanted``: each text is one, or several with commas."""
        parts = [part.strip() for text in wanted for part in ([text] if text in self.names else text.split(","))]
        return [self.column(field, part) for part in parts]

    def name(self, column: int) -> str:
        """Return what to call a column."""
        return self.names[column] if self.names else f"column {column + 1}"

    def place(self, column: int) -> str:
        """Return how an error names a column."""
        return f"column {self.names[column]}" if self.names and self.names[column] else f"column {column + 1}"


def has_names(table: str, line: int, cells: Sequence[str]) -> bool:
    """Whether a first line names the columns: it has names and no number, or names beside numbers that count columns.

    Raises `InvalidRequest` for any other line that has names and numbers.
    """
    numbers = sum(map(_is_finite, cells))
    names = sum(not _is_finite(cell) and cell.lower() not in MISSING for cell in cells)
    if ((numbers > 1 and names) or (numbers and not cells[0])) and counts(cells):
        return True
    if numbers and names:
        raise InvalidRequest(f"{table}, line {line}, {shown(cells)}, has names and numbers: {ASK_HEADER}")
    return names > 0


def only_counts(cells: Sequence[str]) -> bool:
    """Whether a line holds nothing but numbers that count the columns, and so can be a header or a row."""
    return counts(cells) and all(map(_is_finite, cells))


def counts(cells: Sequence[str]) -> bool:
    """Whether the numbers in a line number its columns, from 0 or 1, after an index without a name."""
    start = 1 if len(cells) > 1 and not cells[0] else 0
    places = [(place, cell) for place, cell in enumerate(cells[start:]) if _is_finite(cell)]
    firsts = (0, 1) if len(cells) > 1 else (0,)
    return any(all(cell == str(place + first) for place, cell in places) for first in firsts)


def check_header(table: str, line: int, names: Sequence[str], *, is_sure: bool) -> None:
    """Raise `InvalidRequest` for names in a first line that can't tell columns apart, and may be none if not sure."""
    named = [name for name in names if name]
    twice = next((name for name, count in Counter(named).items() if count > 1), None)
    if twice and not is_sure:
        rule = f"must name each column once, got {twice[:40]!r} twice"
        way = "if it is a row, say --no-header (header=False), else rename one"
        raise InvalidRequest(f"{table}, line {line}, {rule}; {way}")
    check_names(f"{table}, line {line},", named, len(named))


def shown(cells: Sequence[str]) -> str:
    """Return a line as an error shows it."""
    text = "".join(character if character.isprintable() else "?" for character in ",".join(cells))
    return text if len(text) <= 40 else f"{text[:40]}..."


def _is_finite(cell: str) -> bool:
    return is_number(cell) and math.isfinite(float(cell))
