"""Loads a run's rows to its device, in an order that depends on (seed, epoch) alone.

Data stay in their own type until they are scaled. If images are augmented, a thread warps the next ones while a step
runs.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from mlpd.core.codegen.kernels import readable_type
from mlpd.core.data.augmentation import Augmenter
from mlpd.core.devices.arrays import Array, Device, HostArray, matrix
from mlpd.core.network.network import Backward, Pass, Weights, leading_layer_count
from mlpd.core.network.tasks import TASKS, MixUp
from mlpd.core.plans.recording import Scalar
from mlpd.core.random import permutation
from mlpd.core.spec.split import micro_batch_rows
from mlpd.core.spec.training import TrainingSpec
from mlpd.core.steps.examples import Examples
from numpy.typing import NDArray

MICRO_BATCHES_AHEAD = 4  # that are warped before they are wanted

Counts = NDArray[np.int64]


class MicroBatch(NamedTuple):
    """What a pass takes at a time: ``rows`` rows from place ``first`` of an epoch's order.

    It begins at row ``start`` of its step, which has ``step_rows`` rows in all. The row after its last is at place
    ``after``: that of the step's first row, if it ends the step.
    """

    step: int
    epoch: int
    first: int
    start: int
    rows: int
    step_rows: int
    after: int


@dataclass(frozen=True)
class MicroBatches:
    """Consecutive micro-batches, all of one epoch: columns (count,) of the fields of `MicroBatch`."""

    epoch: int
    step: Counts
    first: Counts
    start: Counts
    rows: Counts
    step_rows: Counts

    def __iter__(self) -> Iterator[MicroBatch]:
        fields = self.step, self.first, self.start, self.rows, self.step_rows, self.after
        columns = (field.tolist() for field in fields)
        for step, *others in zip(*columns, strict=True):
            yield MicroBatch(step, self.epoch, *others)

    @property
    def is_first(self) -> NDArray[np.bool_]:
        """Whether each begins a step (count,)."""
        return np.equal(self.start, 0)

    @property
    def is_last(self) -> NDArray[np.bool_]:
        """Whether each ends a step (count,)."""
        ends: Counts = self.start + self.rows
        return np.equal(ends, self.step_rows)

    @property
    def after(self) -> Counts:
        """The place of the row after each one's last (count,)."""
        place: Counts = self.first - self.start + (self.start + self.rows) % self.step_rows
        return place


def cut(spec: TrainingSpec, row_count: int, start_step: int, end_step: int) -> MicroBatches:
    """Return the micro-batches of a run on ``row_count`` rows from ``start_step`` to before ``end_step``."""
    size, capacity = spec.rows_per_step, micro_batch_rows(spec)
    steps_per_epoch = -(-row_count // size)
    epoch = start_step // steps_per_epoch
    if not start_step < end_step <= (epoch + 1) * steps_per_epoch:
        raise ValueError(f"steps must be of one epoch of {steps_per_epoch}, got {start_step} to before {end_step}")
    step = np.arange(start_step, end_step)
    first = (step - epoch * steps_per_epoch) * size
    step_rows = np.minimum(size, row_count - first)
    counts = -(-step_rows // capacity)
    own = np.repeat(np.arange(len(step)), counts)
    start = (np.arange(len(own)) - np.repeat(np.cumsum(counts) - counts, counts)) * capacity
    rows = np.minimum(capacity, step_rows[own] - start)
    return MicroBatches(epoch, step[own], first[own] + start, start, rows, step_rows[own])


def micro_batches(spec: TrainingSpec, row_count: int, step: int) -> Iterator[MicroBatch]:
    """Yield the micro-batches of a run on ``row_count`` rows, from ``step`` to its end."""
    for now in range(step, spec.epoch_count * -(-row_count // spec.rows_per_step)):
        yield from cut(spec, row_count, now, now + 1)


class Feed:
    """Loads the rows of micro-batches into ``slots``: inputs as the first trained layer takes them, and targets.

    While a step works on one slot, the next rows can be loaded into another, in ``chunk_count`` independent chunks.
    Calls of `bring` are recorded; other methods act at once. For one thread, within a ``with`` block of `open`.
    """

    def __init__(
        self, device: Device, spec: TrainingSpec, examples: Examples, capacity: int, slot_count: int, chunk_count: int
    ) -> None:
        xp, sizes, dtype, task = device.xp, spec.model.layer_sizes, np.dtype(spec.model.dtype), TASKS[spec.task]
        self._device, self._spec, self._capacity = device, spec, capacity
        self.is_staged = spec.augmentation is not None
        mixes = _mixes(spec)
        self.chunk_count = 1 if mixes else chunk_count
        rows = examples.train
        inputs = rows.inputs.astype(input_type(device, rows.inputs.dtype), copy=False)
        self._row_count, self._host_inputs = len(rows), rows.inputs
        self._inputs = None if self.is_staged else device.from_host(inputs)
        self._labels = device.from_host(task.prepare(rows.targets, spec.model.dtype))
        self._weights = None if examples.weights is None else device.from_host(examples.weights)
        self._order = device.zeros(self._row_count, xp.int64) if _shuffles(spec, self._row_count) else None
        self._epoch = -1
        self._next_order = -1, np.empty(0, np.int64)
        self._scaling = examples.scaling.on(device)
        kind = np.dtype(np.float32) if self.is_staged else inputs.dtype
        # Inputs that will be mixed can't stay in their own type.
        raw_kind = np.result_type(kind, dtype) if mixes else kind
        self._raw = device.empty((capacity + mixes, sizes[0]), raw_kind)
        self._own = self._raw if raw_kind == kind else device.empty((capacity + mixes, sizes[0]), kind)
        self._task = task(device, sizes[-1], 1, dtype, spec.loss.label_smoothing)
        self._mixing = MixUp(device, sizes[0], sizes[-1], capacity, raw_kind, dtype) if mixes else None
        self._next_label = device.empty((1, *self._labels.shape[1:]), self._labels.dtype)
        self._next_target = device.empty((1, sizes[-1]), dtype)
        self.slots = [
            Rows(
                device.empty((capacity, sizes[0]), dtype),
                matrix(device, (capacity, *self._labels.shape[1:]), self._labels.dtype),
                matrix(device, (capacity, sizes[-1]), dtype),
                None if self._weights is None else matrix(device, (capacity, 1), dtype),
            )
            for _ in range(slot_count)
        ]
        self._leading = [self._leading_pass() for _ in range(self.chunk_count)]
        self._scaled = device.empty((capacity if self.leading_count else 0, sizes[0]), dtype)
        self._warped: _Warped | None = None

    @property
    def leading_count(self) -> int:
        """How many layers come before the first that is trained; loading rows runs them."""
        return leading_layer_count(self._spec.model.layers())

    def _leading_pass(self) -> Pass:
        layers = self._spec.model.layers()[: self.leading_count]
        nothing = self._device.empty((0,), np.dtype(self._spec.model.dtype))
        rows = -(-self._capacity // self.chunk_count)
        input_size = self._spec.model.layer_sizes[0]
        return Pass(self._device, layers, input_size, Weights(nothing, nothing), rows, Backward(self._spec.seed))

    @contextmanager
    def open(self, step: int) -> Iterator[None]:
        """Warp images from ``step`` on in a thread that ends with this block; do nothing without augmentation."""
        if not self._spec.augmentation:
            yield
            return
        self._warped = _Warped(self._spec, self._host_inputs, self._capacity, step)
        try:
            yield
        finally:
            self._warped.close()

    def begin(self, epoch: int) -> None:
        """Write the epoch's order of rows to the device."""
        if epoch != self._epoch and self._order is not None:
            self.look_ahead(epoch)
            self._device.write(self._next_order[1], self._order)
            self._next_order = -1, np.empty(0, np.int64)
        self._epoch = epoch

    def look_ahead(self, epoch: int) -> None:
        """Draw an epoch's order, for `begin` to find it; a GPU need not wait for what is drawn while it works."""
        if self._order is not None and self._next_order[0] != epoch:
            self._next_order = epoch, permutation(self._spec.seed, epoch, self._row_count)

    def stage(self, epoch: int, first: int) -> None:
        """Write the augmented images from place ``first`` of the epoch's order to the device, in the run's order."""
        assert self._warped
        rows = self._warped.read(epoch, first)
        self._device.write(rows, self._own[: len(rows)])

    def bring(self, slot: int, rows: int, chunk: int) -> None:
        """Load chunk ``chunk`` of a micro-batch of ``rows`` rows into a slot."""
        xp, into = self._device.xp, self.slots[slot]
        start, end = rows * chunk // self.chunk_count, rows * (chunk + 1) // self.chunk_count
        if start == end:
            return
        raw, targets, first = self._raw[start:end], into.targets[start:end], Scalar("first")
        self._load(first, start, slice(start, end), into.labels[start:end], targets)
        if into.weights is not None:
            self._gather(self._weights, first, start, into.weights[start:end])
        if self._mixing:
            after = slice(rows, rows + 1)
            self._load(Scalar("after"), 0, after, self._next_label, self._next_target)
            self._mixing(raw, targets, self._raw[after], self._next_target, Scalar("mix"), Scalar("mix_rest"))
        if not self.leading_count:
            self._scaling(xp, raw, into.inputs[start:end])
            return
        scaled, leading = self._scaled[start:end], self._leading[chunk]
        self._scaling(xp, raw, scaled)
        leading.read_from(scaled)
        leading.write_to(into.inputs[start:end])
        leading.forward(end - start, Scalar("step"), Scalar("first_row"), start)

    def _load(self, first: Scalar, start: int, places: slice, labels: Array, targets: Array) -> None:
        """Load rows from place ``first`` + ``start`` on: inputs to ``places`` of the raw ones, labels, and targets."""
        own, raw = self._own[places], self._raw[places]
        self._gather(self._labels, first, start, labels)
        self._task.spread(labels, targets)
        if not self.is_staged:
            self._gather(self._inputs, first, start, own)
        if own.dtype != raw.dtype:
            self._device.xp.copyto(raw, own)

    def _gather(self, source: Array, first: Scalar, start: int, out: Array) -> None:
        if self._order is None:
            self._device.gather(source[start:], None, first, out)
        else:
            self._device.gather(source, self._order[start:], first, out)


@dataclass(frozen=True)
class Rows:
    """Buffers of a micro-batch: inputs (rows, input_size), labels, encoded targets (rows, outputs), weights (rows, 1).

    ``weights`` are None if all rows count alike.
    """

    inputs: Array
    labels: Array
    targets: Array
    weights: Array | None


def _mixes(spec: TrainingSpec) -> bool:
    """Return whether rows are mixed, so that those of a micro-batch need the one after them."""
    return spec.loss.mixup_alpha > 0


def _shuffles(spec: TrainingSpec, row_count: int) -> bool:
    """Return whether an epoch has an order of its own: it decides which rows are in a step, or are mixed."""
    return spec.rows_per_step < row_count or _mixes(spec)


def input_type(device: Device, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type in which a device takes inputs of type ``dtype``."""
    return readable_type(dtype) if device.is_compiled else dtype.newbyteorder("=")


class _Warped:
    """Augmented rows in the run's order, warped ahead by a thread."""

    def __init__(self, spec: TrainingSpec, inputs: HostArray, capacity: int, step: int) -> None:
        assert spec.augmentation
        self._spec, self._inputs, self._capacity = spec, inputs, capacity
        self._augmenter = Augmenter(spec.augmentation, spec.seed)
        self._order: tuple[int, NDArray[np.int64]] | None = None
        self._plan = micro_batches(spec, len(inputs), step)
        # One buffer is read while the others wait or are filled.
        shape = capacity + _mixes(spec), inputs.shape[1]
        self._buffers = deque(np.empty(shape, np.float32) for _ in range(MICRO_BATCHES_AHEAD + 1))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="augment")
        self._waiting: deque[tuple[tuple[int, int], Future[NDArray[np.float32]]]] = deque()
        for _ in range(MICRO_BATCHES_AHEAD):
            self._send()

    def read(self, epoch: int, first: int) -> NDArray[np.float32]:
        """Return the next rows (rows, input_size) as float32 and, if rows are mixed, the one after them.

        The next call may overwrite them.
        """
        place, future = self._waiting.popleft()
        if place != (epoch, first):
            raise RuntimeError(f"rows must be read in order, {place} next, got {(epoch, first)}")
        rows = future.result()
        self._send()
        return rows

    def close(self) -> None:
        """End the thread when the rows that it is warping are done."""
        self._thread.shutdown(cancel_futures=True)

    def _send(self) -> None:
        if (micro_batch := next(self._plan, None)) is not None:
            buffer = self._buffers[0]
            self._buffers.rotate(-1)
            future = self._thread.submit(self._warp, micro_batch, buffer)
            self._waiting.append(((micro_batch.epoch, micro_batch.first), future))

    def _warp(self, batch: MicroBatch, buffer: NDArray[np.float32]) -> NDArray[np.float32]:
        """Warp the rows of a micro-batch and, if rows are mixed, the one after them."""
        epoch, rows = batch.epoch, batch.rows
        if self._order is None or self._order[0] != epoch:
            count = len(self._inputs)
            shuffles = _shuffles(self._spec, count)
            self._order = epoch, permutation(self._spec.seed, epoch, count) if shuffles else np.arange(count)
        self._warp_from(batch.first, buffer[:rows])
        if not _mixes(self._spec):
            return buffer[:rows]
        if batch.after == batch.first:
            buffer[rows] = buffer[0]
        else:
            self._warp_from(batch.after, buffer[rows : rows + 1])
        return buffer[: rows + 1]

    def _warp_from(self, first: int, out: NDArray[np.float32]) -> None:
        assert self._order
        epoch, order = self._order
        self._augmenter(self._inputs[order[first : first + len(out)]], epoch, first, out)
