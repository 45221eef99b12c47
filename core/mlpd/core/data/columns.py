"""What the numbers of a data set stand for: columns with names and kinds, classes and targets with names.

A data set's file says so in its metadata, as JSON: see ``proto/mlpd/v1/dataset_service.proto``.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from mlpd.core.devices.arrays import HostArray

NUMBER, BOOLEAN, CATEGORY, DATE = "number", "boolean", "category", "date"
UNKNOWN = -1  # the place of a category that is not among a column's
KINDS = NUMBER, BOOLEAN, CATEGORY, DATE
_NAMES_KEY, _COLUMNS_KEY, _CLASSES_KEY, _TARGETS_KEY = "input_names", "columns", "class_names", "target_names"
_NAME_LIMIT_CHARACTERS = 256
_PRINTABLE = f"printable texts of 1 to {_NAME_LIMIT_CHARACTERS} characters"
_SHOWN_CHARACTERS = 64


class SchemaError(ValueError):
    """Metadata can't be used as a schema."""


@dataclass(frozen=True)
class Column:
    """A column of a table, whose rows have a number each; NaN where the value is missing.

    The number is the value, 0 or 1 for a boolean, the place of a category among ``categories``, or days since
    1970-01-01 for a date. The last two belong to a model's columns: ``missing_value`` is what a missing one counts as,
    the median of the rows trained on; None for categories. ``marks_missing`` says that the network is told of it too,
    for some of the data that it was trained on lacked a value.
    """

    name: str
    kind: str = NUMBER
    categories: tuple[str, ...] = ()
    missing_value: float | None = None
    marks_missing: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether a network can take its numbers as they are, where none is missing."""
        return self.kind == NUMBER and not self.marks_missing

    @property
    def width(self) -> int:
        """How many values a network sees of it: a number or one a category, and perhaps a mark."""
        return (len(self.categories) or 1) + self.marks_missing


@dataclass(frozen=True)
class ColumnStatistics:
    """What is known of a column's values, those that are missing apart; all 0 where all are."""

    missing_count: int = 0
    mean: float = 0.0
    deviation: float = 0.0
    minimum: float = 0.0
    maximum: float = 0.0


@dataclass(frozen=True)
class Schema:
    """What the numbers of a data set or of a model stand for; what has no names is empty.

    ``columns`` are those of the inputs, ``class_names`` the names of the classes 0, 1, 2, ..., and ``target_names``
    that of the labels, or one a target.
    """

    columns: tuple[Column, ...] = ()
    class_names: tuple[str, ...] = ()
    target_names: tuple[str, ...] = ()

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(column.name for column in self.columns)

    @property
    def is_plain(self) -> bool:
        """Whether a network can take rows as they are."""
        return all(column.is_plain for column in self.columns)

    def metadata(self, *, lacks_values: bool) -> dict[str, str]:
        """Return it as the metadata of a data set's file, some of whose values are missing or none."""
        said: dict[str, object] = {_CLASSES_KEY: self.class_names, _TARGETS_KEY: self.target_names}
        if lacks_values or not self.is_plain:
            said[_COLUMNS_KEY] = [_said(column) for column in self.columns]
        else:
            said[_NAMES_KEY] = self.input_names
        return {key: json.dumps(value, ensure_ascii=False) for key, value in said.items() if value}


@dataclass(frozen=True)
class Fault:
    """A value that a column can't have, and the rule that it breaks."""

    row: int
    column: Column
    rule: str


def table_fault(columns: Sequence[Column], rows: HostArray, *, unknown: bool) -> Fault | None:
    """Return a value of ``rows`` (rows, columns) that is neither missing nor one that its column's kind has, or None.

    Categories that are ``unknown`` may be said to be so.
    """
    if rows.dtype.kind == "f":
        with np.errstate(over="ignore"):
            finite = np.isfinite(rows.astype(np.float32, copy=False))
        if not finite.all() and (wrong := ~(finite | np.isnan(rows))).any():
            row, place = divmod(int(wrong.argmax()), len(columns))
            return Fault(row, columns[place], "be finite as float32")
    special = ((place, column) for place, column in enumerate(columns) if column.kind in (BOOLEAN, CATEGORY))
    found = (_value_fault(column, rows[:, place], unknown=unknown) for place, column in special)
    return next(filter(None, found), None)


def _value_fault(column: Column, values: HostArray, *, unknown: bool) -> Fault | None:
    given = ~np.isnan(values)
    if column.kind == BOOLEAN:
        wrong, rule = given & (values != 0) & (values != 1), "be 0 or 1"
    else:
        count, least = len(column.categories), UNKNOWN if unknown else 0
        wrong = given & ~((values >= least) & (values < count) & (values == np.floor(values)))
        rule = f"be the place of a category, {least} to {count - 1}"
    return Fault(int(wrong.argmax()), column, rule) if wrong.any() else None


def schema_from(metadata: Mapping[str, object], input_size: int, target_size: int) -> tuple[Schema, bool]:
    """Return the schema in a file's ``metadata``, and whether values may be missing; raises `SchemaError`.

    ``target_size`` is the number of targets, 0 for labels.
    """
    columns = _columns(metadata, input_size)
    if columns is not None and _NAMES_KEY in metadata:
        raise SchemaError(f"{_NAMES_KEY} must be left out where there are {_COLUMNS_KEY}")
    names = _names(metadata, _NAMES_KEY, input_size, "one a column of the inputs")
    classes = _names(metadata, _CLASSES_KEY, None, "one a class") if not target_size else ()
    if target_size and _CLASSES_KEY in metadata:
        raise SchemaError(f"{_CLASSES_KEY} must be left out where there are no labels")
    targets = _names(metadata, _TARGETS_KEY, target_size or 1, "one a target, or one for labels")
    found = tuple(Column(name) for name in names) if columns is None else columns
    return Schema(found, classes, targets), columns is not None


def encoded_size(schema: Schema, statistics: Sequence[ColumnStatistics], input_size: int) -> int:
    """Return how many values a network sees of a row of a data set."""
    pairs = zip(schema.columns, statistics, strict=True)
    return sum(column.width + (known.missing_count > 0) for column, known in pairs) or input_size


def needs_encoding(schema: Schema, statistics: Sequence[ColumnStatistics]) -> bool:
    """Return whether a network can't take the rows of a data set as they are."""
    return not schema.is_plain or any(known.missing_count for known in statistics)


def check_names(what: str, names: Sequence[object], rule: str, text: str) -> None:
    """Raise `SchemaError` unless all ``names`` are distinct, printable texts; ``text`` is where they were read."""
    if not all(isinstance(name, str) for name in names):
        raise SchemaError(f"{rule}, got {ascii(text)[:_SHOWN_CHARACTERS]}")
    seen = set()
    for name in map(str, names):
        if name in seen:
            raise SchemaError(f"{rule}, got {name[:_SHOWN_CHARACTERS]!a} twice")
        if not 1 <= len(name) <= _NAME_LIMIT_CHARACTERS or not name.isprintable():
            raise SchemaError(f"{what} must hold {_PRINTABLE}, got {name[:_SHOWN_CHARACTERS]!a}")
        seen.add(name)


def _said(column: Column) -> dict[str, object]:
    said: dict[str, object] = {"name": column.name, "kind": column.kind}
    return said | {"categories": column.categories} if column.categories else said


def _read(metadata: Mapping[str, object], key: str) -> tuple[object, str]:
    """Return what the text for ``key`` says, an empty list if there is none, and the text."""
    text = metadata.get(key, "[]")
    try:
        return json.loads(text), str(text)  # type: ignore[arg-type]  # what is no text raises TypeError
    except (TypeError, ValueError, RecursionError):
        return None, str(text)


def _names(metadata: Mapping[str, object], key: str, count: int | None, each: str) -> tuple[str, ...]:
    names, text = _read(metadata, key)
    rule = f"{key} must be a JSON list of {'' if count is None else f'{count} '}distinct texts, {each}"
    if not isinstance(names, list):
        raise SchemaError(f"{rule}, got {ascii(text)[:_SHOWN_CHARACTERS]}")
    if names and count is not None and all(isinstance(name, str) for name in names) and len(names) != count:
        raise SchemaError(f"{rule}, got {len(names)}")
    check_names(key, names, rule, text)
    return tuple(names)


def _columns(metadata: Mapping[str, object], count: int) -> tuple[Column, ...] | None:
    if _COLUMNS_KEY not in metadata:
        return None
    found, text = _read(metadata, _COLUMNS_KEY)
    rule = f"{_COLUMNS_KEY} must be a JSON list of {count} objects, one a column of the inputs"
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise SchemaError(f"{rule}, got {ascii(text)[:_SHOWN_CHARACTERS]}")
    if len(found) != count:
        raise SchemaError(f"{rule}, got {len(found)}")
    check_names(_COLUMNS_KEY, [item.get("name") for item in found], f"{rule} with a distinct name", text)
    return tuple(_column(item) for item in found)


def _column(item: dict[str, object]) -> Column:
    name, kind, categories = str(item["name"]), item.get("kind"), item.get("categories", [])
    what = f"column {name[:_SHOWN_CHARACTERS]!a}"
    if unknown := set(item) - {"name", "kind", "categories"}:
        raise SchemaError(f"{what} must have name, kind and categories alone, got {min(unknown)[:32]!a}")
    if kind not in KINDS:
        raise SchemaError(f"{what} must be of a kind that is one of {', '.join(KINDS)}, got {str(kind)[:32]!a}")
    rule = f"{what} must have a list of distinct categories"
    if not isinstance(categories, list):
        raise SchemaError(f"{rule}, got {ascii(categories)[:_SHOWN_CHARACTERS]}")
    if bool(categories) != (kind == CATEGORY):
        raise SchemaError(f"{what} must have categories if it is a category, and only then, got {len(categories)}")
    check_names(what, categories, rule, str(categories))
    return Column(name, str(kind), tuple(categories))
