"""What is learnt of a table: classes by number and name, or numbers.

Texts and booleans are classes, by their sorted names. Whole numbers of at most 20 distinct values are classes too:
where they are exactly 0, 1, ..., k-1, by themselves; others, if a value comes twice on average, by the names that they
are. All else are numbers, and so are several targets. ``task`` says otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from mlpd.client.columns import listed
from mlpd.client.errors import InvalidRequest
from mlpd.client.settings import LARGEST_LABEL
from mlpd.client.tables.columns import Column
from mlpd.client.tables.kinds import ASKED_CATEGORY_LIMIT, category_of, check_categories, is_number, text_of
from mlpd.client.tables.table import Schema
from mlpd.client.tables.values import Values
from numpy.typing import ArrayLike, NDArray

CLASS_LIMIT = 20
_HINTED_VALUES_LIMIT = 1000
_CLASS_TASKS, _NUMBER_TASKS = ("multiclass", "binary"), ("regression", "multilabel")
TASKS = (*_CLASS_TASKS, *_NUMBER_TASKS)
_BOOLEAN_NAMES = ("false", "true")


@dataclass(frozen=True)
class Answers:
    """``labels`` (rows,) with the names of their classes, or ``targets`` (rows, outputs); and what must be said."""

    labels: NDArray[Any] | None = None
    targets: NDArray[Any] | None = None
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def check_task(task: str, target_count: int) -> None:
    """Raise `InvalidRequest` for a task that there is not, or that does not fit so many targets."""
    if task and task not in TASKS:
        raise InvalidRequest(f"task must be one of {', '.join(TASKS)}, got {task[:40]}")
    if task in _CLASS_TASKS and target_count > 1:
        raise InvalidRequest(f"task must be regression or multilabel with {target_count} targets, got {task}")


def target_column(name: str, like: Schema | None) -> Column | None:
    """Return what a target must hold to be one of another table's classes; None if its cells tell."""
    if like is None or not (like.class_names or like.class_count):
        return None
    if like.class_names == _BOOLEAN_NAMES:
        return Column(name, "boolean")
    return Column(name, "category", like.class_names) if like.class_names else Column(name)


def are_numbers(target_count: int, task: str, like: Schema | None) -> bool:
    """Whether targets are numbers, whatever they hold; yes and no are 1 and 0 then."""
    return target_count > 1 or task in _NUMBER_TASKS or (like is not None and target_column("", like) is None)


def answers_from(columns: Sequence[Values], task: str, like: Schema | None) -> Answers:
    """Return what the target columns are to learn; none lacks a value. Raises `InvalidRequest` for what is no class."""
    check_task(task, len(columns))
    if are_numbers(len(columns), task, like):
        return Answers(targets=_numbers(columns), notes=_dates_noted([own.column for own in columns]))
    (only,) = columns
    values, column = only.array(), only.column
    if column.kind == "category":
        return Answers(labels=values.astype(np.int64), class_names=column.categories)
    if column.kind == "boolean":
        return Answers(labels=values.astype(np.int64), class_names=_BOOLEAN_NAMES)
    if like is not None:
        return Answers(labels=_whole(column, values))
    if task in _CLASS_TASKS:
        return _classes(column, _whole(column, values))
    return _by_values(column, values)


def named_labels(values: ArrayLike) -> Answers | None:
    """Return texts (rows,) as labels with the names of their classes; None for what are no texts.

    Raises `InvalidRequest` for a row without a text.
    """
    try:
        array = np.asarray(values)
    except (ValueError, TypeError):  # no array at all
        return None
    if array.ndim != 1 or not (array.dtype.kind in "UST" or (array.dtype.kind == "O" and _has_text(array))):
        return None
    texts = [text_of(cell.decode() if isinstance(cell, bytes) else cell) for cell in array.tolist()]
    if None in texts:
        raise InvalidRequest(f"labels must have a value in every row, got none at row {texts.index(None)}")
    names = [category_of(text) for text in texts if text is not None]
    classes = tuple(sorted(set(names)))
    if len(classes) > ASKED_CATEGORY_LIMIT:
        raise InvalidRequest(f"labels must have at most {ASKED_CATEGORY_LIMIT:,} classes, got {len(classes):,}")
    check_categories("labels", classes)
    places = {name: place for place, name in enumerate(classes)}
    return Answers(labels=np.array([places[name] for name in names], np.int64), class_names=classes)


def labels_like(values: ArrayLike, class_names: Sequence[str], owner: str) -> Any:
    """Return labels (rows,) of a model's classes by their numbers, from texts, or from values that are their names.

    Where a class is called by a number, numbers are names. Other values come back as they are. Raises `InvalidRequest`
    for a name that is no class of ``owner``.
    """
    array: Any = np.asarray(values) if class_names else np.empty(())
    are_names = array.dtype.kind in "biuf" and any(map(is_number, class_names))
    if array.ndim != 1 or not (array.dtype.kind in "UOT" or are_names):
        return values
    places = {name: place for place, name in enumerate(class_names)}
    names = [None if text is None else category_of(text) for text in map(text_of, array.tolist())]
    for row, name in enumerate(names):
        if name not in places:
            known = listed(class_names)
            raise InvalidRequest(f"labels must be classes of {owner}, {known}, got {name or 'none'} at row {row}")
    return np.array([places[name] for name in names if name is not None], np.int64)


def _has_text(array: NDArray[Any]) -> bool:
    return any(isinstance(cell, str) for cell in array.tolist())


def _numbers(columns: Sequence[Values]) -> NDArray[np.float64]:
    for values in columns:
        if values.column.kind == "category":
            name, first = values.column.name, values.column.categories[0]
            way = "task multiclass takes texts" if len(columns) == 1 else "texts are learnt one column at a time"
            raise InvalidRequest(f"target {name} must hold numbers, got {first[:40]!r}; {way}")
    return np.column_stack([values.array() for values in columns])


def _dates_noted(columns: Sequence[Column]) -> tuple[str, ...]:
    dates = [column.name for column in columns if column.kind == "date"]
    return (f"learnt and predicted as days since 1970-01-01: {listed(dates)}",) if dates else ()


def _whole(column: Column, values: NDArray[np.float64]) -> NDArray[np.int64]:
    wrong = np.flatnonzero((values != np.floor(values)) | (np.abs(values) > 2**53))
    if wrong.size:
        rule = "must hold whole numbers or texts to be classes"
        raise InvalidRequest(f"target {column.name} {rule}, got {values[wrong[0]]:g}; task regression predicts numbers")
    return values.astype(np.int64)


def _classes(column: Column, values: NDArray[np.int64]) -> Answers:
    found, labels = np.unique(values, return_inverse=True)
    if len(found) > LARGEST_LABEL:
        rule = f"at most {LARGEST_LABEL:,} classes"
        raise InvalidRequest(
            f"target {column.name} must have {rule}, got {len(found):,}; task regression predicts numbers"
        )
    is_counted = found[0] == 0 and found[-1] == len(found) - 1
    return Answers(labels=labels.astype(np.int64), class_names=() if is_counted else tuple(map(str, found.tolist())))


def _by_values(column: Column, values: NDArray[np.float64]) -> Answers:
    found = np.unique(values)
    numbers = Answers(targets=values[:, None], notes=_dates_noted([column]))
    if column.kind != "number" or not np.array_equal(found, np.floor(found)) or np.abs(found).max() > 2**53:
        return numbers
    is_counted = found[0] == 0 and found[-1] == len(found) - 1
    if len(found) <= CLASS_LIMIT and (is_counted or 2 * len(found) <= len(values)):
        return _classes(column, values.astype(np.int64))
    if CLASS_LIMIT < len(found) <= _HINTED_VALUES_LIMIT:
        note = f"{column.name} has {len(found):,} different whole numbers and is predicted as a number"
        return replace(numbers, notes=(f"{note}; task multiclass takes them for classes",))
    return numbers
