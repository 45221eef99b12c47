"""What the cells of a column are: the same rules for every file and frame.

A cell without a value is empty, ``?``, ``-``, ``NA``, ``N/A``, ``#N/A``, ``nan``, ``null`` or ``none`` in any case;
spaces around a cell count for nothing. Of the cells that have a value,

- all are numbers: a **number**;
- all are ISO dates, or dates with a time, or in the order that is said: a **date**, as days since 1970-01-01, in UTC
  where it says no zone;
- all are true, false, yes or no in any case: a **boolean**; 0 and 1 are numbers; what is to be learnt keeps its own two
  words for yes and no;
- else it is text, a **category**: one of its distinct texts, sorted. With more than 256 of them, or more than 20 that
  are more than half of the cells, the column is left out, unless it is asked for; it may have up to 10,000.

Where more than half are numbers, or dates, but not all, the first other cell is refused; and so is a number or a date
that is written as people do: 1,234 and $5 and 12% and (3.5) and 27.11.2026 and 27 Nov 2026.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import lru_cache
from shlex import quote

from mlpd.client.errors import InvalidRequest
from mlpd.client.tables.columns import Column
from mlpd.client.tables.dates import DATE_ORDERS, date_of, is_like_date, orders_of, way_of

MISSING = frozenset(("", "?", "-", "na", "n/a", "#n/a", "nan", "null", "none"))
_MISSING_OBJECTS = ("<NA>", "NaT")  # of pandas
CATEGORY_LIMIT, ASKED_CATEGORY_LIMIT = 256, 10_000
MANY_CATEGORIES = 20
EXACT_WHOLE_LIMIT = 2**53  # a float64 holds every whole number up to here

_BOOLEANS = {"false": 0.0, "no": 0.0, "true": 1.0, "yes": 1.0}
_TRUTH = {"false", "true"}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
# What people take for numbers, and would miss if it became a text: 1,5 and 1,234.5 and 1 234,5 and $5 and USD 5 and 12%
# and (3.5).
_SIGN, _GAP = r"[+\u2212-]?", r"[ \u00a0\u202f]?"
_MONEY = "([$€£¥₹₽₩]|kr|zł|USD|EUR|GBP|JPY|CHF|CNY|INR|CAD|AUD|SEK|NOK|DKK|PLN)"
_DIGITS = (
    r"(\d+[.,]?\d*|[.,]\d+|\d{1,3}([ \u00a0\u202f'\u2019,]\d{3})+([.,]\d+)?|\d{1,3}(\.\d{3})+(,\d+)?"
    r"|\d{1,2}(,\d\d)+,\d{3}(\.\d+)?)"
)
_AMOUNT = f"{_SIGN}({_MONEY}{_GAP})?{_SIGN}{_DIGITS}({_GAP}({_MONEY}|%))?"
_LIKE_NUMBER = re.compile(rf"{_AMOUNT}|\({_AMOUNT}\)", re.ASCII)
_INFINITY = re.compile(f"{_SIGN}inf(inity)?", re.IGNORECASE)
_TRAILING_ZEROS = re.compile(r"(-?\d+)\.0+", re.ASCII)
_NAME_LIMIT_CHARACTERS = 256

Cell = bool | int | float | str | date | None


@dataclass(frozen=True)
class Notation:
    """How a table writes numbers and dates.

    ``decimal`` is "." or ","; ``date_order`` is "dmy", "mdy" or "ymd", empty where all dates are ISO.
    """

    decimal: str = "."
    date_order: str = ""


class BadCell(InvalidRequest):
    """A ``row``, counted from 0, has a cell that breaks ``rule``; whoever knows the table says where that is."""

    def __init__(self, row: int, rule: str, text: str) -> None:
        super().__init__(f"row {row} {rule}, got {text[:40]!r}")
        self.row = row
        self.rule = rule
        self.text = text


def text_of(cell: Cell) -> str | None:
    """Return a cell of a frame as a file would have it, without spaces around; None where its value is missing."""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, datetime):
        return cell.isoformat(" ")
    if isinstance(cell, date):
        return cell.isoformat()
    text = (repr(cell) if isinstance(cell, float) else str(cell)).strip()
    is_missing = text.lower() in MISSING or (text in _MISSING_OBJECTS and not isinstance(cell, str))
    return None if is_missing else text


def category_of(text: str) -> str:
    """Return what a text is called as a category or class: as it is, but 1 where it is 1.0."""
    whole = _TRAILING_ZEROS.fullmatch(text)
    return whole[1] if whole else text


def number_of(text: str, decimal: str = ".") -> float:
    """Return the number that a text is; raises `ValueError` with a rule where it is none, or can't be held exactly."""
    plain = text.replace(",", ".") if decimal == "," and "." not in text else text
    if not _NUMBER.fullmatch(plain) or (decimal == "," and "." in text):
        raise ValueError("must be a plain number, like 1234.5" if _LIKE_NUMBER.fullmatch(text) else "must be a number")
    value = float(plain)
    if _WHOLE.fullmatch(plain) and abs(value) >= EXACT_WHOLE_LIMIT and int(plain) != int(value):
        raise ValueError("must be a whole number that float64 holds exactly")
    return value


def boolean_of(text: str) -> float:
    """Return 0 or 1; raises `ValueError` where a text is neither false nor true."""
    value = _BOOLEANS.get(text.lower(), {"0": 0.0, "1": 1.0}.get(category_of(text)))
    if value is None:
        raise ValueError("must be true or false, or yes or no")
    return value


def converter(column: Column, notation: Notation) -> Callable[[str], float]:
    """Return what makes the number that a row has of a text; an unknown category is -1."""
    match column.kind:
        case "number":
            return lambda text: number_of(text, notation.decimal)
        case "date":
            return lambda text: date_of(text, notation.date_order)
        case "boolean":
            return boolean_of
    places = {category: float(place) for place, category in enumerate(column.categories)}
    return lambda text: places.get(category_of(text), -1.0)


@lru_cache(maxsize=1024)  # wide tables repeat themselves
def is_number(text: str, decimal: str = ".") -> bool:
    """Whether a text is a number."""
    return _holds(lambda cell: number_of(cell, decimal), text)


@dataclass
class Survey:
    """What is known of the texts of a column after some of its ``rows``; distinct ones only up to a limit."""

    notation: Notation = Notation()
    filled: int = 0
    number_rows: int = 0
    number_like_rows: int = 0
    date_rows: int = 0
    date_like_rows: int = 0
    texts: dict[str, int] = field(default_factory=dict)
    others: dict[str, BadCell] = field(default_factory=dict)
    date_orders: set[str] = field(default_factory=lambda: set(DATE_ORDERS))

    def add(self, text: str, count: int, row: int) -> None:
        """Take in a text that ``count`` more rows have, first at ``row``."""
        self.filled += count
        for kind, rows in (("number", "number_rows"), ("date", "date_rows")):
            try:
                converter(Column("", kind), self.notation)(text)
                setattr(self, rows, getattr(self, rows) + count)
            except ValueError as error:
                if kind not in self.others or row < self.others[kind].row:
                    self.others[kind] = BadCell(row, str(error), text)
        if any(pattern.fullmatch(text) for pattern in (_NUMBER, _LIKE_NUMBER, _INFINITY)):
            self.number_like_rows += count
        if is_like_date(text):
            self.date_like_rows += count
            self.date_orders &= orders_of(text)
        if len(self.texts) <= ASKED_CATEGORY_LIMIT:
            category = category_of(text)
            self.texts[category] = self.texts.get(category, 0) + count

    def column(self, name: str, *, is_asked: bool = False, is_target: bool = False) -> Column | str:
        """Return what the column is; or why it is left out.

        ``is_asked`` says that it is a category. A target may have as many categories as if it were asked, and keeps its
        own two words for yes and no, as the names of its classes. Raises `BadCell`, and `InvalidRequest` for categories
        that can't be stored.
        """
        if not self.filled:
            return "it has no values"
        kind = "category" if is_asked else self._kind()
        if is_target and kind == "boolean" and len(self.texts) <= 2 and not set(map(str.lower, self.texts)) <= _TRUTH:
            kind = "category"
        if kind != "category":
            return Column(name, kind)
        count = len(self.texts)
        many = count > MANY_CATEGORIES and 2 * count > self.filled
        if count > ASKED_CATEGORY_LIMIT:
            return f"more than {ASKED_CATEGORY_LIMIT:,} different texts in {self.filled:,} rows"
        if not is_asked and (count > (ASKED_CATEGORY_LIMIT if is_target else CATEGORY_LIMIT) or many):
            way = "" if is_target else f"; keep it with --category {quote(name)}"
            return f"{count:,} different texts in {self.filled:,} rows{way}"
        categories = tuple(sorted(self.texts))
        check_categories(name, categories)
        return Column(name, "category", categories)

    def _kind(self) -> str:
        if self.number_rows == self.filled:
            return "number"
        if 2 * self.number_like_rows > self.filled:
            raise self.others["number"]
        if self.date_rows == self.filled:
            return "date"
        if 2 * self.date_like_rows > self.filled:
            raise self.others["date"]
        return "boolean" if all(text.lower() in _BOOLEANS for text in self.texts) else "category"

    def way(self, error: BadCell) -> str:
        """Return what to do about a cell that people take for a number, or for a date whose order was not said."""
        if error is self.others.get("number"):
            is_like_number = _LIKE_NUMBER.fullmatch(error.text)
            return "; take away signs of money, percent and thousands" if is_like_number else ""
        return "" if self.notation.date_order else way_of(self.date_orders)


def check_categories(name: str, categories: tuple[str, ...]) -> None:
    """Raise `InvalidRequest` for a category that can't be stored."""
    rule = f"printable texts of 1 to {_NAME_LIMIT_CHARACTERS} characters"
    for category in categories:
        if not 1 <= len(category) <= _NAME_LIMIT_CHARACTERS or not category.isprintable():
            way = f"if it is free text, leave the column out: --leave-out {quote(name)}"
            raise InvalidRequest(f"column {name} must have categories that are {rule}, got {category[:40]!a}; {way}")


def _holds(convert: Callable[[str], float], text: str) -> bool:
    try:
        convert(text)
    except ValueError:
        return False
    return True
