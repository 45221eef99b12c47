"""What a model says of rows, with the names that its training data had: predictions and evaluations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mlpd.client.arrays import array_from
from mlpd.client.errors import InvalidRequest
from mlpd.v1 import trainer_service_pb2 as pb
from mlpd.v1.model_service_pb2 import ModelVersion
from numpy.typing import NDArray


@dataclass(frozen=True)
class Evaluation:
    """Exact counts of a model on labelled rows; ``loss`` is the mean.

    ``confusion`` has rows by (true class, predicted class), ``metrics`` scores by name, ``classes`` those of each class
    or label; all three if asked for. ``correct_count`` is None for regression. ``class_names`` are those of the
    classes or labels, in order: their numbers as texts, where they have none.
    """

    model: str
    parameters_sha256: str
    row_count: int
    correct_count: int | None
    loss: float
    confusion: NDArray[np.int64] | None
    metrics: Mapping[str, float]
    classes: Sequence[pb.ClassScores]
    class_names: Sequence[str] = ()

    def __repr__(self) -> str:
        scored = "" if self.accuracy is None else f", accuracy {self.accuracy:.4f}"
        return f"Evaluation(model={self.model!r}, {self.row_count} rows{scored}, loss {self.loss:.6g})"

    @property
    def accuracy(self) -> float | None:
        """Fraction of rows that are right in all; None for regression."""
        return None if self.correct_count is None else self.correct_count / self.row_count


@dataclass(frozen=True)
class Prediction:
    """A model's answer for rows.

    Of classes: probabilities (rows, classes), the most probable classes (rows,). Of labels: probabilities (rows,
    labels), classes (rows, labels) 0 or 1. Of regression: ``values`` (rows, outputs), the other two empty. Always:
    ``logits`` (rows, outputs), what the last layer gave. ``class_names`` are those of the classes, or of the labels or
    values: their numbers as texts, where they have none.
    """

    model: str
    logits: NDArray[Any]
    classes: NDArray[np.int64]
    probabilities: NDArray[Any]
    values: NDArray[Any]
    class_names: Sequence[str] = ()

    @property
    def labels(self) -> NDArray[np.str_]:
        """The names of the most probable classes (rows,); of labels or regression there are none."""
        return np.array(self.class_names)[self.classes] if self.classes.ndim == 1 else np.empty(0, np.str_)

    def top(self, count: int) -> tuple[NDArray[np.str_], NDArray[Any]]:
        """Return the names of each row's ``count`` most probable classes, (rows, count), and their probabilities.

        Raises `InvalidRequest` where there are no classes, or not so many.
        """
        if self.classes.ndim != 1 or len(self.values):
            raise InvalidRequest(f"top must be left out, for {self.model} has no classes that exclude each other")
        found = len(self.class_names)
        if not 1 <= count <= found:
            raise InvalidRequest(f"top must be between 1 and {found}, the classes of {self.model}, got {count}")
        order = np.argsort(-self.probabilities, axis=1, kind="stable")[:, :count]
        return np.array(self.class_names)[order], np.take_along_axis(self.probabilities, order, axis=1)

    def __repr__(self) -> str:
        what = f"{self.values.shape[1]} values" if len(self.values) else f"{len(self.class_names)} classes"
        return f"Prediction(model={self.model!r}, {len(self.logits)} rows, {what})"


def prediction_of(answers: Sequence[pb.PredictResponse], version: ModelVersion) -> Prediction:
    """Return what a model version answered for parts of rows, in order, as one."""
    return Prediction(
        model=version.name,
        logits=_joined([answer.logits for answer in answers]),
        classes=_joined([answer.classes for answer in answers if answer.HasField("classes")]),
        probabilities=_joined([answer.probabilities for answer in answers if answer.HasField("probabilities")]),
        values=_joined([answer.values for answer in answers if answer.HasField("values")]),
        class_names=names_of(version),
    )


def evaluation_of(answers: Sequence[pb.EvaluateResponse], version: ModelVersion) -> Evaluation:
    """Return what a model version scored on parts of rows as one; further scores are those of the first part."""
    row_count = sum(answer.row_count for answer in answers)
    asked = answers[0].HasField("confusion_matrix")
    return Evaluation(
        model=answers[0].model,
        parameters_sha256=answers[0].parameters_sha256,
        row_count=row_count,
        correct_count=sum(answer.correct_count for answer in answers) if answers[0].HasField("correct_count") else None,
        loss=sum(answer.loss * (answer.row_count / row_count) for answer in answers),
        confusion=np.sum([array_from(answer.confusion_matrix) for answer in answers], axis=0) if asked else None,
        metrics=dict(answers[0].metrics),
        classes=list(answers[0].class_scores),
        class_names=names_of(version),
    )


def names_of(version: ModelVersion) -> list[str]:
    """Return what a version's classes, labels or values are called, one each: their numbers where they have no names.

    A network may tell more classes apart than its training data had; these are called class 3, class 4, ...
    """
    count = 2 if version.task == "binary" else version.spec.layer_sizes[-1]
    names = version.class_names if version.task in ("multiclass", "binary") else version.target_names
    others = range(len(names), count)
    return [*names, *(f"class {place}" for place in others)] if names else list(map(str, others))


def _joined(tensors: list[Any]) -> NDArray[Any]:
    return np.concatenate([array_from(tensor) for tensor in tensors]) if tensors else np.empty(0)
