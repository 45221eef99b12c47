"""Whether a trained model is better than one that ignores its inputs, and what to do where training fails.

A finite loss alone does not show that a model is of use.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from mlpd.core.data.columns import Schema
from mlpd.core.devices.arrays import Cpu, Device, HostArray
from mlpd.core.models.model import Model
from mlpd.core.models.predictor import Predictor
from mlpd.core.network.losses import BufferedLoss, Huber, MeanAbsolute
from mlpd.core.network.scaling import blocks
from mlpd.core.network.tasks import TASKS
from mlpd.core.spec.training import TrainingSpec
from mlpd.core.steps.examples import Examples
from numpy.typing import NDArray

_ROW_LIMITS = 2**10, 2**14  # rows to compare on at first, and if these leave a doubt
_CLEAR_SHARE = 0.1  # of the constant outputs' loss: a model is clearly better if its loss is lower by more
_BLOCK_ROWS, _BLOCK_VALUES = 512, 2**20
_MEDIAN_VALUES = 2**22
_FAR = 30.0  # from 0, for a network whose weights are drawn for numbers of about 1


def advice_for(spec: TrainingSpec, examples: Examples) -> str:
    """Return what to change of a run whose numbers have become too large: numbers far from 1 that it reads, if any."""
    train, advice = examples.train, []
    if not TASKS[spec.task].has_classes and examples.target_scaling is None:
        low, high = float(train.targets.min()), float(train.targets.max())
        if max(-low, high) > _FAR:
            advice.append(f"targets go from {low:g} to {high:g}: standardize_targets learns them in units of their own")
    if examples.scaling.shift is None:
        factor = float(examples.scaling.factor)
        ends = [factor * float(end) for block in blocks(train.inputs) for end in (block.min(), block.max())]
        low, high = min(ends), max(ends)
        if max(-low, high) > _FAR:
            advice.append(f"inputs go from {low:g} to {high:g}: standardize brings them near 1")
    return "; ".join([*advice, "try a smaller learning rate" if not advice else "or try a smaller learning rate"])


@dataclass(frozen=True)
class _Comparison:
    """The mean losses of a model and of constant outputs on rows, and whether the model's outputs are constant."""

    row_count: int
    loss: float
    constant_loss: float
    is_constant: bool

    @property
    def is_clear(self) -> bool:
        return self.loss < self.constant_loss - _CLEAR_SHARE * abs(self.constant_loss)


def reason_to_doubt(device: Device, spec: TrainingSpec, examples: Examples, model: Model) -> str:
    """Return why ``model`` is no better than constant outputs, or an empty text.

    Those predict the mean target, or the median where that is better. The losses are those that a run minimises, with
    its smoothed targets and weights, on about a thousand training rows, and on more if these leave a doubt. Where all
    targets are equal, the text is empty.
    """
    found = None
    for row_limit in _ROW_LIMITS:
        found = _compare(device, spec, examples, model, row_limit)
        if found and found.is_clear and not found.is_constant:
            return ""
    if found is None:
        return ""
    rows = f"{found.row_count:,} rows that it was trained on"
    if found.is_constant:
        return f"the model's outputs are the same for all of {rows}"
    if found.loss < found.constant_loss:
        return ""
    return (
        f"the model is no better than one that ignores its inputs: its loss on {rows} is {found.loss:.4g}, that of the "
        f"same outputs for all is {found.constant_loss:.4g}; try another learning rate or more epochs"
    )


def _compare(
    device: Device, spec: TrainingSpec, examples: Examples, model: Model, row_limit: int
) -> _Comparison | None:
    """Compare on up to ``row_limit`` rows; None if all their targets are equal or all their weights 0."""
    sample = _Sample(spec, examples, row_limit)
    total_weight = sum(float(weights.sum()) for _, _, weights in sample)
    if total_weight == 0 or all((targets == sample.first_target).all() for _, targets, _ in sample):
        return None
    mean = sum((targets * weights).sum(axis=0, keepdims=True) for _, targets, weights in sample) / total_weight
    rivals = [mean, *([sample.median()] if isinstance(spec.loss.kind, MeanAbsolute | Huber) else [])]
    # Training rows are encoded and moved already.
    moved = replace(model, schema=Schema(), scaling=replace(model.scaling, move=None))
    predictor = Predictor(device, moved, sample.block_rows)
    constants = [spec.loss.kind.outputs_for(rival) for rival in rivals]
    loss, constant_losses = 0.0, np.zeros(len(constants))
    low, high = np.full_like(mean, np.inf), np.full_like(mean, -np.inf)
    for inputs, targets, weights in sample:
        outputs = predictor.outputs(inputs).astype(np.float64)
        low, high = np.minimum(low, outputs.min(axis=0)), np.maximum(high, outputs.max(axis=0))
        loss += sample.loss(outputs, targets, weights) / total_weight
        repeated = (np.repeat(constant, len(outputs), axis=0) for constant in constants)
        constant_losses += [sample.loss(same, targets, weights) / total_weight for same in repeated]
    return _Comparison(sample.row_count, loss, float(constant_losses.min()), bool((low == high).all()))


class _Sample:
    """Training rows, evenly spaced, in blocks of inputs, encoded targets and weights (rows, 1), all in host memory."""

    def __init__(self, spec: TrainingSpec, examples: Examples, row_limit: int) -> None:
        outputs = spec.model.layer_sizes[-1]
        self.block_rows = max(1, min(_BLOCK_ROWS, _BLOCK_VALUES // max(spec.model.layer_sizes)))
        self.row_count = min(len(examples.train), row_limit)
        shape = outputs, self.block_rows, np.dtype(np.float64)
        self._examples = examples
        self._task = TASKS[spec.task](Cpu(), *shape, spec.loss.label_smoothing)
        self._loss = BufferedLoss(Cpu(), spec.loss.kind, *shape)
        self._gradient = np.empty((self.block_rows, outputs))
        self.first_target = next(iter(self))[1][:1]

    def __iter__(self) -> Iterator[tuple[HostArray, NDArray[np.float64], NDArray[np.float64]]]:
        train, weights = self._examples.train, self._examples.weights
        chosen = np.arange(self.row_count) * len(train) // self.row_count
        for start in range(0, self.row_count, self.block_rows):
            rows = chosen[start : start + self.block_rows]
            block = train.rows(rows)
            targets = np.empty((len(rows), self._gradient.shape[1]))
            self._task.spread(self._task.prepare(block.targets, "float64"), targets)
            yield (
                block.inputs,
                targets,
                np.ones((len(rows), 1)) if weights is None else weights[rows].astype(np.float64),
            )

    def median(self) -> HostArray:
        """Return the weighted medians (1, outputs) of the targets, of as many of the rows as fit in little memory."""
        pick = -(-self.row_count * self._gradient.shape[1] // _MEDIAN_VALUES)
        # Copies, because a slice would keep its whole block in memory.
        blocks = [(targets[::pick].copy(), weights[::pick].copy()) for _, targets, weights in self]
        targets, weights = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
        order = np.argsort(targets, axis=0, kind="stable")
        totals = np.cumsum(weights[:, 0][order], axis=0)
        places = (totals < totals[-1] / 2).sum(axis=0, keepdims=True)
        return np.take_along_axis(np.take_along_axis(targets, order, axis=0), places, axis=0)

    @np.errstate(all="ignore")  # as in a step; a loss may be infinite
    def loss(self, outputs: HostArray, targets: HostArray, weights: HostArray) -> float:
        """Return the weighted sum of the rows' losses."""
        total = np.zeros(())
        self._loss(outputs, targets, weights, self._gradient[: len(outputs)], total, 1.0)
        return float(total)
