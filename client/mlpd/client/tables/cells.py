"""Arrow arrays as the numbers that a row has."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from mlpd.client.tables.columns import Column
from mlpd.client.tables.dates import DAY_MICROSECONDS
from mlpd.client.tables.kinds import EXACT_WHOLE_LIMIT, BadCell, Notation, category_of, converter, text_of
from mlpd.client.tables.libraries import load
from numpy.typing import NDArray


def kind_of(kind: Any) -> str:
    """Return the kind of what an Arrow type holds; "text" where its cells must tell, "" where it fits no column."""
    types = load("pyarrow.types", "a table")
    if types.is_boolean(kind):
        return "boolean"
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return "number"
    if types.is_date(kind) or types.is_timestamp(kind):
        return "date"
    if types.is_dictionary(kind):
        return "text" if kind_of(kind.value_type) else ""
    text = (types.is_string, types.is_large_string, types.is_string_view, types.is_null)
    return "text" if any(is_kind(kind) for is_kind in text) else ""


def is_category(kind: Any) -> bool:
    """Whether an Arrow type says that numbers, dates or booleans are categories; texts tell by themselves."""
    return bool(load("pyarrow.types", "a table").is_dictionary(kind)) and kind_of(kind.value_type) not in ("", "text")


def distinct_texts(array: Any) -> tuple[list[str | None], NDArray[np.int64]]:
    """Return the distinct texts of an array, None among them for a missing value; and which of them each row has."""
    arrow = load("pyarrow", "a table")
    if not arrow.types.is_dictionary(array.type):
        array = (array.cast(arrow.string()) if arrow.types.is_null(array.type) else array).dictionary_encode()
    texts = [text_of(cell) for cell in array.dictionary.to_pylist()]
    places = array.indices.fill_null(len(texts)).to_numpy(zero_copy_only=False).astype(np.int64)
    return [*texts, None], places


def numbers(array: Any, column: Column, notation: Notation, unknown: Counter[str]) -> NDArray[np.float64]:
    """Return the number of each row (rows,), NaN for a missing value; texts that are no category go to ``unknown``.

    Raises `BadCell` for a cell that the column can't hold.
    """
    if kind_of(array.type) == column.kind:
        return _TYPED[column.kind](array)
    texts, places = distinct_texts(array)
    convert = converter(column, notation)
    values = np.full(len(texts), np.nan)
    counts = np.bincount(places, minlength=len(texts))
    for place, text in enumerate(texts):
        if text is None or not counts[place]:
            continue
        try:
            values[place] = convert(text)
        except ValueError as error:
            raise BadCell(int(np.argmax(places == place)), str(error), text) from None
        if values[place] == -1 and column.kind == "category":
            unknown[category_of(text)] += int(counts[place])
    result: NDArray[np.float64] = values[places]
    return result


def narrowed(values: NDArray[np.float64]) -> NDArray[Any]:
    """Return values in the smallest of uint8, float32 and float64 that holds each exactly.

    Raises `BadCell` for one that is not finite as float32.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        single = values.astype(np.float32)
        if np.isinf(single).any():
            row = int(np.argmax(np.isinf(single)))
            raise BadCell(row, "must be finite as float32", f"{values[row]:g}")
        if not ((single == values) | np.isnan(values)).all():
            return values
        small = single.astype(np.uint8)
    return small if (small == single).all() else single


def _typed_numbers(array: Any) -> NDArray[np.float64]:
    arrow = load("pyarrow", "a table")
    if arrow.types.is_integer(array.type) and array.type.bit_width == 64:
        _check_whole(array)
    if arrow.types.is_decimal(array.type):  # its cast may round twice
        return np.array([np.nan if value is None else float(value) for value in array.to_pylist()])
    return _filled(array.cast(arrow.float64(), safe=False), arrow.float64())


def _check_whole(array: Any) -> None:
    compute = load("pyarrow.compute", "a table")
    limits = compute.min_max(array).as_py()
    if limits["min"] is None or -EXACT_WHOLE_LIMIT <= limits["min"] <= limits["max"] <= EXACT_WHOLE_LIMIT:
        return
    for row, value in enumerate(array.to_pylist()):
        if value is not None and int(float(value)) != value:
            raise BadCell(row, "must be a whole number that float64 holds exactly", str(value))


def _typed_booleans(array: Any) -> NDArray[np.float64]:
    arrow = load("pyarrow", "a table")
    return _filled(array.cast(arrow.uint8()).cast(arrow.float64()), arrow.float64())


def _typed_dates(array: Any) -> NDArray[np.float64]:
    arrow = load("pyarrow", "a table")
    zone = getattr(array.type, "tz", None)
    since = array.cast(arrow.timestamp("us", zone), safe=False).cast(arrow.int64())
    return _filled(since.cast(arrow.float64(), safe=False), arrow.float64()) / DAY_MICROSECONDS


def _filled(array: Any, kind: Any) -> NDArray[np.float64]:
    arrow = load("pyarrow", "a table")
    filled = array.fill_null(arrow.scalar(float("nan"), kind)) if array.null_count else array
    values: NDArray[np.float64] = filled.to_numpy(zero_copy_only=False)
    return values


_TYPED: dict[str, Callable[[Any], NDArray[np.float64]]] = {
    "number": _typed_numbers,
    "boolean": _typed_booleans,
    "date": _typed_dates,
}
