"""Data sets: a safetensors file with rows and what to learn of them, checked, then mapped.

It has "inputs" (rows, width); either "labels" (rows,), class indices, or "targets" (rows, outputs), numbers; and may
have "weights" (rows,), how much each row counts. Its metadata may name the columns of the inputs: "input_names", a
JSON list of texts.

The header is parsed here, under caps, rather than by a library that trusts it: a file comes from anyone.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from mlpd.core.data_types import DATA_TYPES, LABEL_TYPES, LARGEST_LABEL, TARGET_TYPES, WEIGHT_TYPES
from mlpd.core.devices.arrays import HostArray
from mlpd.core.files import digest_of
from numpy.typing import NDArray
from safetensors.numpy import save_file

WEIGHT_SUMS = 1e-150, 1e150  # so that products of weights and their sums stay in the range of float64
_PIXEL_RANGE = (0.0, 255.0)
_PIXEL_SCALE = 1 / 255
_HEADER_LIMIT_BYTES = 1024 * 1024
_NAME_LIMIT_CHARACTERS = 256
_BLOCK_VALUES = 4 * 1024 * 1024


class DataError(ValueError):
    """A file or its rows can't be used as a data set."""


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a checked data set.

    ``dtype`` is that of the inputs. ``class_row_counts`` counts rows by label and is empty where targets are numbers;
    ``target_size`` is how many numbers, 0 where there are labels, and ``target_range`` the least and the largest.
    Values are whole if all are whole numbers, whatever their type. ``input_names`` is empty where columns have none.
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
    input_names: tuple[str, ...] = ()


class Inputs(Protocol):
    """What is known of inputs; a `DatasetInfo` knows it."""

    @property
    def input_range(self) -> tuple[float, float]:
        """Least and largest value."""

    @property
    def whole_inputs(self) -> bool:
        """Whether all are whole numbers."""


def default_input_scale(inputs: Inputs) -> float:
    """Return what inputs are multiplied by where nothing is said: 1/255 for pixels, else 1.

    Pixels are known by their values, whatever type they are stored in: whole numbers, the least 0 and the largest 255.
    """
    return _PIXEL_SCALE if inputs.whole_inputs and inputs.input_range == _PIXEL_RANGE else 1.0


@dataclass(frozen=True)
class Dataset:
    """Inputs (rows, input_size) in their own type; targets, (rows,) class indices or (rows, outputs) numbers.

    ``weights`` (rows,) say how much each row counts in training. Arrays are usually mapped from a file.
    """

    inputs: HostArray
    targets: HostArray
    weights: HostArray | None = None
    input_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.inputs)

    def rows(self, chosen: NDArray[np.int64]) -> "Dataset":
        """Return a copy of the ``chosen`` rows."""
        weights = None if self.weights is None else self.weights[chosen]
        return Dataset(self.inputs[chosen], self.targets[chosen], weights, self.input_names)


def write_dataset(path: Path, dataset: Dataset) -> None:
    """Write rows to ``path`` as a data set, neither checked nor synced."""
    tensors = {"inputs": dataset.inputs, "labels" if dataset.targets.ndim == 1 else "targets": dataset.targets}
    if dataset.weights is not None:
        tensors["weights"] = dataset.weights
    metadata = {_NAMES_KEY: json.dumps(dataset.input_names)} if dataset.input_names else None
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, path, metadata)


def map_array(path: Path, dtype: np.dtype[Any], offset: int, shape: tuple[int, ...]) -> HostArray:
    """Map an array in a file; what can't be read of it later ends the process."""
    return np.memmap(path, dtype, "r", offset, shape)


def open_dataset(path: Path, open_array: Callable[..., Any] = map_array) -> Dataset:
    """Open the data set in ``path``, which `inspect_dataset` has checked, each tensor by ``open_array``.

    Raises `DataError` or `OSError`.
    """
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        header_bytes = int.from_bytes(prefix, "little")
        if len(prefix) < 8 or header_bytes > min(size_bytes - 8, _HEADER_LIMIT_BYTES):
            raise DataError(f"the content must begin with a safetensors header of at most {_HEADER_LIMIT_BYTES} bytes")
        header = file.read(header_bytes)
    start, arrays, spans = 8 + header_bytes, {}, []
    tensors, metadata = _entries(header)
    for name, entry in tensors.items():
        dtype, shape, (begin, stop) = _tensor(name, entry, *_KINDS[name])
        if stop > size_bytes - start or stop - begin != prod(shape) * dtype.itemsize:
            raise DataError(f"{name} must hold exactly the bytes of its shape {list(shape)}")
        if (start + begin) % dtype.itemsize:
            raise DataError(f"{name} must begin at a multiple of {dtype.itemsize} bytes, got {start + begin}")
        arrays[name] = open_array(path, dtype, start + begin, shape)
        spans.append((begin, stop))
    edges = [0, *(edge for span in sorted(spans) for edge in span), size_bytes - start]
    if edges[::2] != edges[1::2]:
        raise DataError(f"{', '.join(arrays)} must fill the content after its header, without gap or overlap")
    targets = arrays["labels"] if "labels" in arrays else arrays["targets"]
    input_names = _input_names(metadata, arrays["inputs"].shape[1])
    dataset = Dataset(arrays["inputs"], targets, arrays.get("weights"), input_names)
    for name, array in arrays.items():
        if len(array) != len(dataset):
            raise DataError(f"{name} must be one a row, got {len(array)} for {len(dataset)} rows")
    return dataset


def inspect_dataset(path: Path) -> DatasetInfo:
    """Check everything about the data set in ``path`` in bounded memory; raises `DataError` or `OSError`."""
    dataset = open_dataset(path)
    inputs, targets = _survey("inputs", dataset.inputs), _Survey((0.0, 0.0), whole=True)
    counts: tuple[int, ...] = ()
    target_size = 0
    if dataset.targets.ndim == 1:
        counts = tuple(int(count) for count in _count_labels(dataset.targets))
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
        input_names=dataset.input_names,
    )


_NAMES_KEY = "input_names"
_KINDS = {
    "inputs": (tuple(DATA_TYPES), 2),
    "labels": (LABEL_TYPES, 1),
    "targets": (TARGET_TYPES, 2),
    "weights": (WEIGHT_TYPES, 1),
}


def _entries(header: bytes) -> tuple[dict[str, object], object]:
    """Return the entries of the tensors, and the metadata."""
    try:
        entries = json.loads(header)
    except (ValueError, RecursionError):
        raise DataError("the content must begin with a safetensors header in JSON") from None
    names = set(entries) - {"__metadata__"} if isinstance(entries, dict) else set()
    if names - {"weights"} not in ({"inputs", "labels"}, {"inputs", "targets"}):
        raise DataError(
            f'the content must hold the tensors "inputs", "labels" or "targets", and perhaps "weights", '
            f"got {[name[:32] for name in sorted(names)[:8]]}"
        )
    return {name: entries[name] for name in _KINDS if name in names}, entries.get("__metadata__", {})


def _input_names(metadata: object, count: int) -> tuple[str, ...]:
    text = metadata.get(_NAMES_KEY, "[]") if isinstance(metadata, dict) else "[]"
    try:
        names = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        names = None
    rule = f"{_NAMES_KEY} must be a JSON list of {count} distinct texts, one a column of the inputs"
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{rule}, got {ascii(text)[:64]}")
    if names and len(names) != count:
        raise DataError(f"{rule}, got {len(names)}")
    seen = set()
    for name in names:
        if name in seen:
            raise DataError(f"{rule}, got {name[:64]!a} twice")
        if not 1 <= len(name) <= _NAME_LIMIT_CHARACTERS or not name.isprintable():
            text = f"hold printable texts of 1 to {_NAME_LIMIT_CHARACTERS} characters"
            raise DataError(f"{_NAMES_KEY} must {text}, got {name[:64]!a}")
        seen.add(name)
    return tuple(names)


def _tensor(
    name: str, entry: object, dtypes: Sequence[str], dimensions: int
) -> tuple[np.dtype[np.generic], tuple[int, ...], tuple[int, int]]:
    kinds = {DATA_TYPES[dtype].safetensors: dtype for dtype in dtypes}
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise DataError(f"{name} must have a dtype, a shape and data_offsets")
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in kinds:
        raise DataError(f"{name} must be one of {', '.join(kinds)}, got {str(entry['dtype'])[:16]}")
    shape = _sizes(f"{name}'s shape", entry["shape"], dimensions)
    begin, stop = _sizes(f"{name}'s data_offsets", entry["data_offsets"], 2)
    if min(shape) < 1:
        raise DataError(f"{name} must have at least one row and one value, got the shape {list(shape)}")
    if begin > stop:
        raise DataError(f"{name}'s data_offsets must rise, got {begin} and {stop}")
    return np.dtype(kinds[entry["dtype"]]).newbyteorder("<"), shape, (begin, stop)


def _sizes(what: str, value: object, length: int) -> tuple[int, ...]:
    if (
        not isinstance(value, list)
        or len(value) != length
        or not all(type(size) is int and 0 <= size < 2**48 for size in value)
    ):
        raise DataError(f"{what} must be {length} whole numbers from 0, got {str(value)[:64]}")
    return tuple(value)


class _Survey(NamedTuple):
    """Least and largest of values, and whether all are whole numbers."""

    range: tuple[float, float]
    whole: bool


def _survey(name: str, values: HostArray) -> _Survey:
    """Look at values (rows, width) in bounded memory; raises `DataError` unless all are finite as float32."""
    rows, first, count = max(1, _BLOCK_VALUES // values.shape[1]), None, 0
    low, high, whole = np.inf, -np.inf, True
    for start in range(0, len(values), rows):
        block = values[start : start + rows]
        if block.dtype.kind == "f":
            with np.errstate(over="ignore"):
                finite = np.isfinite(block.astype(np.float32, copy=False))
            if not finite.all():
                wrong = np.argwhere(~finite)
                count += len(wrong)
                first = first or (start + int(wrong[0, 0]), int(wrong[0, 1]))
                continue
            whole = whole and bool((np.floor(block) == block).all())
        low, high = min(low, float(block.min())), max(high, float(block.max()))
    if first:
        raise DataError(
            f"{name} must be finite as float32, got {values[first]} at row {first[0]}, column {first[1]} "
            f"({count} such values)"
        )
    return _Survey((low, high), whole)


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


def _count_labels(labels: HostArray) -> NDArray[np.int64]:
    wrong = np.flatnonzero((labels < 0) | (labels > LARGEST_LABEL))
    if wrong.size:
        row = int(wrong[0])
        raise DataError(
            f"labels must be between 0 and {LARGEST_LABEL}, got {labels[row]} at row {row} ({wrong.size} such labels)"
        )
    return np.bincount(labels)
