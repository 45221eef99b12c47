"""`Table` and `LabelledTable`: rows as the server takes them, and what was understood of them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from mlpd.client.columns import listed
from mlpd.client.tables.columns import Column, columns_from
from mlpd.v1.dataset_service_pb2 import Dataset
from mlpd.v1.model_service_pb2 import ModelVersion
from numpy.typing import NDArray

Array = NDArray[np.generic]


@dataclass(frozen=True)
class Table:
    """``inputs`` (rows, ...), one number for each of the ``columns``, which are empty where they have no names.

    A number is as a `Column` of the protocol says: NaN where the value is missing, and -1 for a category that is not
    known, whose texts ``unknown`` counts by the column's name; read as another table's, such texts are categories after
    that table's own. ``is_plain`` says that all are numbers and none is
    missing. ``header`` says whether a first line names the columns, None where there are no lines; ``left_out`` are
    columns and arrays that are not among the inputs; ``notes`` are what else was understood, and ``warnings`` what may
    surprise: columns that were left out though nobody asked for it, and unknown categories.
    """

    inputs: Array
    columns: tuple[Column, ...] = ()
    is_plain: bool = True
    header: bool | None = None
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    unknown: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.inputs.shape))
        names = f": {listed(self.input_names)}" if self.columns else ""
        return f"{type(self).__name__}({shape} of {self.inputs.dtype}{names})"

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(column.name for column in self.columns)


@dataclass(frozen=True, repr=False)
class LabelledTable(Table):
    """A table with what to learn of it: ``labels`` (rows,) or ``targets`` (rows, outputs); perhaps ``weights`` (rows,).

    ``class_names`` are those of the labels 0, 1, 2, ..., empty where they have none; ``target_names`` what the labels
    are called, or each target. ``sources`` says for each of the three which columns or arrays it comes from.
    """

    labels: Array | None = None
    targets: Array | None = None
    weights: Array | None = None
    class_names: tuple[str, ...] = ()
    target_names: tuple[str, ...] = ()
    sources: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def metadata(self) -> dict[str, str]:
        """Return the metadata of the data set's file."""
        lists: dict[str, list[Any]] = {
            "input_names": list(self.input_names) if self.is_plain else [],
            "columns": [] if self.is_plain else [column.fields() for column in self.columns],
            "class_names": list(self.class_names),
            "target_names": list(self.target_names),
        }
        return {name: json.dumps(values, ensure_ascii=False) for name, values in lists.items() if values}


@dataclass(frozen=True)
class Schema:
    """What another table's columns, classes and targets are, as a data set or model version has them.

    ``owner`` is what it is called; ``class_count`` is 0 where targets are numbers. ``takes_unknown`` says that rows may
    have a category that is not among a column's, as those for a model may.
    """

    owner: str
    columns: tuple[Column, ...]
    class_names: tuple[str, ...] = ()
    class_count: int = 0
    target_names: tuple[str, ...] = ()
    takes_unknown: bool = False


def schema_of(dataset: Dataset) -> Schema:
    """Return what the columns, classes and targets of a stored data set are."""
    return Schema(
        owner=dataset.name,
        columns=columns_from(dataset.columns) or tuple(map(Column, dataset.input_names)),
        class_names=tuple(dataset.class_names),
        class_count=dataset.class_count,
        target_names=tuple(dataset.target_names),
    )


def model_schema(version: ModelVersion) -> Schema:
    """Return what the columns, classes and targets of a model version are."""
    has_classes = version.task in ("multiclass", "binary")
    return Schema(
        owner=version.name,
        columns=columns_from(version.columns) or tuple(map(Column, version.input_names)),
        class_names=tuple(version.class_names),
        class_count=max(2, version.spec.layer_sizes[-1]) if has_classes else 0,
        target_names=tuple(version.target_names),
        takes_unknown=True,
    )
