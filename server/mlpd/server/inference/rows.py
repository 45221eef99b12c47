"""Rows of a request as arrays that fit its model. Each value is looked at: call this in threads, not on the loop."""

from dataclasses import dataclass

import numpy as np
from mlpd.core.data.arrangement import Arrangement
from mlpd.core.data.datasets import Dataset
from mlpd.core.data.encoding import Encoder
from mlpd.core.network.tasks import TASKS
from mlpd.server.columns import arranged
from mlpd.server.errors import InvalidRequest
from mlpd.server.names import version_name
from mlpd.server.records import DatasetRecord, ModelRecord
from mlpd.server.wire.tensors import inputs_from, labels_from, targets_from
from mlpd.v1.trainer_service_pb2 import LabelledRows
from mlpd.v1.types_pb2 import Tensor
from numpy.typing import NDArray

# Rows times outputs: for a prediction, so that its answer has at most 12 MiB, as one copy of them holds up all others;
# for scores, which need all in memory.
MAX_PREDICTION_VALUES = 2**19
_SCORED_VALUES_LIMIT = 2**26
_CONFUSION_CLASSES_LIMIT = 1024


def prediction_inputs(record: ModelRecord, tensor: Tensor) -> NDArray[np.generic]:
    """Return the inputs (rows, input_size) in the bytes of ``tensor``, read-only.

    Raises `InvalidRequest` for rows that do not fit the model, are not finite, or are too many to be answered at once.
    """
    output_count = record.spec.layer_sizes[-1]
    inputs = inputs_from("inputs", tensor, record.input_size, _encoder(record))
    if len(inputs) * output_count > MAX_PREDICTION_VALUES:
        most = MAX_PREDICTION_VALUES // output_count
        text = f"inputs.shape must be of at most {most} rows for {output_count} outputs, got {len(inputs)}"
        raise InvalidRequest.field("inputs.shape", text, "PREDICTION_TOO_LARGE")
    return inputs


@dataclass(frozen=True)
class ScoredRows:
    """Rows or a data set to score a model on, and the ``field`` of the request that errors name for them.

    ``arrangement`` puts the rows as the model has them.
    """

    field: str
    rows: Dataset | DatasetRecord
    arrangement: Arrangement


def scored_rows(
    record: ModelRecord, data: LabelledRows | DatasetRecord, *, include_confusion: bool, include_scores: bool
) -> ScoredRows:
    """Return what a request wants scored: its own rows as arrays, or a data set.

    Raises `InvalidRequest` for rows that do not fit the model or are not finite, and for a confusion matrix or scores
    that can't be given.
    """
    if include_confusion:
        _check_confusion(record)
    if isinstance(data, DatasetRecord):
        chosen, row_count = ScoredRows("dataset", data, _arrangement(record, data)), data.row_count
    else:
        rows = _labelled_rows(record, data)
        chosen, row_count = ScoredRows("rows.inputs", rows, Arrangement()), len(rows)
    if include_scores:
        _check_scored(record, row_count)
    return chosen


def _class_count(record: ModelRecord) -> int:
    return TASKS[record.task].class_count(record.spec.layer_sizes[-1])


def _encoder(record: ModelRecord) -> Encoder | None:
    """Return what encodes rows for a model whose columns have names; other rows are taken as they are."""
    return Encoder(record.schema.columns) if record.schema.columns else None


def _labelled_rows(record: ModelRecord, rows: LabelledRows) -> Dataset:
    output_count = record.spec.layer_sizes[-1]
    inputs = inputs_from("rows.inputs", rows.inputs, record.input_size, _encoder(record))
    if classes := _class_count(record):
        return Dataset(inputs, labels_from("rows.labels", rows.labels, len(inputs), classes))
    return Dataset(inputs, targets_from("rows.labels", rows.labels, len(inputs), output_count))


def _arrangement(record: ModelRecord, dataset: DatasetRecord) -> Arrangement:
    """Return `ScoredRows.arrangement` for ``dataset``; raises `InvalidRequest` if it does not fit the model."""
    input_size, output_count = record.input_size, record.spec.layer_sizes[-1]
    name = version_name(record.model_id, record.version)
    how = arranged("dataset", dataset, record, name)
    classes = _class_count(record)
    wanted = f"at most {classes} classes" if classes else f"{output_count} numbers as targets"
    found = f"{len(dataset.class_row_counts)} classes"
    if dataset.target_size:
        found = f"{dataset.target_size} numbers as targets"
    fits = dataset.target_size == (0 if classes else output_count)
    if dataset.input_size != input_size or not fits or len(dataset.class_row_counts) > classes:
        raise InvalidRequest.field(
            "dataset",
            f"dataset must have rows of {input_size} values and {wanted} as the model has, "
            f"got {dataset.input_size} and {found}",
            "SHAPE_MISMATCH",
        )
    return how


def _check_confusion(record: ModelRecord) -> None:
    if not 1 <= _class_count(record) <= _CONFUSION_CLASSES_LIMIT:
        raise InvalidRequest.field(
            "include_confusion_matrix",
            f"include_confusion_matrix must be unset without classes or with more than {_CONFUSION_CLASSES_LIMIT}, "
            f"this model has {_class_count(record)}",
        )


def _check_scored(record: ModelRecord, row_count: int) -> None:
    value_count = row_count * record.spec.layer_sizes[-1]
    if value_count > _SCORED_VALUES_LIMIT:
        raise InvalidRequest.field(
            "include_scores",
            f"include_scores must be unset above {_SCORED_VALUES_LIMIT} rows times outputs, this is {value_count}",
        )
