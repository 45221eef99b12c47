"""How much memory a run will need, from its spec and its data alone; constants are from measured runs."""

from collections.abc import Sequence
from math import prod
from typing import Protocol

import numpy as np
from mlpd.core.data.augmentation import basis_size
from mlpd.core.data.columns import ColumnStatistics, Schema
from mlpd.core.models.metrics import EVALUATION_ROWS
from mlpd.core.network.architecture import parameter_count, statistic_count
from mlpd.core.network.layers import Layer, Linear
from mlpd.core.network.scaling import Move
from mlpd.core.network.tasks import TASKS
from mlpd.core.spec.rules import Rows
from mlpd.core.spec.split import micro_batch_rows
from mlpd.core.spec.training import TrainingSpec
from mlpd.core.steps.batches import MICRO_BATCHES_AHEAD
from mlpd.core.steps.partition import exchanged_widths
from mlpd.core.training.environment import shares_products

_INDEX_BYTES, _MOVED_VALUE_BYTES, _SCALED_TARGET_BYTES = 8, 8, 8  # int64 and float64
_BASIS_BYTES = 20  # while it is made, in float64 and then in float32
# An interpreter with libraries; what compiling takes; what BLAS keeps for a thread; what a block's plans take.
_PROCESS_BYTES, _COMPILER_BYTES, _THREAD_BYTES, _BLOCK_BYTES = 53_000_000, 40_000_000, 16_000_000, 400_000
_DRAWING_BYTES = 40  # a weight of the layer that is being initialised, in float64
_SAVED_COPIES = 3  # of all that is saved: on the host, as bytes, as the file's content; and joined, in compiled runs
_ORDERING_BYTES = 32  # a row, while an epoch's order is made beside the one before it, or weights are scaled
_COLUMN_MEANS_BYTES, _COLUMN_MEANS_VALUES = 24, 2**22  # a value, and how many at a time


class StoredRows(Rows, Protocol):
    """Data as a `DatasetInfo` describes them."""

    @property
    def dtype(self) -> str:
        """Type of the inputs."""

    @property
    def schema(self) -> Schema:
        """What the inputs stand for."""

    @property
    def statistics(self) -> Sequence[ColumnStatistics]:
        """What is known of each column where these have names."""

    @property
    def input_range(self) -> tuple[float, float]:
        """Least and largest value."""

    @property
    def needs_encoding(self) -> bool:
        """Whether a network can't take its rows as they are."""

    @property
    def target_dtype(self) -> str:
        """Type of the labels or targets."""

    @property
    def weighted(self) -> bool:
        """Whether rows have weights of their own."""


def estimate_bytes(
    spec: TrainingSpec, rows: StoredRows, row_bytes: int, thread_count: int, others: Sequence[StoredRows] = ()
) -> int:
    """Return the most bytes that a run on ``rows``, of ``row_bytes`` each, takes; it scores itself on ``others``.

    Of inputs without names it is not known which columns have to be moved: that is left out, unless all have to.

    For a GPU, that is its own memory, without kernels, graphs, and what libraries and an allocator keep in reserve. For
    the CPU, it is the memory of a job with ``thread_count`` threads, without pages of mapped files, which the system
    can take back.
    """
    return (
        _host_bytes(spec, rows, row_bytes, thread_count, others)
        if spec.device == "cpu"
        else _device_bytes(spec, rows, row_bytes)
    )


def _device_bytes(spec: TrainingSpec, rows: StoredRows, row_bytes: int) -> int:
    """Add up vectors, buffers of a pass forward and back, data and orders."""
    size, layers, capacity = np.dtype(spec.model.dtype).itemsize, spec.model.layers(), micro_batch_rows(spec)
    vectors = size * parameter_count(layers) + _saved_bytes(spec)
    inputs, outputs = spec.model.layer_sizes[0], spec.model.layer_sizes[-1]
    # Compiled code loads the next rows to a place of their own.
    buffers = capacity * (2 * sum(_widths(spec)) + (spec.runner == "compiled") * (inputs + 2 * outputs))
    data = rows.row_count * ((_moved_bytes(spec, rows) or _encoded_bytes(rows) or row_bytes) + 2 * _INDEX_BYTES)
    passes = size * buffers + _work_bytes(layers, capacity, size) + capacity * _mixed_bytes(spec, rows)
    return vectors + passes + _validation_bytes(spec) + data


def _mixed_bytes(spec: TrainingSpec, rows: StoredRows) -> int:
    """Return the bytes that a row takes while it is mixed: inputs in a type that can be, and shares of the next's."""
    if not spec.loss.mixup_alpha:
        return 0
    inputs, outputs, dtype = spec.model.layer_sizes[0], spec.model.layer_sizes[-1], spec.model.dtype
    return 2 * inputs * np.result_type(np.dtype(rows.dtype), dtype).itemsize + outputs * np.dtype(dtype).itemsize


def _work_bytes(layers: Sequence[Layer], capacity: int, size: int) -> int:
    """Return the bytes of layers' work arrays, of numbers of ``size`` bytes, and of random words."""
    values = sum(prod(shape) for layer in layers for shape in layer.work(capacity))
    return size * values + _INDEX_BYTES * capacity * sum(layer.words_a_row for layer in layers)


def _host_bytes(
    spec: TrainingSpec, rows: StoredRows, row_bytes: int, thread_count: int, others: Sequence[StoredRows]
) -> int:
    """Add up a process, vectors, buffers, data, and the largest of those needs that only last a while."""
    model, blocks = spec.model, spec.block_count
    size, layers, capacity = np.dtype(model.dtype).itemsize, model.layers(), micro_batch_rows(spec)
    inputs, outputs, widths = model.layer_sizes[0], model.layer_sizes[-1], sum(_widths(spec)[1:])
    parameters, saved = parameter_count(layers), _saved_bytes(spec)
    compiled, by_rows = spec.runner == "compiled", spec.split == "rows"
    threads = thread_count if shares_products(spec) or compiled else 1
    process = _PROCESS_BYTES + threads * _THREAD_BYTES + compiled * (_COMPILER_BYTES + blocks * _BLOCK_BYTES)
    passes = size * capacity * 2 * widths + _work_bytes(layers, capacity, size)
    exchanges = 0 if by_rows else size * capacity * sum(exchanged_widths(layers, blocks)) * (blocks + 1)
    slots = (1 + compiled) * (inputs + 2 * outputs) + inputs * (model.input_dropout_rate > 0)
    raw = row_bytes + size * inputs * (spec.augmentation is not None) + _mixed_bytes(spec, rows)
    losses = 8 * capacity * outputs * size
    buffers = passes + exchanges + capacity * (size * slots + raw) + losses + _warping_bytes(spec)
    most_rows = max(own.row_count for own in (rows, *others))
    looks_at_columns = model.standardize_inputs or bool(rows.schema.columns)
    largest = max(prod(layer.shapes[0]) for layer in layers if isinstance(layer, Linear))
    passing = [
        max(parameters * (16 + size), 8 * parameters + _DRAWING_BYTES * largest),
        (_SAVED_COPIES + compiled) * saved,
        2 * saved * spec.validation.exists,
        min(most_rows * inputs, _COLUMN_MEANS_VALUES) * _COLUMN_MEANS_BYTES * looks_at_columns,
    ]
    gradients = size * parameters * (blocks if by_rows else 1)
    data = rows.row_count * _bytes_a_row(spec, rows, row_bytes)
    data += sum(own.row_count * _bytes_a_scored_row(spec, rows, own) for own in others)
    return process + saved + gradients + buffers + _validation_bytes(spec) + data + max(passing)


def _validation_bytes(spec: TrainingSpec) -> int:
    """Return the bytes of copies of the weights, and of passes, for validation and for the test at the end."""
    inputs, *widths = _widths(spec)
    values = inputs + 2 * sum(widths) + 8 * spec.model.layer_sizes[-1]
    parameters = parameter_count(spec.model.layers())
    count = spec.validation.exists + bool(spec.test.dataset)
    return np.dtype(spec.model.dtype).itemsize * (parameters + EVALUATION_ROWS * values) * count


def _bytes_a_row(spec: TrainingSpec, rows: StoredRows, row_bytes: int) -> int:
    """Return the bytes that a row takes besides its mapped file: for orders, copies and conversions."""
    dtype = spec.model.dtype
    size = np.dtype(dtype).itemsize
    targets = _INDEX_BYTES if TASKS[spec.task].has_classes else spec.model.layer_sizes[-1] * size
    targets += _SCALED_TARGET_BYTES * spec.model.layer_sizes[-1] * spec.loss.standardize_targets
    weights = size * (rows.weighted or bool(spec.loss.class_weights))
    # Compiled code has no float16: such inputs are copied as float32.
    converted = 2 if spec.runner == "compiled" and rows.dtype == "float16" else 0
    copies = row_bytes * ((spec.validation.fraction > 0) + converted)
    converts_targets = rows.target_dtype != dtype or spec.loss.standardize_targets
    inputs = _encoded_bytes(rows) + _moved_bytes(spec, rows)
    return _ORDERING_BYTES + copies + inputs + targets * converts_targets + weights


def _bytes_a_scored_row(spec: TrainingSpec, rows: StoredRows, scored: StoredRows) -> int:
    """Return the bytes that a row for validation or the test takes besides its file: put, encoded, scaled as ``rows``.

    Classes by other names are numbered anew.
    """
    columns, its = rows.schema.columns, scored.schema.columns
    is_put = bool(columns and its) and columns != its
    dtype = np.dtype(scored.dtype)
    value = np.result_type(dtype if dtype.kind == "f" or not is_put else np.float64, np.float32).itemsize
    put = value * len(its) * is_put
    encoded = value * rows.encoded_size * (rows.needs_encoding or scored.needs_encoding)
    scaled = 2 * _SCALED_TARGET_BYTES * spec.model.layer_sizes[-1] * spec.loss.standardize_targets
    return put + encoded + scaled + _INDEX_BYTES * TASKS[spec.task].has_classes


def _moved_bytes(spec: TrainingSpec, rows: StoredRows) -> int:
    """Return the bytes of a row that is moved before it is used; 0 where none is."""
    if not spec.model.standardize_inputs:
        return 0
    ranges = [(own.minimum, own.maximum) for own in rows.statistics] or [rows.input_range]
    low, high = np.array(ranges, np.float64).T
    return _MOVED_VALUE_BYTES * spec.model.layer_sizes[0] * (Move.of(low, high) is not None)


def _encoded_bytes(rows: StoredRows) -> int:
    """Return the bytes of a row that is encoded before it is used; 0 where rows are used as they are."""
    size = np.result_type(np.dtype(rows.dtype), np.float32).itemsize
    return size * rows.encoded_size * rows.needs_encoding


def _saved_bytes(spec: TrainingSpec) -> int:
    """Return the bytes of all vectors that a checkpoint has: parameters, moments, averages, the best so far."""
    layers, optimizer = spec.model.layers(), spec.optimizer
    copies = 1 + (optimizer.average_decay > 0) + (spec.early_stopping is not None)
    values = parameter_count(layers) * (copies + len(optimizer.kind.moments)) + statistic_count(layers) * copies
    return np.dtype(spec.model.dtype).itemsize * values


def _widths(spec: TrainingSpec) -> list[int]:
    """Return how many values each buffer of a pass has for a row."""
    return [spec.model.layer_sizes[0], *(layer.width for layer in spec.model.layers() if not layer.in_place)]


def _warping_bytes(spec: TrainingSpec) -> int:
    """Return the bytes of augmentation's basis, and of images that are warped ahead."""
    if not spec.augmentation:
        return 0
    images = (MICRO_BATCHES_AHEAD + 1) * micro_batch_rows(spec) * 4 * spec.model.layer_sizes[0]
    return basis_size(spec.augmentation) * _BASIS_BYTES + images
