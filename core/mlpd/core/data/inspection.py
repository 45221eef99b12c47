"""Checks a data set that comes from anyone, all of it, in bounded memory, and says what is in it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from mlpd.core.data.columns import ColumnStatistics, Schema, encoded_size, needs_encoding, table_fault
from mlpd.core.data.datasets import WEIGHT_SUMS, DataError, Dataset, map_array, opened
from mlpd.core.data_types import LARGEST_LABEL
from mlpd.core.devices.arrays import HostArray
from mlpd.core.files import digest_of
from numpy.typing import NDArray

_PIXEL_RANGE = (0.0, 255.0)
_PIXEL_SCALE = 1 / 255
_BLOCK_VALUES = 4 * 1024 * 1024


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a checked data set.

    ``dtype`` is that of the inputs. ``class_row_counts`` counts rows by label and is empty where targets are numbers;
    ``target_size`` is how many numbers, 0 where there are labels, and ``target_range`` the least and the largest.
    Values are whole if all are whole numbers, whatever their type; missing ones do not count. ``encoded_size`` is how
    many values a network sees of a row. ``statistics`` has what is known of each column where these have names.
    """

    sha256: str
    size_bytes: int
    row_count: int
    input_size: int
    dtype: str
    class_row_counts: tuple[int, ...]
    target_dtype: str
    target_size: int
    target_range: tuple[float, float]
    whole_targets: bool
    weighted: bool
    input_range: tuple[float, float]
    whole_inputs: bool
    encoded_size: int
    schema: Schema = field(default_factory=Schema)
    statistics: tuple[ColumnStatistics, ...] = ()

    @property
    def needs_encoding(self) -> bool:
        """Whether a network can't take its rows as they are."""
        return needs_encoding(self.schema, self.statistics)


class Inputs(Protocol):
    """What is known of inputs; a `DatasetInfo` knows it."""

    @property
    def input_range(self) -> tuple[float, float]:
        """Least and largest value."""

    @property
    def whole_inputs(self) -> bool:
        """Whether all are whole numbers."""

    @property
    def schema(self) -> Schema:
        """What they stand for."""


def default_input_scale(inputs: Inputs) -> float:
    """Return what inputs are multiplied by where nothing is said: 1/255 for pixels, else 1.

    Pixels are known by their values, whatever type they are stored in: whole numbers, the least 0 and the largest 255.
    """
    could_be = inputs.whole_inputs and inputs.schema.is_plain
    return _PIXEL_SCALE if could_be and inputs.input_range == _PIXEL_RANGE else 1.0


def inspect_dataset(path: Path) -> DatasetInfo:
    """Check everything about the data set in ``path`` in bounded memory; raises `DataError` or `OSError`."""
    dataset, may_lack = opened(path, map_array)
    schema = dataset.schema
    inputs = _survey("inputs", dataset.inputs, may_lack=may_lack)
    targets = _Survey((0.0, 0.0), whole=True)
    statistics = _statistics(dataset) if schema.columns else ()
    counts: tuple[int, ...] = ()
    target_size = 0
    if dataset.targets.ndim == 1:
        counts = tuple(int(count) for count in _count_labels(dataset.targets, len(schema.class_names)))
    else:
        targets, target_size = _survey("targets", dataset.targets), dataset.targets.shape[1]
    if dataset.weights is not None:
        _check_weights(dataset.weights)
    digest = digest_of(path)
    return DatasetInfo(
        sha256=digest.sha256,
        size_bytes=digest.size_bytes,
        row_count=len(dataset),
        input_size=dataset.inputs.shape[1],
        dtype=dataset.inputs.dtype.name,
        class_row_counts=counts,
        target_dtype=dataset.targets.dtype.name,
        target_size=target_size,
        target_range=targets.range,
        whole_targets=targets.whole,
        weighted=dataset.weights is not None,
        input_range=inputs.range,
        whole_inputs=inputs.whole,
        encoded_size=encoded_size(schema, statistics, dataset.inputs.shape[1]),
        schema=schema,
        statistics=statistics,
    )


class _Survey(NamedTuple):
    """Least and largest of values, and whether all are whole numbers."""

    range: tuple[float, float]
    whole: bool


def _survey(name: str, values: HostArray, *, may_lack: bool = False) -> _Survey:
    """Look at values (rows, width) in bounded memory; raises `DataError` unless all are finite as float32.

    NaN counts as no value where rows ``may_lack`` some; the range is (0, 0) where there is none at all.
    """
    first, count = None, 0
    low, high, whole = np.inf, -np.inf, True
    for start, block in _blocks(values):
        if block.dtype.kind == "f":
            with np.errstate(over="ignore"):
                finite = np.isfinite(block.astype(np.float32, copy=False))
            if may_lack:
                finite |= np.isnan(block)
            if not finite.all():
                wrong = np.argwhere(~finite)
                count += len(wrong)
                first = first or (start + int(wrong[0, 0]), int(wrong[0, 1]))
                continue
            given = block[~np.isnan(block)] if may_lack else block
            whole = whole and bool((np.floor(given) == given).all())
        else:
            given = block
        if given.size:
            low, high = min(low, float(given.min())), max(high, float(given.max()))
    if first:
        raise DataError(
            f"{name} must be finite as float32, got {values[first]} at row {first[0]}, column {first[1]} "
            f"({count} such values)"
        )
    return _Survey((low, high) if low <= high else (0.0, 0.0), whole)


def _statistics(dataset: Dataset) -> tuple[ColumnStatistics, ...]:
    """Return what is known of each column; raises `DataError` for a value that a column of its kind can't have.

    Means and sums of squares of blocks are joined as in Chan, Golub & LeVeque 1983, equations 2.1.
    """
    columns, inputs = dataset.schema.columns, dataset.inputs
    count, mean, squares = (np.zeros(len(columns)) for _ in range(3))
    low, high = np.full(len(columns), np.inf), np.full(len(columns), -np.inf)
    for start, block in _blocks(inputs):
        if fault := table_fault(columns, block, unknown=False):
            value = block[fault.row, columns.index(fault.column)]
            text = f"column {fault.column.name[:64]!a} of inputs must {fault.rule}"
            raise DataError(f"{text}, got {value} at row {start + fault.row}")
        numbers = block.astype(np.float64)
        present = ~np.isnan(numbers)
        own = present.sum(axis=0)
        least, most = np.maximum(own, 1), np.maximum(count + own, 1)
        own_mean = np.where(present, numbers, 0).sum(axis=0) / least
        own_squares = (np.where(present, numbers - own_mean, 0) ** 2).sum(axis=0)
        squares += own_squares + (own_mean - mean) ** 2 * (count * own / most)
        mean += (own_mean - mean) * (own / most)
        count += own
        low = np.minimum(low, np.where(present, numbers, np.inf).min(axis=0))
        high = np.maximum(high, np.where(present, numbers, -np.inf).max(axis=0))
    deviation = np.sqrt(squares / np.maximum(count, 1))
    low, high = np.where(count, low, 0), np.where(count, high, 0)
    missing = len(inputs) - count.astype(np.int64)
    found = zip(*(values.tolist() for values in (missing, mean, deviation, low, high)), strict=True)
    return tuple(ColumnStatistics(*values) for values in found)


def _blocks(values: HostArray) -> Iterator[tuple[int, HostArray]]:
    """Cut values (rows, width) into blocks that fit in little memory, each with the number of its first row."""
    rows = max(1, _BLOCK_VALUES // values.shape[1])
    return ((start, values[start : start + rows]) for start in range(0, len(values), rows))


def _check_weights(weights: HostArray) -> None:
    wrong = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if wrong.size:
        row = int(wrong[0])
        raise DataError(f"weights must be finite and at least 0, got {weights[row]} at row {row}")
    if not weights.any():
        raise DataError("weights must not all be 0")
    low, high = WEIGHT_SUMS
    with np.errstate(over="ignore"):
        total = weights.sum(dtype=np.float64)
    if not low <= total <= high:
        raise DataError(f"weights must add up to between {low:g} and {high:g}, got {total:g}")


def _count_labels(labels: HostArray, name_count: int) -> NDArray[np.int64]:
    """Count rows by label; raises `DataError` for a label that no class can have, or none of the named ones."""
    wrong = np.flatnonzero((labels < 0) | (labels > LARGEST_LABEL))
    if wrong.size:
        row = int(wrong[0])
        raise DataError(
            f"labels must be between 0 and {LARGEST_LABEL}, got {labels[row]} at row {row} ({wrong.size} such labels)"
        )
    counts = np.bincount(labels, minlength=name_count)
    if 0 < name_count < len(counts):
        raise DataError(f"class_names must have a name for each label, {len(counts)}, got {name_count}")
    return counts
