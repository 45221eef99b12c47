"""Exact scores of a model on labelled rows: counts first, everything else from them."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite

import numpy as np
from mlpd.core.data.arrangement import Arrangement
from mlpd.core.data.datasets import Dataset
from mlpd.core.models.predictor import Predictor
from mlpd.core.models.scores import Scorer, Scores
from mlpd.core.network.losses import BufferedLoss
from mlpd.core.network.tasks import TASKS
from numpy.typing import NDArray

EVALUATION_ROWS = 512  # that a run scores at a time
_FAULTY_ROWS_NAMED = 8


@dataclass(frozen=True)
class FaultyRows:
    """Rows of which a model makes what is not finite: how many there are, and the numbers of the first few."""

    count: int = 0
    first: tuple[int, ...] = ()

    def and_those_of(self, faulty: NDArray[np.bool_], start: int = 0) -> "FaultyRows":
        """Return these and the rows where ``faulty`` (rows,) is true, counted from ``start``."""
        rows = start + np.flatnonzero(faulty)
        return FaultyRows(self.count + len(rows), (*self.first, *rows.tolist())[:_FAULTY_ROWS_NAMED])


@dataclass(frozen=True)
class Counts:
    """Sums over the rows seen so far; ``correct_count`` is None where no output is right or wrong.

    ``confusion`` (true class, predicted class) and ``scores`` are there if they were asked for. ``faulty`` are rows
    whose loss is not finite, as it is wherever an output is not; then ``loss`` is not either, and there are no scores.
    """

    row_count: int
    correct_count: int | None
    loss_sum: float
    faulty: FaultyRows
    confusion: NDArray[np.int64] | None = None
    scorer: Scorer | None = None

    @property
    def loss(self) -> float:
        """Mean loss, in nats where it is a cross-entropy."""
        return self.loss_sum / self.row_count

    @property
    def accuracy(self) -> float | None:
        """Fraction of rows that are right: the largest output, the first of equals, or every yes and no."""
        return None if self.correct_count is None else self.correct_count / self.row_count

    @property
    def scores(self) -> Scores | None:
        """All other scores; takes time."""
        return self.scorer.scores() if self.scorer and isfinite(self.loss_sum) else None


def evaluate(
    predictor: Predictor,
    dataset: Dataset,
    arrangement: Arrangement | None = None,
    *,
    include_confusion: bool = False,
    include_scores: bool = False,
) -> Iterator[Counts]:
    """Score ``dataset``, yielding the counts so far after each batch; the last ones are the answer.

    ``arrangement`` puts its rows as the model has them; None = they are so.
    """
    device, capacity, model = predictor.device, predictor.capacity, predictor.model
    xp, outputs_size = device.xp, model.spec.layer_sizes[-1]
    shape = (outputs_size, capacity, np.dtype(model.spec.dtype))
    loss, task = BufferedLoss(device, model.loss, *shape), TASKS[model.task](device, *shape)
    gradient, wanted = (xp.empty((capacity, outputs_size), dtype=model.spec.dtype) for _ in range(2))
    total, hits = xp.zeros((), dtype=xp.float64), xp.zeros((), dtype=xp.int64)
    classes = task.class_count(outputs_size)
    confusion = np.zeros((classes, classes), np.int64) if include_confusion and classes else None
    scorer = Scorer(model.task, classes) if include_scores else None
    faulty = FaultyRows()
    for start in range(0, len(dataset), capacity):
        chosen = slice(start, start + capacity)
        targets, inputs = np.array(dataset.targets[chosen]), dataset.inputs[chosen]
        if arrangement:
            targets, inputs = arrangement.targets(targets), arrangement.inputs(inputs)
        rows = len(targets)
        outputs = predictor.forward(inputs)
        on_device = device.from_host(task.prepare(model.scaled(targets), model.spec.dtype))
        with np.errstate(all="ignore"):  # as in a forward pass
            task.spread(on_device, wanted[:rows])
            loss(outputs, wanted[:rows], None, gradient[:rows], total, 1.0)
        loss_sum = float(total)
        if not isfinite(loss_sum):
            faulty = faulty.and_those_of(~np.isfinite(device.to_host(loss.of_rows(rows))[:, 0]), start)
        if task.counts_hits:
            task.count_hits(outputs, on_device, hits)
        if confusion is not None or scorer:
            host = device.to_host(outputs)
            if confusion is not None:
                pairs = np.bincount(targets.astype(np.int64) * classes + task.classes(host), minlength=classes**2)
                confusion += pairs.reshape(classes, classes)
            if scorer:
                scorer.add(targets, host if task.counts_hits else model.predictions(host.astype(np.float64)))
        hit_count = int(hits) if task.counts_hits else None
        yield Counts(start + rows, hit_count, loss_sum, faulty, confusion, scorer)
