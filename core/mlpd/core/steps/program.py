"""All blocks of a run as one `Program`: the plans of its micro-batches, and the work of its steps."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mlpd.core.devices.arrays import Array, Device
from mlpd.core.network.network import Weights
from mlpd.core.network.tasks import mixing_share
from mlpd.core.optimization.optimizers import FLUSH_STEPS, Average
from mlpd.core.optimization.state import StateVectors
from mlpd.core.plans.plan import Plan, Task, Variant, Work
from mlpd.core.plans.recording import RecordingDevice
from mlpd.core.spec.split import micro_batch_rows
from mlpd.core.spec.training import TrainingSpec
from mlpd.core.steps.batches import Counts, Feed, MicroBatches
from mlpd.core.steps.blocks import (
    BlockContext,
    RowBlock,
    Totals,
    UnitBlock,
    has_one_plan,
    make_vectors,
    rate_in_gradient,
)
from mlpd.core.steps.examples import Examples
from mlpd.core.steps.partition import StateLayout, exchanged_widths, unit_parts

_ENDED = object()


class Blocks:
    """All blocks of a run, and the arrays that they share: a `Program` for any runner."""

    def __init__(self, device: Device, spec: TrainingSpec, examples: Examples) -> None:
        self._device = RecordingDevice(device)
        self.spec, self.totals = spec, Totals(device)
        layers, count, dtype = spec.model.layers(), spec.block_count, np.dtype(spec.model.dtype)
        self.dtype = dtype
        capacity = micro_batch_rows(spec)
        by_units = spec.split == "units"
        parts = [unit_parts(layers, number, count if by_units else 1) for number in range(count if by_units else 1)]
        self._layout = StateLayout(device, layers, parts)
        self.feed = Feed(self._device, spec, examples, capacity, 2 if spec.runner == "compiled" else 1, count)
        self.task_limit = count + self.feed.chunk_count
        self._vectors = own_vectors = [make_vectors(device, spec, *sizes) for sizes in self._layout.sizes]
        common = BlockContext(self._device, spec, self.feed, device.zeros((count, 1, 1), dtype), self.totals)
        self._scratch: list[Array] = []
        self._blocks: Sequence[UnitBlock | RowBlock]
        if by_units:
            exchanges = [
                (device.zeros((count, width, capacity), dtype), device.zeros((width, capacity), dtype))
                for width in exchanged_widths(layers, count)
            ]
            unit_blocks = [
                UnitBlock(common, [part.layer for part in own], vectors, exchanges, number)
                for number, (own, vectors) in enumerate(zip(parts, own_vectors, strict=True))
            ]
            self._blocks = unit_blocks
            self._scratch = [block.gradients for block in unit_blocks]
        else:
            gradients = [device.zeros(len(own_vectors[0].current.parameters), dtype) for _ in range(count)]
            own_totals = [Totals(device) for _ in range(count)]
            self._blocks = [RowBlock(common, own_vectors[0], gradients, own_totals, number) for number in range(count)]
            self._scratch = [*gradients, *(one for own in own_totals for one in (own.loss_sum, own.correct_count))]
        self._device.take()

    @property
    def kept(self) -> list[Array]:
        """Arrays whose values outlive a micro-batch; a plan need not store others."""
        own = [vector for vectors in self._vectors for vector in vectors.named().values()]
        lasting = [*own, self.totals.loss_sum, self.totals.correct_count]
        return lasting if self.spec.rows_per_step <= micro_batch_rows(self.spec) else [*lasting, *self._scratch]

    def read(self) -> StateVectors:
        """Return the vectors of the whole network: the run's own on a row-major device, else copies."""
        return self._layout.joined(self._vectors)

    def read_scored(self) -> Weights:
        """Return the weights of the whole network that are validated, as `read` does."""
        return self._layout.joined_weights([own.scored for own in self._vectors])

    def write(self, whole: StateVectors) -> None:
        """Write the vectors in host memory that ``whole`` has to the blocks; others stay as they are."""
        self._layout.split(whole, self._vectors)

    def record(self, variant: Variant) -> Plan:
        """Return the plan of micro-batches like ``variant``."""
        take = self._device.take
        prepare: list[Task] = []
        for chunk in range(self.feed.chunk_count):
            self.feed.bring(variant.slot, variant.rows, chunk)
            prepare.append(take())
        runs = [block.step(variant) for block in self._blocks]
        phases: list[list[Task]] = []
        going = True
        while going:
            phase: list[Task] = []
            for run in runs:
                going = next(run, _ENDED) is not _ENDED
                phase.append(take())
            phases.append(phase)
        return Plan(prepare, phases, joins=self.spec.split == "units" and len(phases) > 1)


def work_of(
    spec: TrainingSpec, batches: MicroBatches, rates: Sequence[float], optimizer_step: int, slots: Counts
) -> Work:
    """Return the work of ``batches``: ``rates`` (steps,) are learning rates, ``slots`` (count,) where rows are loaded.

    The first step is number ``optimizer_step`` of the optimizer.
    """
    own = batches.step - batches.step[0]
    is_first, is_last = batches.is_first, batches.is_last
    due = (optimizer_step + own) % FLUSH_STEPS == 0
    has_moments = bool(spec.optimizer.kind.moments)
    flushes = is_last & (due | has_one_plan(spec)) & has_moments
    kinds = np.stack([batches.rows, slots, is_first, is_last, flushes], axis=1)
    packed = kinds @ (1 << np.array([24, 3, 2, 1, 0]))  # a row as one number: plain runs do this at every step
    _, examples, which = np.unique(packed, return_index=True, return_inverse=True)
    variants = [
        Variant(int(rows), int(slot), bool(first), bool(last), bool(flush))
        for rows, slot, first, last, flush in kinds[examples]
    ]
    of_steps = _step_numbers(spec, rates, int(batches.step[0]), optimizer_step)
    scale = np.array(rates) if rate_in_gradient(spec) else np.ones(len(rates))
    numbers: dict[str, Any] = {name: np.array(column)[own] for name, column in of_steps.items()}
    numbers |= {"step": batches.step, "first": batches.first, "first_row": batches.start, "after": batches.after}
    numbers["scale"] = scale[own] / batches.step_rows
    if has_moments and has_one_plan(spec):
        numbers["flushing"] = due.astype(np.float64)
    return Work(variants, which, numbers)


def _step_numbers(spec: TrainingSpec, rates: Sequence[float], step: int, optimizer_step: int) -> dict[str, list[float]]:
    """Return the scalars that all micro-batches of a step share, by name: one value for each step."""
    optimizer = spec.optimizer
    rows = [optimizer.kind.factors(rate, optimizer_step + i) for i, rate in enumerate(rates)]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    if optimizer.weight_decay:
        columns["shrink"] = [1.0 - rate * optimizer.weight_decay for rate in rates]
    if optimizer.average_decay:
        averages = [Average.factors(optimizer.average_decay, step + i) for i in range(len(rates))]
        columns |= {name: [row[name] for row in averages] for name in averages[0]}
    if alpha := spec.loss.mixup_alpha:
        shares = [mixing_share(spec.seed, step + i, alpha) for i in range(len(rates))]
        columns |= {"mix": shares, "mix_rest": [1.0 - share for share in shares]}
    return columns
