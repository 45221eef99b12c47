"""Data in memory with what to learn of them: arrays of any library, lists and frames."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any, Unpack

import numpy as np
from mlpd.client.columns import check_names, frame_names, frame_rows, is_frame, listed, rows_for
from mlpd.client.errors import InvalidRequest
from mlpd.client.kinds import check_unset
from mlpd.client.tables.answers import Answers, named_labels
from mlpd.client.tables.cells import narrowed
from mlpd.client.tables.columns import Column, columns_from
from mlpd.client.tables.opening import is_table
from mlpd.client.tables.reading import TableOptions, read_labelled, read_rows, read_table
from mlpd.client.tables.table import LabelledTable, Schema, Table
from mlpd.v1.model_service_pb2 import ModelVersion

_DENSE_LIMIT_BYTES = 2**30
_HOST_DEVICES = (1, 3, 11)  # of DLPack: the CPU's memory, pinned and managed


def understood(
    data: Any,
    labels: Any = None,
    targets: Any = None,
    weights: Any = None,
    input_names: Sequence[str] | None = None,
    like: Schema | None = None,
    **options: Unpack[TableOptions],
) -> LabelledTable:
    """Return rows and what to learn of them, from a path, a frame or an array (rows, ...).

    Where neither ``labels`` nor ``targets`` are given, they are columns of the table. Raises `InvalidRequest` for what
    can't be stored.
    """
    if isinstance(data, LabelledTable):
        return data
    if labels is None and targets is None and not _is_array(data):
        check_unset(
            {"weights": weights, "input_names": input_names}, "be unset with a table, where weight names a column"
        )
        return read_labelled(data, like, **options)
    answers = {"labels": labels, "targets": targets, "weights": weights}
    if _is_array(data):
        check_unset({**options, "like": like}, "be unset with an array")
        table = _array_table(data, input_names)
    else:
        check_unset({"like": like}, "be unset where labels or targets are given and no target is named")
        _check_apart(data, answers)
        table = read_table(data, **options)
        if input_names is not None:
            check_names("input_names", input_names, len(table.columns))
            named = (replace(column, name=name) for column, name in zip(table.columns, input_names, strict=True))
            table = replace(table, columns=tuple(named))
    found = None if labels is None else named_labels(labels)
    found = found or Answers(labels=None if labels is None else host_array("labels", labels))
    return LabelledTable(
        **vars(table),
        labels=found.labels,
        targets=None if targets is None else _target_array(targets),
        weights=None if weights is None else host_array("weights", weights),
        class_names=found.class_names,
        target_names=frame_names("targets", targets) if is_frame(targets) else (),
    )


def model_rows(inputs: Any, version: ModelVersion) -> Any:
    """Return rows (rows, ...) for a model, from an array, or from a frame whose columns are matched by name.

    Warns of categories that the model has not seen, and of missing values where it saw none. Raises `InvalidRequest`
    for a column that is missing, and for one too many.
    """
    columns = columns_from(version.columns)
    if _is_array(inputs):
        return host_array("inputs", inputs)
    if is_frame(inputs) and all(column.kind == "number" for column in columns) and not hasattr(inputs, "schema"):
        rows = rows_for("inputs", inputs, version.input_names, version.name)
        for sentence in filled_in(rows, version):
            warnings.warn(sentence, stacklevel=3)
        return rows
    table = read_rows(inputs, columns or tuple(map(Column, version.input_names)), version.name)
    if table.left_out and is_table(inputs):
        extra = f"got also {listed(table.left_out)}; leave them out: frame[list(model.input_names)]"
        raise InvalidRequest(f"inputs must have only the columns of {version.name}, {extra}")
    for sentence in (*table.warnings, *filled_in(table.inputs, version)):
        warnings.warn(sentence, stacklevel=3)
    return table.inputs


def filled_in(rows: Any, version: ModelVersion) -> list[str]:
    """Say which missing values of rows (rows, columns) count as a median though the model never saw one missing."""
    array = np.asarray(rows)
    if array.dtype.kind != "f" or array.ndim != 2 or array.shape[1] != len(version.columns):
        return []
    counts = np.isnan(array).sum(axis=0).tolist()
    return [
        f"{count:,} rows lack {column.name}, which {version.name} never saw missing: "
        f"they count as its median, {column.missing_value:g}"
        for column, count in zip(version.columns, counts, strict=True)
        if count and column.HasField("missing_value") and not column.marks_missing
    ]


def host_array(name: str, values: Any) -> Any:
    """Return what NumPy takes as it is, and copies of arrays of other libraries in the host's memory.

    Sparse arrays are filled up to 1 GiB. Raises `InvalidRequest` for an array that can't be had.
    """
    if isinstance(values, np.ndarray):
        return values
    if hasattr(values, "toarray") and hasattr(values, "nnz"):
        size_bytes = prod(values.shape) * values.dtype.itemsize
        if size_bytes > _DENSE_LIMIT_BYTES:
            rule = f"{name} must have at most {_DENSE_LIMIT_BYTES:,} bytes with all their zeros"
            raise InvalidRequest(f"{rule}, got {size_bytes:,}; leave columns out")
        return values.toarray()
    if not hasattr(values, "__dlpack_device__"):
        return values
    if values.__dlpack_device__()[0] not in _HOST_DEVICES:
        if hasattr(values, "get"):
            return values.get()
        raise InvalidRequest(f"{name} must be in the host's memory, got an array on a GPU: copy it, with .cpu()")
    try:
        return np.from_dlpack(values)
    except (BufferError, RuntimeError, TypeError) as error:
        way = "detach it and copy it to the host, with .detach().cpu()"
        raise InvalidRequest(f"{name} must be an array that NumPy can read, got {error}; {way}") from error


def _is_array(data: Any) -> bool:
    return not isinstance(data, str) and not hasattr(data, "__fspath__") and not is_table(data)


def _array_table(data: Any, input_names: Sequence[str] | None) -> Table:
    columns = tuple(map(Column, input_names or ()))
    array = host_array("inputs", data)
    if not isinstance(array, np.ma.MaskedArray):
        return Table(array, columns)
    if array.ndim != 2 or array.dtype.kind not in "biuf":
        raise InvalidRequest(
            f"inputs must be numbers (rows, width) where some are masked, got {array.dtype} {array.shape}"
        )
    values = np.ma.filled(array.astype(np.float64), np.nan)
    is_plain = not np.isnan(values).any()
    if not is_plain and not columns:
        columns = tuple(Column(f"column {place + 1}") for place in range(values.shape[1]))
    return Table(narrowed(values), columns, is_plain=is_plain)


def _target_array(targets: Any) -> Any:
    """Return targets as an array, a frame's columns in their order."""
    return (
        frame_rows("targets", targets, list(targets.columns)) if is_frame(targets) else host_array("targets", targets)
    )


def _check_apart(data: Any, answers: dict[str, Any]) -> None:
    """Raise `InvalidRequest` where a frame still has a column that is among the answers, what is to be learnt of it."""
    columns = list(getattr(data, "columns", ()))
    for name, values in answers.items():
        own = list(values.columns) if is_frame(values) else [getattr(values, "name", None)]
        if both := [label for label in own if isinstance(label, str) and label in columns]:
            raise InvalidRequest(f"inputs must not have the columns of {name}, got {both[0]!r} in both")
