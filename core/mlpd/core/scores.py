"""Scores of predictions, from all rows and exact; only the calibration error has bins, by its definition.

Conventions are those of scikit-learn where it has the score; a ratio without a denominator is 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from mlpd.core.arrays import HostArray
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_TOP_COUNTS = (2, 3, 5)
_CALIBRATION_BINS = 15  # Guo et al. 2017 (arXiv:1706.04599), section 4
_SMALLEST_PROBABILITY = float(np.finfo(np.float32).tiny)
_AREA_VALUES_LIMIT = 2**26


@dataclass(frozen=True)
class ClassScores:
    """Of one class or label against the rest; ``roc_auc`` is None where one side has no rows."""

    row_count: int
    precision: float
    recall: float
    f1: float
    roc_auc: float | None


@dataclass(frozen=True)
class Scores:
    """Numbers by name, for the whole; then class by class."""

    values: Mapping[str, float]
    classes: tuple[ClassScores, ...]


class Scorer:
    """Collects targets and predictions of a task, batch by batch; not for use by two threads.

    Keeps all of them, in their own types: areas under curves need every one.
    """

    def __init__(self, task: str, classes: int) -> None:
        self._task, self._classes = task, classes
        self._targets: list[HostArray] = []
        self._predictions: list[HostArray] = []

    def add(self, targets: HostArray, predictions: HostArray) -> None:
        """Take a batch: targets as in a data set, predictions (rows, outputs)."""
        self._targets.append(targets)
        self._predictions.append(predictions)

    def scores(self) -> Scores:
        """Return the scores of all batches."""
        targets, predictions = np.concatenate(self._targets), np.concatenate(self._predictions)
        if self._task == "regression":
            return Scores(_regression(targets.astype(np.float64), predictions.astype(np.float64)), ())
        if self._task == "multilabel":
            return _multilabel(targets, predictions)
        if self._task == "binary":
            predictions = np.concatenate([1 - predictions, predictions], axis=1)
        return _multiclass(targets.astype(np.int64), predictions, self._classes)


def _regression(targets: Floats, predictions: Floats) -> dict[str, float]:
    """Mean errors over all numbers, and R2, a mean over the outputs."""
    errors = predictions - targets
    residual, spread = (errors**2).sum(axis=0), ((targets - targets.mean(axis=0)) ** 2).sum(axis=0)
    flat = np.where(residual > 0, 0.0, 1.0)  # of an output that is constant
    r2 = np.where(spread > 0, 1 - residual / np.where(spread > 0, spread, 1), flat)
    return {
        "mean_squared_error": float((errors**2).mean()),
        "root_mean_squared_error": float(np.sqrt((errors**2).mean())),
        "mean_absolute_error": float(np.abs(errors).mean()),
        "r2": float(r2.mean()),
    }


def _multiclass(labels: NDArray[np.int64], predictions: HostArray, classes: int) -> Scores:
    rows = np.arange(len(labels))
    chosen = predictions[rows, labels].astype(np.float64)
    predicted = predictions.argmax(axis=1)
    hits = predicted == labels
    values = {
        "accuracy": float(hits.mean()),
        "log_loss": float(-np.log(np.maximum(chosen, _SMALLEST_PROBABILITY)).mean()),
        "brier": float(_brier(labels, predictions)),
        "calibration_error": _calibration_error(predictions.max(axis=1), hits),
    }
    # A row's rank: the classes that are more probable, and those as probable that come before its own.
    ahead = (predictions > predictions[rows, labels][:, None]).sum(axis=1)
    ties = (predictions == predictions[rows, labels][:, None]) & (np.arange(classes) < labels[:, None])
    rank = ahead + ties.sum(axis=1)
    values |= {f"top_{count}_accuracy": float((rank < count).mean()) for count in _TOP_COUNTS if count < classes}
    true = np.bincount(labels, minlength=classes)
    found = np.bincount(predicted, minlength=classes)
    right = np.bincount(labels[hits], minlength=classes)
    if classes == 2:  # as in the usual binary scores, class 1 stands for the whole
        areas = _areas([labels == 1], predictions[:, 1:]) * 2
    else:
        areas = _areas([labels == c for c in range(classes)], predictions)
    own = _class_scores(true, found, right, areas)
    whole = {"roc_auc": areas[1]} if classes == 2 and areas[1] is not None else {}
    return Scores(values | _means(own, (true + found) > 0) | whole, own)


def _brier(labels: NDArray[np.int64], predictions: HostArray) -> float:
    """Mean squared distance of probabilities from the truth; of class 1 alone where there are two."""
    squares = np.einsum("ij,ij->i", predictions, predictions, dtype=np.float64)
    whole = float((squares - 2.0 * predictions[np.arange(len(labels)), labels] + 1.0).mean())
    return whole / 2 if predictions.shape[1] == 2 else whole


def _multilabel(targets: HostArray, predictions: HostArray) -> Scores:
    truth, found = targets > 0.5, predictions > 0.5
    shares = predictions.astype(np.float64)
    tiny = _SMALLEST_PROBABILITY
    losses = -(targets * np.log(np.maximum(shares, tiny)) + (1 - targets) * np.log(np.maximum(1 - shares, tiny)))
    areas = _areas(list(truth.T), predictions)
    own = _class_scores(truth.sum(axis=0), found.sum(axis=0), (truth & found).sum(axis=0), areas)
    values = {
        "accuracy": float((truth == found).all(axis=1).mean()),
        "label_accuracy": float((truth == found).mean()),
        "log_loss": float(losses.mean()),
        "brier": float(((shares - targets) ** 2).mean()),
    }
    return Scores(values | _means(own, np.full(len(own), True)), own)


def _class_scores(
    true: NDArray[np.int64], found: NDArray[np.int64], right: NDArray[np.int64], areas: list[float | None]
) -> tuple[ClassScores, ...]:
    precision, recall = right / np.maximum(found, 1), right / np.maximum(true, 1)
    f1 = 2 * right / np.maximum(true + found, 1)
    table = zip(true.tolist(), precision.tolist(), recall.tolist(), f1.tolist(), areas, strict=True)
    return tuple(ClassScores(*row) for row in table)


def _means(own: tuple[ClassScores, ...], counts: NDArray[np.bool_]) -> dict[str, float]:
    """Return means over the classes that count: plain ("macro") and by their rows ("weighted")."""
    present = [scores for scores, one_counts in zip(own, counts, strict=True) if one_counts]
    weights = [scores.row_count for scores in present]
    means: dict[str, float] = {}
    for name in ("precision", "recall", "f1"):
        values = [getattr(scores, name) for scores in present]
        means[f"macro_{name}"] = float(np.mean(values)) if values else 0.0
        means[f"weighted_{name}"] = float(np.average(values, weights=weights)) if any(weights) else 0.0
    areas = [scores.roc_auc for scores in own if scores.roc_auc is not None]
    return means | ({"macro_roc_auc": float(np.mean(areas))} if areas else {})


def _calibration_error(confidence: HostArray, hits: NDArray[np.bool_]) -> float:
    """Return the mean gap between confidence and accuracy over 15 equal bins of confidence, by their rows."""
    bins = np.minimum((confidence * _CALIBRATION_BINS).astype(np.int64), _CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, hits.astype(np.float64) - confidence, _CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(hits))


def _areas(truths: list[NDArray[np.bool_]], predictions: HostArray) -> list[float | None]:
    """Return the area under each ROC curve; None where it has none or there are too many values to sort."""
    if predictions.size > _AREA_VALUES_LIMIT:
        return [None] * len(truths)
    return [_area(truth, predictions[:, i]) for i, truth in enumerate(truths)]


def _area(truth: NDArray[np.bool_], scores: HostArray) -> float | None:
    """Return the share of (positive, negative) pairs in order, ties counting half: Mann & Whitney 1947."""
    positives = int(truth.sum())
    negatives = len(truth) - positives
    if not positives or not negatives:
        return None
    _, groups, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(sizes) - (sizes - 1) / 2  # from 1, equals share their mean
    rank_sum = float(ranks[groups[truth]].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)
