"""Data sets: a safetensors file with rows and what to learn of them, checked, then mapped.

It has "inputs" (rows, width); either "labels" (rows,), class indices, or "targets" (rows, outputs), numbers; and may
have "weights" (rows,), how much each row counts. Its metadata may say what these numbers stand for: see `columns`.

The header is parsed here, under caps, rather than by a library that trusts it: a file comes from anyone.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from mlpd.core.data.columns import Schema, SchemaError, schema_from
from mlpd.core.data_types import DATA_TYPES, LABEL_TYPES, TARGET_TYPES, WEIGHT_TYPES
from mlpd.core.devices.arrays import HostArray
from numpy.typing import NDArray
from safetensors.numpy import save_file

WEIGHT_SUMS = 1e-150, 1e150  # so that products of weights and their sums stay in the range of float64


_HEADER_LIMIT_BYTES = 1024 * 1024
_BLOCK_VALUES = 4 * 1024 * 1024


class DataError(ValueError):
    """A file or its rows can't be used as a data set."""


@dataclass(frozen=True)
class Dataset:
    """Inputs (rows, input_size) in their own type; targets, (rows,) class indices or (rows, outputs) numbers.

    ``weights`` (rows,) say how much each row counts in training. Arrays are usually mapped from a file.
    """

    inputs: HostArray
    targets: HostArray
    weights: HostArray | None = None
    schema: Schema = field(default_factory=Schema)

    def __len__(self) -> int:
        return len(self.inputs)

    def rows(self, chosen: NDArray[np.int64]) -> "Dataset":
        """Return a copy of the ``chosen`` rows."""
        weights = None if self.weights is None else self.weights[chosen]
        return Dataset(self.inputs[chosen], self.targets[chosen], weights, self.schema)


def write_dataset(path: Path, dataset: Dataset) -> None:
    """Write rows to ``path`` as a data set, neither checked nor synced."""
    tensors = {"inputs": dataset.inputs, "labels" if dataset.targets.ndim == 1 else "targets": dataset.targets}
    if dataset.weights is not None:
        tensors["weights"] = dataset.weights
    lacks_values = dataset.inputs.dtype.kind == "f" and bool(np.isnan(dataset.inputs).any())
    metadata = dataset.schema.metadata(lacks_values=lacks_values)
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, path, metadata or None)


def map_array(path: Path, dtype: np.dtype[Any], offset: int, shape: tuple[int, ...]) -> HostArray:
    """Map an array in a file; what can't be read of it later ends the process."""
    return np.memmap(path, dtype, "r", offset, shape)


def open_dataset(path: Path, open_array: Callable[..., Any] = map_array) -> Dataset:
    """Open the data set in ``path``, which `inspect_dataset` has checked, each tensor by ``open_array``.

    Raises `DataError` or `OSError`.
    """
    return opened(path, open_array)[0]


def opened(path: Path, open_array: Callable[..., Any]) -> tuple[Dataset, bool]:
    """Return the data set in ``path``, as `open_dataset`, and whether its inputs may lack values."""
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
    target_size = 0 if targets.ndim == 1 else targets.shape[1]
    try:
        schema, may_lack = schema_from(metadata, arrays["inputs"].shape[1], target_size)
    except SchemaError as error:
        raise DataError(str(error)) from None
    dataset = Dataset(arrays["inputs"], targets, arrays.get("weights"), schema)
    for name, array in arrays.items():
        if len(array) != len(dataset):
            raise DataError(f"{name} must be one a row, got {len(array)} for {len(dataset)} rows")
    return dataset, may_lack


_KINDS = {
    "inputs": (tuple(DATA_TYPES), 2),
    "labels": (LABEL_TYPES, 1),
    "targets": (TARGET_TYPES, 2),
    "weights": (WEIGHT_TYPES, 1),
}


def _entries(header: bytes) -> tuple[dict[str, object], dict[str, object]]:
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
    metadata = entries.get("__metadata__", {})
    return {name: entries[name] for name in _KINDS if name in names}, metadata if isinstance(metadata, dict) else {}


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
