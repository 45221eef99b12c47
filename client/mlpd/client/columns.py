"""Columns by their names: those of frames and files, and those that a model was trained on."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mlpd.client.errors import InvalidRequest
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.generic]

_NAME_LIMIT_CHARACTERS = 256
_SHOWN_NAMES = 5
# What pandas calls a column without a name when it reads a file: usually the index that it wrote itself.
_UNNAMED = "Unnamed: "


def is_unnamed(name: str) -> bool:
    """Whether a header gives a column no name, or the one that pandas gives such a column."""
    return not name or name.startswith(_UNNAMED)


def check_names(field: str, names: Sequence[str], count: int) -> None:
    """Raise `InvalidRequest` unless there are ``count`` names that can tell columns apart."""
    if len(names) != count:
        raise InvalidRequest(f"{field} must have one name a column, {count}, got {len(names)}")
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InvalidRequest(f"{field} must name each column once, got {name[:40]!r} twice")
        if not 1 <= len(name) <= _NAME_LIMIT_CHARACTERS or not name.isprintable():
            rule = f"printable texts of 1 to {_NAME_LIMIT_CHARACTERS} characters"
            raise InvalidRequest(f"{field} must have names that are {rule}, got {name[:40]!a}")
        seen.add(name)


def is_frame(inputs: Any) -> bool:
    """Whether ``inputs`` has named columns, as the data frames of pandas and Polars have."""
    return hasattr(inputs, "columns") and hasattr(inputs, "__getitem__")


def frame_names(field: str, frame: Any) -> tuple[str, ...]:
    """Return the names of a frame's columns; none where they are only numbered, 0, 1, 2, ...

    Raises `InvalidRequest` for names that can't tell columns apart, and for an index that was read as a column.
    """
    labels = list(frame.columns)
    if all(isinstance(label, int) for label in labels) and labels == list(range(len(labels))):
        return ()
    if wrong := [label for label in labels if not isinstance(label, str)]:
        raise InvalidRequest(f"{field} must have columns that texts name, got {str(wrong[0])[:40]}")
    check_names(field, labels, len(labels))
    if unnamed := [name for name in labels if is_unnamed(name)]:
        raise InvalidRequest(f"{field} must have a name for each column, got {unnamed[0]!r}; leave it out if an index")
    return tuple(labels)


def frame_rows(field: str, frame: Any, labels: Sequence[Any]) -> Array:
    """Return the columns ``labels`` of a frame as one array (rows, columns); all must hold numbers."""
    columns = [np.asarray(frame[label]) for label in labels]
    for label, column in zip(labels, columns, strict=True):
        if column.dtype.kind not in "biuf":
            raise InvalidRequest(f"{field} must hold numbers, got {column.dtype} in the column {label!r}")
    if not columns:
        raise InvalidRequest(f"{field} must have at least one column, got none")
    return np.column_stack(columns)


def rows_for(field: str, inputs: Any, wanted: Sequence[str], owner: str) -> ArrayLike:
    """Return rows with their columns in the order ``wanted``, that of the model ``owner``.

    A frame's columns are matched by name; arrays, and columns without names on either side, are taken as they are.
    Raises `InvalidRequest` for a column that is missing, and for one too many.
    """
    if not is_frame(inputs):
        rows: ArrayLike = inputs
        return rows
    found = frame_names(field, inputs)
    if not found or not wanted:
        return frame_rows(field, inputs, list(inputs.columns))
    _, extra = places_of(field, found, wanted, owner)
    if extra:
        rule = f"{field} must have only the columns of {owner}"
        raise InvalidRequest(f"{rule}, got also {listed(extra)}; leave them out: frame[list(model.input_names)]")
    return frame_rows(field, inputs, wanted)


def places_of(field: str, found: Sequence[str], wanted: Sequence[str], owner: str) -> tuple[list[int], list[str]]:
    """Return where each of ``wanted`` stands in ``found``, and what else is there.

    Raises `InvalidRequest` that names what is missing.
    """
    places = {name: place for place, name in enumerate(found)}
    if missing := [name for name in wanted if name not in places]:
        known = f"it has {listed(found)}"
        raise InvalidRequest(f"{field} must have the columns of {owner}, but it lacks {listed(missing)}; {known}")
    own = set(wanted)
    return [places[name] for name in wanted], [name for name in found if name not in own]


def listed(names: Sequence[str]) -> str:
    """Return the first of ``names``, and how many more there are."""
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return ", ".join(name[:40] or "a column without a name" for name in names[:_SHOWN_NAMES]) + more
