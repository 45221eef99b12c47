"""Exact scores of a classifier on labelled rows."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from mlpd.core.data import Dataset
from mlpd.core.losses import OneHot, SoftmaxCrossEntropy
from mlpd.core.model import Classifier
from numpy.typing import NDArray


@dataclass(frozen=True)
class Counts:
    """Sums over the rows seen so far; confusion (true class, predicted class) if it was asked for."""

    row_count: int
    correct_count: int
    loss_sum: float
    confusion: NDArray[np.int64] | None

    @property
    def loss(self) -> float:
        """Mean loss in nats."""
        return self.loss_sum / self.row_count

    @property
    def accuracy(self) -> float:
        """Fraction of rows whose largest logit, the first of equals, is their label's."""
        return self.correct_count / self.row_count


def evaluate(classifier: Classifier, dataset: Dataset, *, include_confusion: bool = False) -> Iterator[Counts]:
    """Score ``dataset``, yielding the counts so far after each batch; the last ones are the answer."""
    device, capacity, classes = classifier.device, classifier.capacity, classifier.classes
    xp = device.xp
    loss = SoftmaxCrossEntropy(device, classes, capacity, xp.float32)
    gradient = xp.empty((capacity, classes), dtype=xp.float32)
    targets = OneHot(device, classes, capacity)
    total = xp.zeros((), dtype=xp.float64)
    confusion = np.zeros((classes, classes), np.int64) if include_confusion else None
    correct_count = 0
    for start in range(0, len(dataset.labels), capacity):
        labels = dataset.labels[start : start + capacity].astype(np.int64)
        rows = len(labels)
        logits = classifier.forward(dataset.inputs[start : start + rows])
        loss(logits, targets(device.from_host(labels)), gradient[:rows], total, 1.0)
        predicted = device.to_host(xp.argmax(logits, axis=1))
        correct_count += int(np.count_nonzero(predicted == labels))
        if confusion is not None:
            pairs = np.bincount(labels * classes + predicted, minlength=classes * classes)
            confusion += pairs.reshape(classes, classes)
        yield Counts(start + rows, correct_count, float(total), confusion)
