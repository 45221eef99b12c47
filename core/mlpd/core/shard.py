"""A shard of a network at work: its passes, and its part of the loss and of the optimizer's step."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from mlpd.core.arrays import Device
from mlpd.core.batches import RowFormat, Slate, piece_rows
from mlpd.core.layers import Sum
from mlpd.core.losses import LOSSES
from mlpd.core.network import Pass, Seam, shapes_of, vector_size, views
from mlpd.core.optimizers import Average, Clipping, OptimizerState
from mlpd.core.scaling import Scaling
from mlpd.core.sharding import Part, seam_widths, shard_order, shard_parts
from mlpd.core.spec import TrainingSpec
from mlpd.core.tasks import TASKS

_ENDED = object()


class Order(NamedTuple):
    """What to do with the rows on a slate: a piece of a step, the ``first_row`` and those after it.

    The gradient of ``scale`` times the summed loss is taken; it adds to that of the step's earlier pieces unless this
    is the first. After the last piece the parameters move.
    """

    slate: int
    rows: int
    step: int
    first_row: int
    is_last: bool
    scale: float
    rate: float
    optimizer_step: int

    @classmethod
    def of(cls, numbers: Sequence[float]) -> "Order":
        """Return the order that was taken apart into ``numbers``."""
        slate, rows, step, first_row, is_last, scale, rate, optimizer_step = numbers
        whole = int(slate), int(rows), int(step), int(first_row)
        return cls(*whole, bool(is_last), scale, rate, int(optimizer_step))


class Board:
    """What all shards see: slates, how inputs are scaled, seams, and what the last shard counts."""

    def __init__(
        self, device: Device, spec: TrainingSpec, widths: Sequence[int], capacity: int, form: RowFormat
    ) -> None:
        xp, dtype, self.shard_count = device.xp, spec.model.dtype, spec.shard_count
        self.slates = [Slate(device, spec, capacity, form) for _ in range(2)]
        shift, factor = (device.zeros(spec.model.layer_sizes[0], xp.float64) for _ in range(2))
        self.scaling = Scaling(shift, factor) if form.factor is None else Scaling(None, form.factor)
        self.seams = [
            (device.zeros((self.shard_count, width, capacity), dtype), device.zeros((width, capacity), dtype))
            for width in widths
        ]
        self.squares = device.zeros((self.shard_count, 1, 1), dtype)
        self.correct_count = device.zeros((), xp.int64)
        self.loss_sum = device.zeros((), xp.float64)


class Shard:
    """One shard of a run, with vectors of its own; not for use by two threads at a time."""

    def __init__(
        self, device: Device, spec: TrainingSpec, parts: Sequence[Part], board: Board, number: int, capacity: int
    ) -> None:
        self._spec, self._board, self._number, self._device = spec, board, number, device
        layers, dtype = [part.layer for part in parts], np.dtype(spec.model.dtype)
        clip_norm, average_decay = spec.optimizer.clip_norm, spec.optimizer.average_decay
        order, shapes = shard_order(spec), shapes_of(layers)
        parameters = device.zeros(vector_size(shapes), dtype)
        statistics = device.zeros(vector_size(shapes_of(layers, statistics=True)), dtype)
        # Without a vector of gradients a step makes one pass over the parameters less, or two.
        self._moves_at_once = moves_at_once(device, spec, capacity)
        self._pass = Pass(
            device,
            layers,
            spec.model.layer_sizes[0],
            parameters,
            statistics,
            capacity,
            trains=True,
            seed=spec.seed,
            gradients=parameters if self._moves_at_once else None,
            seams=[Seam(given.transpose(2, 0, 1), gradient.T, number) for given, gradient in board.seams],
            order=order,
        )
        self._weights = [part for own in views(parameters, shapes, order) for part in own if part.ndim == 2]
        self._optimizer = OptimizerState(device, spec.optimizer.kind, parameters, self._pass.gradients)
        self._clipping = Clipping(device, clip_norm, dtype, board.squares) if clip_norm else None
        living = {"parameters": parameters, "statistics": statistics}
        self._average = Average(device, average_decay, living) if average_decay else None
        self.vectors = living | {f"moment.{name}": vector for name, vector in self._optimizer.moments.items()}
        if self._average:
            self.vectors |= {f"average.{name}": vector for name, vector in self._average.vectors.items()}
        self._living = living
        self._has_outputs = not (isinstance(layers[-1], Sum) and layers[-1].width == 0)
        shape = (device, spec.model.layer_sizes[-1], capacity, dtype)
        self._loss = LOSSES[spec.loss.name](*shape, huber_delta=spec.loss.huber_delta)
        self._task = TASKS[spec.task](*shape)

    @property
    def seam_count(self) -> int:
        """How often ``learn`` stops on the way forward; as often on the way back."""
        return len(self._board.seams)

    def learn(self, order: Order) -> Iterator[None]:
        """Carry out ``order``, with a stop wherever all shards must have come as far."""
        run, rows = self._pass, order.rows
        slate = self._board.slates[order.slate]
        self._board.scaling(self._device.xp, slate.inputs[:rows], run.inputs(rows))
        yield from run.forward_parts(rows, order.step, order.first_row)
        if self._has_outputs:
            self._measure(slate, order)
        adds = self._moves_at_once or order.first_row > 0
        yield from run.backward_parts(rows, adds=adds, scale=-1.0 if self._moves_at_once else 1.0)
        if order.is_last:
            if self._clipping:
                self._clipping.measure(run.gradients, self._number)
                if self._board.shard_count > 1:
                    yield
                self._clipping.scale(run.gradients)
            self._move(order)

    def _measure(self, slate: Slate, order: Order) -> None:
        rows, board = order.rows, self._board
        outputs = self._pass.outputs(rows)
        if self._task.counts_hits:
            self._task.count_hits(outputs, slate.labels[:rows], board.correct_count)
        weights = None if slate.weights is None else slate.weights[:rows]
        gradient = self._pass.output_gradient(rows)
        self._loss(outputs, slate.targets[:rows], weights, gradient, board.loss_sum, order.scale)

    def _move(self, order: Order) -> None:
        if decay := self._spec.optimizer.weight_decay:
            for weight in self._weights:
                self._device.xp.multiply(weight, 1.0 - order.rate * decay, out=weight)
        if not self._moves_at_once:
            rate = 1.0 if rate_in_gradient(self._spec) else order.rate
            self._optimizer.update(rate, order.optimizer_step)
        if self._average:
            self._average.update(self._living, order.step)


def make_shards(device: Device, spec: TrainingSpec, form: RowFormat) -> tuple[Board, list[Shard]]:
    """Return all shards of a run and what they see of each other; on the same device always at the same places."""
    layers, count, capacity = spec.model.layers(), spec.shard_count, piece_rows(spec)
    board = Board(device, spec, seam_widths(layers, count), capacity, form)
    parts = [shard_parts(layers, number, count) for number in range(count)]
    return board, [Shard(device, spec, own, board, number, capacity) for number, own in enumerate(parts)]


def learn_alone(shards: Sequence[Shard], order: Order, meanwhile: Callable[[], None]) -> None:
    """Carry out ``order`` on ``shards`` in turn, part by part; call ``meanwhile`` when the loss is known."""
    runs, stops = [shard.learn(order) for shard in shards], 0
    while _ENDED not in [next(run, _ENDED) for run in runs]:
        if stops == shards[0].seam_count:
            meanwhile()
        stops += 1
    if not shards[0].seam_count:
        meanwhile()


def rate_in_gradient(spec: TrainingSpec) -> bool:
    """Return whether a loss gradient may bring the learning rate with it: one pass over all parameters less."""
    return spec.optimizer.kind.is_linear and not spec.optimizer.clip_norm


def moves_at_once(device: Device, spec: TrainingSpec, capacity: int) -> bool:
    """Return whether parameters move as their gradients are computed, which are never stored."""
    small = spec.rows_per_step <= capacity
    return device.adds_products and rate_in_gradient(spec) and not spec.optimizer.weight_decay and small
