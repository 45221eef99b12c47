"""The columns of a source: what they hold, learnt from their cells, and their numbers."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from shlex import quote
from typing import Any

import numpy as np
from mlpd.client.errors import InvalidRequest
from mlpd.client.tables.cells import distinct_texts, narrowed, numbers
from mlpd.client.tables.columns import Column
from mlpd.client.tables.dates import orders_of, way_of
from mlpd.client.tables.kinds import EXACT_WHOLE_LIMIT, BadCell, Survey
from mlpd.client.tables.source import NeedsText, Source
from numpy.typing import NDArray

Array = NDArray[Any]

# In fewer rows, whole numbers may follow each other by chance.
_COUNTED_ROWS = 20


@dataclass
class Values:
    """The numbers of a column, as they were read: ``parts`` (rows,), each of the smallest type that holds it.

    ``unknown`` counts the rows of each text that is no category, which are -1; ``first_missing`` is the first row
    without a value, None if all have one.
    """

    column: Column
    parts: list[Array] = field(default_factory=list)
    row_count: int = 0
    missing_count: int = 0
    first_missing: int | None = None
    unknown: Counter[str] = field(default_factory=Counter)

    def add(self, numbers: NDArray[np.float64]) -> None:
        """Take in the numbers of the next rows; raises `BadCell` for one that is not finite as float32."""
        part = narrowed(numbers)
        missing = np.isnan(part)
        if missing.any():
            if self.first_missing is None:
                self.first_missing = self.row_count + int(np.argmax(missing))
            self.missing_count += int(missing.sum())
        self.row_count += len(numbers)
        self.parts.append(part)

    def array(self) -> NDArray[np.float64]:
        """Return all numbers (rows,)."""
        return np.concatenate([np.asarray(part, np.float64) for part in self.parts])

    @property
    def is_constant(self) -> bool:
        """Whether all values that there are, are one."""
        ends = self._ends()
        return bool(ends) and ends[0] == ends[1]

    @property
    def counts_rows(self) -> bool:
        """Whether it has as many whole numbers as there are rows, one after another, in some order, as an id has."""
        ends = self._ends()
        if self.column.kind != "number" or self.row_count < _COUNTED_ROWS or not ends:
            return False
        if ends[1] - ends[0] != self.row_count - 1:
            return False
        return np.array_equal(np.sort(self.array()), np.arange(self.row_count) + ends[0])

    def _ends(self) -> tuple[float, ...]:
        """Return the least and the largest value; nothing where there is none."""
        parts = [part for part in self.parts if not np.isnan(part).all()]
        lows, highs = map(np.nanmin, parts), map(np.nanmax, parts)
        return (float(min(lows)), float(max(highs))) if parts else ()


def read_columns(
    source: Source,
    wanted: Mapping[int, Column | None],
    categories: Collection[int] = (),
    targets: Collection[int] = (),
) -> tuple[dict[int, Values], dict[int, str]]:
    """Return the numbers of the ``wanted`` columns, by their places, and why others are left out.

    A column is read as what it is said to be, or as what its cells tell where that is None: a category if it is among
    ``categories``. Of ``targets``, more categories are taken. Raises `InvalidRequest` with row, column, rule and value.
    """
    learnt: dict[int, Column | str] = {place: column for place, column in wanted.items() if column}
    while True:
        surveyed = [
            place for place in wanted if place not in learnt and (source.kinds[place] == "text" or place in categories)
        ]
        learnt |= _learn(source, surveyed, categories, targets)
        for place in wanted:
            known = learnt.get(place) or Column(source.header.name(place), source.kinds[place] or "number")
            learnt[place] = known
        chosen = {place: column for place in wanted if isinstance(column := learnt[place], Column)}
        left_out = {place: reason for place in wanted if isinstance(reason := learnt[place], str)}
        try:
            return _read(source, chosen, [place for place in chosen if not wanted[place]]), left_out
        except NeedsText as found:
            source.kinds[found.column] = "text"
            if not wanted[found.column]:
                del learnt[found.column]


def assembled(values: Sequence[Values]) -> Array:
    """Return columns as one array (rows, columns) of the smallest type that holds all; what they held is let go."""
    dtype = np.result_type(*(part.dtype for own in values for part in own.parts))
    result = np.empty((values[0].row_count, len(values)), dtype)
    start = 0
    for index in range(len(values[0].parts)):
        rows = len(values[0].parts[index])
        for place, own in enumerate(values):
            result[start : start + rows, place] = own.parts[index]
            own.parts[index] = np.empty(0, np.uint8)
        start += rows
    return result


def bad_cell(source: Source, column: int, error: BadCell, way: str = "") -> InvalidRequest:
    """Return what to raise for a cell: where it is, what it must be, and what to do."""
    row = source.row_of(error.row)
    place = f"{source.where(row)}, {source.header.place(column)}"
    hint = source.hint(row, error.text) or way
    return InvalidRequest(f"{place}, {error.rule}, got {error.text[:40]!r}{hint}")


def _way(name: str, *, is_target: bool = False) -> str:
    way = f"; if it is a category, say --category {quote(name)}"
    return way if is_target else f"{way}; if it is no input, --leave-out {quote(name)}"


def _learn(
    source: Source, places: Sequence[int], categories: Collection[int], targets: Collection[int]
) -> dict[int, Column | str]:
    if not places:
        return {}
    surveys = {place: Survey(source.notation) for place in places}
    row = 0
    for arrays in source.rows(places, places):
        for survey, array in zip(surveys.values(), arrays, strict=True):
            texts, indices = distinct_texts(array)
            counts = np.bincount(indices, minlength=len(texts))
            firsts = np.full(len(texts), 0)
            firsts[indices[::-1]] = np.arange(len(indices))[::-1]
            for text, count, first in zip(texts, counts.tolist(), firsts.tolist(), strict=True):
                if text is not None and count:
                    survey.add(text, count, row + first)
        row += len(arrays[0])
    if all(source.header.name(place) in survey.texts for place, survey in surveys.items()):
        source.check_repeated_header()
    learnt: dict[int, Column | str] = {}
    for place, survey in surveys.items():
        name = source.header.name(place)
        try:
            learnt[place] = survey.column(name, is_asked=place in categories, is_target=place in targets)
        except BadCell as error:
            way = survey.way(error) + _way(name, is_target=place in targets)
            raise bad_cell(source, place, error, way) from error
    return learnt


def _read(source: Source, columns: Mapping[int, Column], learnt: Collection[int]) -> dict[int, Values]:
    """Return the numbers of ``columns``; of those that are ``learnt``, who asks may say what they are."""
    result = {place: Values(column) for place, column in columns.items()}
    texts = {place for place, column in columns.items() if source.kinds[place] == "text" or column.kind != "number"}
    row = 0
    for arrays in source.rows(list(columns), texts) if columns else ():
        for (place, values), array in zip(result.items(), arrays, strict=True):
            try:
                found = numbers(array, values.column, source.notation, values.unknown)
                if values.column.kind == "number":
                    _check_exact(source, place, found)
                values.add(found)
            except BadCell as error:
                shifted = BadCell(row + error.row, error.rule, error.text)
                is_other_date = values.column.kind == "date" and not source.notation.date_order
                way = way_of(orders_of(error.text)) if is_other_date else ""
                way += _way(source.header.name(place)) if place in learnt else ""
                raise bad_cell(source, place, shifted, way) from error
        row += len(arrays[0])
    if columns and not row:
        raise InvalidRequest(f"{source.header.table} must hold at least one row, got none")
    return result


def _check_exact(source: Source, place: int, found: NDArray[np.float64]) -> None:
    """Have large whole numbers in a file looked at as they are written."""
    if source.has_header is None or source.kinds[place] != "number" or not len(found):
        return
    if max(np.fmax.reduce(found), -np.fmin.reduce(found)) >= EXACT_WHOLE_LIMIT:
        raise NeedsText(place)
