"""Rows of one table put as those of another: columns and targets by their names, categories and classes by theirs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from mlpd.core.data.columns import CATEGORY, UNKNOWN, Column, Schema
from mlpd.core.data.datasets import Dataset
from mlpd.core.devices.arrays import HostArray
from numpy.typing import NDArray

_SHOWN_NAMES, _SHOWN_CHARACTERS = 5, 40


class SchemasDiffer(ValueError):
    """A table can't be put as another, for its ``what``: columns, classes, targets; the message completes "it ..."."""

    def __init__(self, message: str, what: str = "columns") -> None:
        super().__init__(message)
        self.what = what


@dataclass(frozen=True)
class Arrangement:
    """Where each column of a table is found in another, and new places of its categories and classes.

    ``order`` None = columns are in their places, and so with ``target_order`` targets; ``places`` has those of a
    column's categories by the column's place in the new order, ``labels`` those of classes; what is left out stays as
    it is.
    """

    order: NDArray[np.intp] | None = None
    places: Mapping[int, NDArray[np.int64]] = field(default_factory=dict)
    labels: NDArray[np.int64] | None = None
    target_order: NDArray[np.intp] | None = None

    def inputs(self, rows: HostArray) -> HostArray:
        """Return ``rows`` (rows, columns), a copy unless all is in its place."""
        arranged = rows if self.order is None else rows[:, self.order]
        if self.places:
            arranged = np.array(arranged, np.float64 if arranged.dtype.kind != "f" else arranged.dtype)
        for column, places in self.places.items():
            values = arranged[:, column]
            known = values >= 0
            values[known] = places[values[known].astype(np.intp)]
        return arranged

    def targets(self, targets: HostArray) -> HostArray:
        """Return labels (rows,) or targets (rows, outputs)."""
        if self.target_order is not None:
            return targets[:, self.target_order]
        return targets if self.labels is None else self.labels[targets]

    def dataset(self, dataset: Dataset, schema: Schema) -> Dataset:
        """Return ``dataset`` as one of ``schema``, in memory unless all is in its place."""
        inputs, targets = self.inputs(dataset.inputs), self.targets(dataset.targets)
        return replace(dataset, inputs=inputs, targets=targets, schema=schema)


def arrangement(found: Schema, wanted: Schema, row_counts: Sequence[int] = ()) -> Arrangement:
    """Return how rows of ``found`` become rows of ``wanted``; ``row_counts`` are those of ``found``'s classes.

    Where either has no names, places count. Raises `SchemasDiffer` for columns and targets that only one of them has,
    columns of another kind, classes with rows that ``wanted`` does not know, and names that are other numbers than
    places.
    """
    labels = _labels(found.class_names, wanted.class_names, row_counts)
    target_order = _target_order(found.target_names, wanted.target_names)
    if not found.columns and not wanted.is_plain:
        special = next(column for column in wanted.columns if not column.is_plain)
        raise SchemasDiffer(f"has no names for its columns, while {_shown(special.name)} is not a plain number")
    if not wanted.columns and not found.is_plain:
        special = next(column for column in found.columns if not column.is_plain)
        raise SchemasDiffer(f"has a {special.kind} in {_shown(special.name)}, and columns without names are numbers")
    if not found.columns or not wanted.columns:
        return Arrangement(labels=labels, target_order=target_order)
    own = {column.name: (place, column) for place, column in enumerate(found.columns)}
    _check_names(found.input_names, wanted.input_names, "columns")
    places = {}
    for place, column in enumerate(wanted.columns):
        _, other = own[column.name]
        if column.kind != other.kind:
            raise SchemasDiffer(f"has a {other.kind} in {_shown(column.name)}, not a {column.kind}")
        if column.kind == CATEGORY and column.categories != other.categories:
            places[place] = _places(other, column)
    return Arrangement(_order(found.input_names, wanted.input_names), places, labels, target_order)


def _target_order(found: Sequence[str], wanted: Sequence[str]) -> NDArray[np.intp] | None:
    if not found or not wanted:
        return None
    _check_names(found, wanted, "targets")
    return _order(found, wanted)


def _order(found: Sequence[str], wanted: Sequence[str]) -> NDArray[np.intp] | None:
    """Return where each of ``wanted`` is in ``found``; None where they are the same."""
    own = {name: place for place, name in enumerate(found)}
    return None if tuple(found) == tuple(wanted) else np.array([own[name] for name in wanted], np.intp)


def _check_names(found: Sequence[str], wanted: Sequence[str], what: str) -> None:
    missing, extra = set(wanted) - set(found), set(found) - set(wanted)
    if missing or extra:
        parts = [f"lacks {_listed(missing, wanted)}"] if missing else []
        parts += [f"has also {_listed(extra, found)}"] if extra else []
        raise SchemasDiffer(" and ".join(parts), what)


def _places(found: Column, wanted: Column) -> NDArray[np.int64]:
    known = {category: place for place, category in enumerate(wanted.categories)}
    return np.array([known.get(category, UNKNOWN) for category in found.categories], np.int64)


def _labels(found: Sequence[str], wanted: Sequence[str], row_counts: Sequence[int]) -> NDArray[np.int64] | None:
    if found and not wanted and any(map(_is_other_number, range(len(found)), found)):
        raise SchemasDiffer(f"has classes called {_listed(set(found), found)}, and these go by number", "classes")
    if wanted and not found:
        for label, (count, name) in enumerate(zip(row_counts, wanted, strict=False)):
            if count and _is_other_number(label, name):
                raise SchemasDiffer(
                    f"has classes without names, and its {label} would count as {_shown(name)}", "classes"
                )
    if not found or not wanted or found == wanted:
        return None
    known = {name: label for label, name in enumerate(wanted)}
    strange = {name for name, count in zip(found, row_counts, strict=False) if count and name not in known}
    if strange:
        raise SchemasDiffer(f"has also {_listed(strange, found)}", "classes")
    return np.array([known.get(name, 0) for name in found], np.int64)


def _is_other_number(label: int, name: str) -> bool:
    """Whether a class is called by a whole number that is not its own."""
    return name.removeprefix("-").isdecimal() and int(name) != label


def _listed(names: set[str], order: Sequence[str]) -> str:
    """Return the first of ``names`` as they stand in ``order``, and how many more there are."""
    listed = [_shown(name) for name in order if name in names]
    more = f" and {len(listed) - _SHOWN_NAMES} more" if len(listed) > _SHOWN_NAMES else ""
    return ", ".join(listed[:_SHOWN_NAMES]) + more


def _shown(name: str) -> str:
    return ascii(name if len(name) <= _SHOWN_CHARACTERS else f"{name[:_SHOWN_CHARACTERS]}...")
