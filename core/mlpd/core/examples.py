"""From data sets to what a run works on: split, weighted, scaled. All on the host, all from the spec alone."""

from dataclasses import dataclass

import numpy as np
from mlpd.core.arrays import HostArray
from mlpd.core.data import Dataset
from mlpd.core.model import Scaling
from mlpd.core.random import Purpose, bits
from mlpd.core.spec import TrainingSpec
from mlpd.core.tasks import TASKS
from numpy.typing import NDArray


@dataclass(frozen=True)
class Examples:
    """Rows to train on and to validate on, how inputs are scaled, and how much each training row counts.

    ``row_count`` is that of the data set before any were held out. ``weights`` (rows, 1) have a mean of 1.
    """

    row_count: int
    train: Dataset
    validation: Dataset | None
    scaling: Scaling
    weights: HostArray | None

    @classmethod
    def of(
        cls, spec: TrainingSpec, dataset: Dataset, validation: Dataset | None, scaling: Scaling | None = None
    ) -> "Examples":
        """Prepare data sets for a run; ``scaling`` is that of a model it goes on from."""
        row_count, held_out = len(dataset), spec.held_out_count(len(dataset))
        if held_out:
            chosen = held_out_rows(dataset.targets, held_out, spec.seed)
            validation = dataset.rows(chosen)
            dataset = dataset.rows(np.setdiff1d(np.arange(row_count), chosen))
        if scaling is None:
            scaling = Scaling.of(spec.model, dataset.inputs)
        return cls(row_count, dataset, validation, scaling, _row_weights(spec, dataset))


def held_out_rows(targets: HostArray, count: int, seed: int) -> NDArray[np.int64]:
    """Choose ``count`` rows at random, but from each class in proportion: every so many of them, sorted by class."""
    noise = bits(seed, Purpose.SPLIT, 0, len(targets))
    order = np.lexsort((noise, targets)) if targets.ndim == 1 else np.argsort(noise, kind="stable")
    places = (2 * np.arange(count) + 1) * len(targets) // (2 * count)
    return np.sort(order[places])


def _row_weights(spec: TrainingSpec, dataset: Dataset) -> HostArray | None:
    """Multiply the weights of rows and of their classes."""
    weights = None if dataset.weights is None else dataset.weights.astype(np.float64)
    if spec.loss.class_weights and TASKS[spec.task].has_classes:
        of_classes = np.asarray(spec.loss.class_weights)[dataset.targets.astype(np.intp)]
        weights = of_classes if weights is None else weights * of_classes
    if weights is None:
        return None
    mean = weights.mean()
    return (weights / mean if mean > 0 else weights).astype(spec.model.dtype)[:, None]
