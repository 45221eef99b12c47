"""What a block does in a step: its pass, and its part of the loss and of the optimizer's step."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mlpd.core.devices.arrays import Array, Device
from mlpd.core.network.layers import Layer, Sum
from mlpd.core.network.losses import BufferedLoss
from mlpd.core.network.network import Backward, Exchange, Pass, Weights
from mlpd.core.network.tasks import TASKS
from mlpd.core.optimization.optimizers import Average, Clipping, OptimizerState
from mlpd.core.optimization.state import StateVectors
from mlpd.core.plans.plan import Variant, share
from mlpd.core.plans.recording import Scalar
from mlpd.core.spec.split import micro_batch_rows
from mlpd.core.spec.training import TrainingSpec
from mlpd.core.steps.batches import Feed, Rows

_VECTOR_ALIGNMENT = 16  # values: parts of a vector that different threads write begin with a line of the cache


class Totals:
    """What a run counts, as scalars on the device: the summed loss (float64), and the rows that were right (int64)."""

    def __init__(self, device: Device) -> None:
        self.loss_sum = device.zeros((), np.dtype(np.float64))
        self.correct_count = device.zeros((), np.dtype(np.int64))


class Measure:
    """Adds the loss and the hits of a block's outputs to ``totals``, and writes the gradient of the loss."""

    def __init__(self, device: Device, spec: TrainingSpec, capacity: int, totals: Totals) -> None:
        shape = spec.model.layer_sizes[-1], capacity, np.dtype(spec.model.dtype)
        self._loss = BufferedLoss(device, spec.loss.kind, *shape)
        self._task = TASKS[spec.task](device, *shape)
        self._totals = totals

    def __call__(self, outputs: Array, gradient: Array, source: Rows, chosen: slice) -> None:
        """Measure ``outputs`` of the ``chosen`` rows of ``source``; write their ``gradient``; both (rows, outputs)."""
        totals = self._totals
        if self._task.counts_hits:
            self._task.count_hits(outputs, source.labels[chosen], totals.correct_count)
        weights = None if source.weights is None else source.weights[chosen]
        self._loss(outputs, source.targets[chosen], weights, gradient, totals.loss_sum, Scalar("scale"))


@dataclass(frozen=True)
class BlockContext:
    """What all blocks of a run share; ``squares`` (blocks, 1, 1) are each block's sum of squared gradients."""

    device: Device
    spec: TrainingSpec
    feed: Feed
    squares: Array
    totals: Totals


class Update:
    """Makes the optimizer's step on the vectors of block ``number``, or on its part of a network's.

    ``decayed`` are views of the weights that decay.
    """

    def __init__(
        self, common: BlockContext, vectors: StateVectors, gradients: Array, decayed: Sequence[Array], number: int
    ) -> None:
        device, optimizer, parameters = common.device, common.spec.optimizer, vectors.current.parameters
        self._spec, self._device, self._number = common.spec, device, number
        self._gradients, self._decayed = gradients, decayed
        self._optimizer = OptimizerState(device, optimizer.kind, parameters, gradients, vectors.moments)
        clips = optimizer.clip_norm
        self._clipping = Clipping(device, clips, parameters.dtype, common.squares) if clips else None
        self._average = Average(device, vectors.current, vectors.average) if vectors.average else None

    def measure(self) -> None:
        """Write the sum of the squared gradients to ``squares``, if gradients are clipped."""
        if self._clipping:
            self._clipping.measure(self._gradients, self._number)

    def move(self, variant: Variant, *, moved: bool) -> None:
        """Clip gradients, decay weights, make the optimizer's step unless parameters have ``moved``, and average."""
        if self._clipping:
            self._clipping.scale(self._gradients)
        if self._spec.optimizer.weight_decay:
            for weight in self._decayed:
                self._device.xp.multiply(weight, Scalar("shrink"), out=weight)
        if not moved:
            factors: dict[str, Any] = {name: Scalar(name) for name in self._spec.optimizer.kind.factors(1.0, 0)}
            if rate_in_gradient(self._spec):
                factors["rate"] = 1.0
            always = Scalar("flushing") if has_one_plan(self._spec) else 1.0
            self._optimizer.update(factors, flushing=always if variant.flushes else None)
        if self._average:
            self._average.update({name: Scalar(name) for name in ("average_decay", "average_rest")})


def make_vectors(device: Device, spec: TrainingSpec, size: int, statistic_count: int) -> StateVectors:
    """Return zeroed vectors for a network or a block of ``size`` parameters and ``statistic_count`` statistics."""

    def zeros(count: int) -> Array:
        return device.zeros(count, np.dtype(spec.model.dtype))

    current = Weights(zeros(size), zeros(statistic_count))
    moments = {name: zeros(size) for name in spec.optimizer.kind.moments}
    return StateVectors(
        current, moments, current.map(lambda own: zeros(len(own))) if spec.optimizer.average_decay else None
    )


class UnitBlock:
    """A block of units, with its own vectors.

    ``exchanges``, shared by all blocks, are pairs: partial sums (blocks, width, capacity), gradients (width, capacity).
    """

    def __init__(
        self,
        common: BlockContext,
        layers: Sequence[Layer],
        vectors: StateVectors,
        exchanges: Sequence[tuple[Array, Array]],
        number: int,
    ) -> None:
        spec, capacity = common.spec, micro_batch_rows(common.spec)
        self._feed, self._clips = common.feed, spec.optimizer.clip_norm > 0
        self._block_count = len(common.squares)
        # Without a vector of gradients, a step makes one or two passes less over the parameters.
        self._moves_at_once = moves_at_once(common.device, spec, capacity)
        parameters = vectors.current.parameters
        gradients = parameters if self._moves_at_once else None
        own = [Exchange(sums.transpose(2, 0, 1), gradient.T, number) for sums, gradient in exchanges]
        self._pass = _training_pass(common, layers, vectors.current, capacity, gradients, own)
        self.gradients = self._pass.gradients
        self._update = Update(common, vectors, self.gradients, decayed_parts(layers, parameters), number)
        has_outputs = not (isinstance(layers[-1], Sum) and layers[-1].width == 0)
        self._measure = Measure(common.device, spec, capacity, common.totals) if has_outputs else None

    def step(self, variant: Variant) -> Iterator[None]:
        """Run a micro-batch and, after the last of a step, update; yield wherever all blocks must have come as far."""
        run, rows, source = self._pass, variant.rows, self._feed.slots[variant.slot]
        run.read_from(source.inputs)
        yield from run.forward_parts(rows, Scalar("step"), Scalar("first_row"))
        if self._measure:
            self._measure(run.outputs(rows), run.output_gradient(rows), source, slice(rows))
        adds = self._moves_at_once or not variant.is_first
        yield from run.backward_parts(rows, adds=adds, scale=-1.0 if self._moves_at_once else 1.0)
        if variant.is_last:
            if self._clips:
                self._update.measure()
                if self._block_count > 1:
                    yield
            self._update.move(variant, moved=self._moves_at_once)


class RowBlock:
    """A block of rows: it runs the whole network on its rows, and moves its part of the vectors for all blocks.

    ``gradients`` and ``own_totals`` are those of all blocks.
    """

    def __init__(
        self,
        common: BlockContext,
        vectors: StateVectors,
        gradients: Sequence[Array],
        own_totals: Sequence[Totals],
        number: int,
    ) -> None:
        spec = common.spec
        self._feed, self._device = common.feed, common.device
        self._number, self._count, self._clips = number, len(gradients), spec.optimizer.clip_norm > 0
        self._capacity = micro_batch_rows(spec)
        self._totals, self._own_totals = common.totals, own_totals
        layers, capacity = spec.model.layers(), -(-self._capacity // self._count)
        parameters = vectors.current.parameters
        self._pass = _training_pass(common, layers, vectors.current, capacity, gradients[number])
        self._measure = Measure(common.device, spec, capacity, own_totals[number])
        lines = -(-len(parameters) // _VECTOR_ALIGNMENT)
        start, end = (edge * _VECTOR_ALIGNMENT for edge in share(lines, number, self._count))
        cut = slice(start, min(end, len(parameters)))
        self._gradients = [gradient[cut] for gradient in gradients]
        decayed = [part for part in decayed_parts(layers, parameters, cut) if len(part)]
        # If there are statistics, there is one block, because batch normalisation looks at all rows.
        self._update = Update(common, vectors.part(cut), self._gradients[0], decayed, number)

    def _rows(self, count: int) -> slice:
        return slice(*share(count, self._number, self._count))

    def step(self, variant: Variant) -> Iterator[None]:
        """Run this block's rows of a micro-batch and, after the last of a step, move its part of the vectors.

        Yield wherever all blocks must have come as far.
        """
        chosen, run, own = self._rows(variant.rows), self._pass, self._own_totals[self._number]
        xp, rows = self._device.xp, chosen.stop - chosen.start
        if variant.is_first:
            xp.copyto(own.loss_sum, 0.0)
            xp.copyto(own.correct_count, 0)
        if rows:
            source = self._feed.slots[variant.slot]
            run.read_from(source.inputs[chosen])
            run.forward(rows, Scalar("step"), Scalar("first_row"), chosen.start)
            self._measure(run.outputs(rows), run.output_gradient(rows), source, chosen)
            for _ in run.backward_parts(rows, adds=not variant.is_first):
                pass
        if not variant.is_last:
            return
        yield
        self._sum_up(variant)
        if self._clips:
            self._update.measure()
            yield
        self._update.move(variant, moved=False)

    def _sum_up(self, variant: Variant) -> None:
        """Add the others' gradients to the first block's, in this block's part; the first block adds up totals, too.

        Gradients of blocks that had no row are left out.
        """
        xp, rows = self._device.xp, variant.rows if variant.is_first else self._capacity
        total, *others = self._gradients
        given = [share(rows, number, self._count) for number in range(self._count)]
        with_rows = [number for number, (start, end) in enumerate(given) if end > start]
        if 0 not in with_rows:
            xp.copyto(total, 0.0)
        for number in with_rows:
            if number:
                xp.add(total, others[number - 1], out=total)
        if self._number == 0:
            for own in self._own_totals:
                xp.add(self._totals.loss_sum, own.loss_sum, out=self._totals.loss_sum)
                xp.add(self._totals.correct_count, own.correct_count, out=self._totals.correct_count)


def _training_pass(
    common: BlockContext,
    layers: Sequence[Layer],
    weights: Weights,
    capacity: int,
    gradients: Array | None,
    exchanges: Sequence[Exchange] = (),
) -> Pass:
    """Return the pass of a block, without the leading layers, which run as rows are loaded."""
    spec, leading = common.spec, common.feed.leading_count
    backward = Backward(spec.seed, leading, gradients, exchanges)
    return Pass(common.device, layers[leading:], spec.model.layer_sizes[0], weights, capacity, backward)


def decayed_parts(layers: Sequence[Layer], parameters: Array, cut: slice = slice(None)) -> list[Array]:
    """Return views of the weights in ``parameters``, within ``cut`` and maybe empty: they decay, biases do not."""
    start, end, _ = cut.indices(len(parameters))
    first, found = 0, []
    for shape in (shape for layer in layers for shape in layer.shapes):
        last = first + int(np.prod(shape))
        if len(shape) == 2:
            found.append(parameters[max(first, start) : max(start, min(last, end))])
        first = last
    return found


def rate_in_gradient(spec: TrainingSpec) -> bool:
    """Return whether loss gradients are scaled by the learning rate, which saves a pass over all parameters."""
    return spec.optimizer.kind.is_linear and not spec.optimizer.clip_norm


def has_one_plan(spec: TrainingSpec) -> bool:
    """Return whether steps that flush moments have the plan of others, and a number says whether they do.

    On a GPU the test costs nothing, and every epoch is the same work, wherever between two such steps it begins.
    """
    return spec.device == "cuda" and spec.runner == "compiled"


def moves_at_once(device: Device, spec: TrainingSpec, capacity: int) -> bool:
    """Return whether gradients are added to the parameters as they are computed, and never stored."""
    small = spec.rows_per_step <= capacity
    return device.adds_products and rate_in_gradient(spec) and not spec.optimizer.weight_decay and small
