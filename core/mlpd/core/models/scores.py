"""Scores of outputs, from all rows and exact; only the calibration error has bins, by its definition.

Conventions are those of scikit-learn where it has the score; a ratio without a denominator is 0. What is decided,
ranked or has a logarithm is taken from outputs in float64, not from probabilities, which round to 0 and 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from mlpd.core.devices.arrays import HostArray
from mlpd.core.models.odds import ClassOdds, Floats, negative_log_probability, probability
from mlpd.core.network.tasks import TASKS
from numpy.typing import NDArray

_TOP_COUNTS = (2, 3, 5)
_CALIBRATION_BINS = 15  # Guo et al. 2017 (arXiv:1706.04599), section 4
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
    """Collects targets and outputs of a task, batch by batch; not for use by two threads.

    Keeps all of them, in their own types: areas under curves need every one.
    """

    def __init__(self, task: str, classes: int) -> None:
        self._task, self._classes = TASKS[task], classes
        self._targets: list[HostArray] = []
        self._outputs: list[HostArray] = []

    def add(self, targets: HostArray, outputs: HostArray) -> None:
        """Take a batch: targets as in a data set, outputs (rows, outputs); of regression, the numbers they predict."""
        self._targets.append(targets)
        self._outputs.append(outputs)

    @np.errstate(over="ignore")  # of errors near the largest number, whose squares are beyond it
    def scores(self) -> Scores:
        """Return the scores of all batches."""
        targets, outputs = np.concatenate(self._targets), np.concatenate(self._outputs)
        if not self._task.counts_hits:
            return Scores(_regression(targets.astype(np.float64), outputs.astype(np.float64)), ())
        if not self._task.has_classes:
            return _multilabel(targets, outputs)
        if outputs.shape[1] < self._classes:  # the log odds of class 1, to which those of class 0 are 0
            outputs = np.concatenate([np.zeros_like(outputs), outputs], axis=1)
        return _multiclass(targets.astype(np.int64), outputs, self._classes)


def _regression(targets: Floats, predictions: Floats) -> dict[str, float]:
    """Mean errors over all numbers, and R2, a mean over the outputs."""
    errors = predictions - targets
    from_first = targets - targets[0]  # exactly 0 of a constant, whose mean may be another number
    residual, spread = (errors**2).sum(axis=0), ((from_first - from_first.mean(axis=0)) ** 2).sum(axis=0)
    flat = np.where(residual > 0, 0.0, 1.0)  # of an output that is constant
    r2 = np.where(spread > 0, 1 - residual / np.where(spread > 0, spread, 1), flat)
    return {
        "mean_squared_error": float((errors**2).mean()),
        "root_mean_squared_error": float(np.sqrt((errors**2).mean())),
        "mean_absolute_error": float(np.abs(errors).mean()),
        "r2": float(r2.mean()),
    }


def _multiclass(labels: NDArray[np.int64], outputs: HostArray, classes: int) -> Scores:
    chosen = outputs[np.arange(len(labels)), labels]
    predicted = outputs.argmax(axis=1)
    hits = predicted == labels
    odds = ClassOdds(outputs)
    own = odds.of(chosen)
    brier = float(odds.brier(labels, own).mean())
    values = {
        "accuracy": float(hits.mean()),
        "log_loss": float(negative_log_probability(own).mean()),
        "brier": brier / 2 if classes == 2 else brier,  # of class 1 alone where there are two
        "calibration_error": _calibration_error(odds.of_largest(), hits),
    }
    # A row's rank: the classes that are more probable, and those as probable that come before its own.
    ahead = (outputs > chosen[:, None]).sum(axis=1)
    ties = (outputs == chosen[:, None]) & (np.arange(classes) < labels[:, None])
    rank = ahead + ties.sum(axis=1)
    values |= {f"top_{count}_accuracy": float((rank < count).mean()) for count in _TOP_COUNTS if count < classes}
    true = np.bincount(labels, minlength=classes)
    found = np.bincount(predicted, minlength=classes)
    right = np.bincount(labels[hits], minlength=classes)
    ranked = [1] if classes == 2 else range(classes)  # as in the usual binary scores, class 1 stands for both
    few = len(labels) * len(ranked) <= _AREA_VALUES_LIMIT
    areas = [_area(labels == k, odds.of(outputs[:, k])) if few and true[k] else None for k in ranked]
    own_scores = _class_scores(true, found, right, areas * (classes // len(ranked)))
    whole = {"roc_auc": areas[0]} if classes == 2 and areas[0] is not None else {}
    return Scores(values | _means(own_scores, (true + found) > 0) | whole, own_scores)


def _multilabel(targets: HostArray, outputs: HostArray) -> Scores:
    truth, found = targets.astype(outputs.dtype) > 0.5, outputs > 0  # as hits are counted
    shares, odds = targets.astype(np.float64), outputs.astype(np.float64)
    losses = shares * negative_log_probability(odds) + (1 - shares) * negative_log_probability(-odds)
    errors = (1 - shares) * probability(odds) - shares * probability(-odds)
    few = outputs.size <= _AREA_VALUES_LIMIT
    areas = [_area(own, outputs[:, k]) if few else None for k, own in enumerate(truth.T)]
    own = _class_scores(truth.sum(axis=0), found.sum(axis=0), (truth & found).sum(axis=0), areas)
    values = {
        "accuracy": float((truth == found).all(axis=1).mean()),
        "label_accuracy": float((truth == found).mean()),
        "log_loss": float(losses.mean()),
        "brier": float((errors**2).mean()),
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


def _calibration_error(odds: Floats, hits: NDArray[np.bool_]) -> float:
    """Return the mean gap between confidence and accuracy over 15 equal bins of confidence, by their rows."""
    confidence = probability(odds)
    bins = np.minimum((confidence * _CALIBRATION_BINS).astype(np.int64), _CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, np.where(hits, probability(-odds), -confidence), _CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(hits))


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
