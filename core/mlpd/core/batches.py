"""Brings a run's rows to its device, in the order of (seed, epoch) alone.

Data stay in their own type until they are scaled. Where images are augmented, a thread warps the next ones while
the step runs.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Self

import numpy as np
from mlpd.core.arrays import Array, Device, HostArray
from mlpd.core.augmentation import Augmenter
from mlpd.core.examples import Examples
from mlpd.core.random import permutation
from mlpd.core.spec import TrainingSpec
from mlpd.core.tasks import TASKS, MixUp, mixing_share
from numpy.typing import NDArray

PIECES_AHEAD = 4  # pieces that are prepared before they are wanted


class Piece(NamedTuple):
    """What a pass takes at a time: ``rows`` rows from place ``first`` of an epoch's order.

    They are the rows from ``start`` on of the step that has ``step_rows`` of them.
    """

    step: int
    epoch: int
    first: int
    start: int
    rows: int
    step_rows: int

    @property
    def is_last(self) -> bool:
        """Whether the step ends with it."""
        return self.start + self.rows == self.step_rows


def pieces(spec: TrainingSpec, row_count: int, capacity: int, step: int) -> Iterator[Piece]:
    """Yield the pieces of up to ``capacity`` rows of a run on ``row_count`` rows, from ``step`` to its end."""
    size = spec.rows_per_step
    steps_per_epoch = -(-row_count // size)
    for now in range(step, spec.epoch_count * steps_per_epoch):
        epoch, index = divmod(now, steps_per_epoch)
        first = index * size
        step_rows = min(size, row_count - first)
        for start in range(0, step_rows, capacity):
            yield Piece(now, epoch, first + start, start, min(capacity, step_rows - start), step_rows)


class RowFormat(NamedTuple):
    """What rows are like until they are scaled: the type of their ``inputs``, and whether they have weights.

    All inputs are scaled by ``factor``, or each column by a shift and a factor of its own if that is None.
    """

    inputs: str
    weighted: bool
    factor: float | None

    @classmethod
    def of(cls, spec: TrainingSpec, examples: Examples) -> "RowFormat":
        """Return what rows are like when they have been read: a data set's own type, unless they were changed."""
        kind = np.dtype(np.float32) if spec.augmentation else examples.train.inputs.dtype
        if spec.loss.mixup_alpha:
            kind = np.result_type(kind, spec.model.dtype)
        scaling = examples.scaling
        factor = float(scaling.factor) if scaling.shift is None else None
        return cls(kind.name, examples.weights is not None, factor)


class Slate:
    """The rows of a piece, as all shards see them: inputs, labels, targets (rows, outputs), and weights (rows, 1).

    Inputs are in units of their data set. They are scaled by whoever works on them, because a processor takes longer to
    fetch numbers that another one has just written, four times as many bytes if they were pixels.
    """

    def __init__(self, device: Device, spec: TrainingSpec, capacity: int, form: RowFormat) -> None:
        sizes, dtype, task = spec.model.layer_sizes, spec.model.dtype, TASKS[spec.task]
        sample = task.prepare(np.zeros(1 if task.has_classes else (1, sizes[-1]), np.uint8), dtype)
        self.inputs = device.zeros((capacity, sizes[0]), np.dtype(form.inputs))
        self.labels = device.zeros((capacity, *sample.shape[1:]), sample.dtype)
        self.targets = device.zeros((capacity, sizes[-1]), dtype)
        self.weights = device.zeros((capacity, 1), dtype) if form.weighted else None


class Batches:
    """Reads pieces of up to ``capacity`` rows; use it in a ``with`` block, from one thread."""

    def __init__(self, device: Device, spec: TrainingSpec, examples: Examples, capacity: int, step: int) -> None:
        self._device, self._spec = device, spec
        self._row_count = len(examples.train)
        self._shuffled = spec.rows_per_step < self._row_count
        self._order: Array | None = None
        self._epoch = -1
        self._labels = device.from_host(TASKS[spec.task].prepare(examples.train.targets, spec.model.dtype))
        self._weights = None if examples.weights is None else device.from_host(examples.weights)
        self._inputs = self._warped = None
        if spec.augmentation:
            self._warped = _Warped(spec, examples.train.inputs, capacity, step)
        else:
            self._inputs = device.from_host(examples.train.inputs)
        # Inputs that will be mixed can't stay in their own type.
        size = capacity if spec.loss.mixup_alpha and not spec.augmentation else 0
        self._gathered = device.empty((size, spec.model.layer_sizes[0]), examples.train.inputs.dtype)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the thread that augments, after the piece in hand."""
        if self._warped:
            self._warped.close()

    def read(self, epoch: int, first: int, rows: int, slate: Slate) -> None:
        """Write inputs, labels and weights of ``rows`` rows from place ``first`` of ``epoch``'s order to ``slate``.

        Pieces must be read in order.
        """
        if epoch != self._epoch and self._shuffled:
            self._order = self._device.from_host(permutation(self._spec.seed, epoch, self._row_count))
        self._epoch = epoch
        chosen = slice(first, first + rows)
        self._bring(self._labels, chosen, slate.labels[:rows])
        if slate.weights is not None:
            self._bring(self._weights, chosen, slate.weights[:rows])
        if self._warped:
            warped = self._device.from_host(self._warped.read(epoch, first))
            self._device.xp.multiply(warped, 1, out=slate.inputs[:rows])
        else:
            self._bring(self._inputs, chosen, slate.inputs[:rows])

    def _bring(self, source: Array, chosen: slice, out: Array) -> None:
        xp, device = self._device.xp, self._device
        if self._order is None:
            xp.multiply(source[chosen], 1, out=out)
        elif source.dtype == out.dtype:
            device.gather(source, self._order[chosen], out)
        else:
            gathered = self._gathered[: len(out)]
            device.gather(source, self._order[chosen], gathered)
            xp.multiply(gathered, 1, out=out)


class Reader:
    """Brings the pieces of a run to slates, two of them in turn; use it in a ``with`` block, from one thread."""

    def __init__(
        self, device: Device, spec: TrainingSpec, examples: Examples, slates: Sequence[Slate], step: int
    ) -> None:
        sizes, capacity, dtype = spec.model.layer_sizes, piece_rows(spec), np.dtype(spec.model.dtype)
        self._spec, self._slates = spec, slates
        self._batches = Batches(device, spec, examples, capacity, step)
        self._task = TASKS[spec.task](device, sizes[-1], capacity, dtype, spec.loss.label_smoothing)
        kinds = slates[0].inputs.dtype, dtype
        self._mixing = MixUp(device, sizes[0], sizes[-1], capacity, *kinds) if spec.loss.mixup_alpha else None
        self._plan = pieces(spec, len(examples.train), capacity, step)
        self.slate = len(slates) - 1
        with np.errstate(all="ignore"):  # as in a step
            self.read()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._batches.close()

    def read(self) -> None:
        """Bring the next ``piece``, if there is one, to the next ``slate``."""
        piece = next(self._plan, None)
        if piece is None:
            return
        self.piece, self.slate = piece, (self.slate + 1) % len(self._slates)
        slate, rows = self._slates[self.slate], piece.rows
        targets = slate.targets[:rows]
        self._batches.read(piece.epoch, piece.first, rows, slate)
        self._task.spread(slate.labels[:rows], targets)
        if self._mixing:
            alpha = self._spec.loss.mixup_alpha
            self._mixing(slate.inputs[:rows], targets, mixing_share(self._spec.seed, piece.step, piece.start, alpha))


class _Warped:
    """Augmented rows, prepared in the run's order by a thread of its own."""

    def __init__(self, spec: TrainingSpec, inputs: HostArray, capacity: int, step: int) -> None:
        assert spec.augmentation
        self._spec, self._inputs, self._capacity = spec, inputs, capacity
        self._augmenter = Augmenter(spec.augmentation, spec.seed)
        self._order: tuple[int, NDArray[np.int64]] | None = None
        self._plan = pieces(spec, len(inputs), capacity, step)
        # One buffer is read while the others wait or are filled.
        self._buffers = deque(np.empty((capacity, inputs.shape[1]), np.float32) for _ in range(PIECES_AHEAD + 1))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="augment")
        self._waiting: deque[tuple[tuple[int, int], Future[NDArray[np.float32]]]] = deque()
        for _ in range(PIECES_AHEAD):
            self._send()

    def read(self, epoch: int, first: int) -> NDArray[np.float32]:
        """Return the next rows (rows, input_size), in a buffer that stays as it is until the next call."""
        place, future = self._waiting.popleft()
        if place != (epoch, first):
            raise RuntimeError(f"rows must be read in order, {place} next, got {(epoch, first)}")
        rows = future.result()
        self._send()
        return rows

    def close(self) -> None:
        """End the thread after the piece in hand."""
        self._thread.shutdown(cancel_futures=True)

    def _send(self) -> None:
        if (piece := next(self._plan, None)) is not None:
            buffer = self._buffers[0]
            self._buffers.rotate(-1)
            future = self._thread.submit(self._warp, piece.epoch, piece.first, piece.rows, buffer)
            self._waiting.append(((piece.epoch, piece.first), future))

    def _warp(self, epoch: int, first: int, rows: int, buffer: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._order is None or self._order[0] != epoch:
            shuffled = self._spec.rows_per_step < len(self._inputs)
            order = permutation(self._spec.seed, epoch, len(self._inputs)) if shuffled else np.arange(len(self._inputs))
            self._order = epoch, order
        out: NDArray[np.float32] = buffer[:rows]
        self._augmenter(self._inputs[self._order[1][first : first + rows]], epoch, first, out)
        return out


def piece_rows(spec: TrainingSpec) -> int:
    """Return how many rows a pass takes at a time.

    A larger batch runs in pieces whose gradients are summed, so that memory does not grow with it and, on the CPU, a
    piece's activations stay near the processor; on a GPU every piece costs its launches, however few its rows are.
    Batch normalisation sees its batch in one piece.
    """
    if spec.model.normalization == "batch":
        return spec.batch_size
    rows, values = _PIECE[spec.device]
    return min(spec.rows_per_step, rows, max(1, values // max(spec.model.layer_sizes)))


_PIECE = {"cpu": (512, 2**22), "cuda": (2**16, 2**26)}  # rows, and values of the widest layer
