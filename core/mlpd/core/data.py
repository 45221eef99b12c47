"""Data sets: a safetensors file with "inputs" (rows, width) and "labels" (rows,), checked, then mapped.

The header is parsed here, under caps, rather than by a library that trusts it: a file comes from anyone.
"""

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from mlpd.core.arrays import HostArray
from mlpd.core.files import digest_of
from numpy.typing import NDArray
from safetensors.numpy import save_file

INPUT_TYPES = {"F32": "<f4", "F64": "<f8", "F16": "<f2", "U8": "u1", "I32": "<i4", "I64": "<i8"}
LABEL_TYPES = {"I64": "<i8", "I32": "<i4", "U8": "u1"}
LARGEST_LABEL = 65535
_HEADER_LIMIT_BYTES = 64 * 1024
_BLOCK_VALUES = 4 * 1024 * 1024


class DataError(ValueError):
    """A file or its rows can't be used as a data set."""


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a checked data set; ``class_row_counts`` counts rows by label."""

    sha256: str
    size_bytes: int
    row_count: int
    input_size: int
    dtype: str
    class_row_counts: tuple[int, ...]


@dataclass(frozen=True)
class Dataset:
    """Inputs (rows, input_size) in their own type and integer labels (rows,), usually mapped from a file."""

    inputs: HostArray
    labels: HostArray


def write_dataset(path: Path, inputs: HostArray, labels: HostArray) -> None:
    """Write rows to ``path`` as a data set, neither checked nor synced."""
    save_file({"inputs": np.ascontiguousarray(inputs), "labels": np.ascontiguousarray(labels)}, path)


def open_dataset(path: Path) -> Dataset:
    """Map the data set in ``path``, which `inspect_dataset` has checked; raises `DataError` or `OSError`."""
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        header_bytes = int.from_bytes(prefix, "little")
        if len(prefix) < 8 or header_bytes > min(size_bytes - 8, _HEADER_LIMIT_BYTES):
            raise DataError(f"the content must begin with a safetensors header of at most {_HEADER_LIMIT_BYTES} bytes")
        header = file.read(header_bytes)
    tensors = _tensors(header)
    start, arrays, spans = 8 + header_bytes, {}, []
    for name, kinds, dimensions in (("inputs", INPUT_TYPES, 2), ("labels", LABEL_TYPES, 1)):
        dtype, shape, (begin, stop) = _tensor(name, tensors[name], kinds, dimensions)
        if stop > size_bytes - start or stop - begin != prod(shape) * dtype.itemsize:
            raise DataError(f"{name} must hold exactly the bytes of its shape {list(shape)}")
        if (start + begin) % dtype.itemsize:
            raise DataError(f"{name} must begin at a multiple of {dtype.itemsize} bytes, got {start + begin}")
        arrays[name] = np.memmap(path, dtype, "r", start + begin, shape)
        spans.append((begin, stop))
    (first, middle), (second, end) = sorted(spans)
    if (first, second, end) != (0, middle, size_bytes - start):
        raise DataError("inputs and labels must fill the content after its header, without gap or overlap")
    if len(arrays["inputs"]) != len(arrays["labels"]):
        raise DataError(f"labels must be one a row, got {len(arrays['labels'])} for {len(arrays['inputs'])} rows")
    return Dataset(arrays["inputs"], arrays["labels"])


def inspect_dataset(path: Path) -> DatasetInfo:
    """Check everything about the data set in ``path`` in bounded memory; raises `DataError` or `OSError`."""
    dataset = open_dataset(path)
    _check_inputs(dataset.inputs)
    counts = _count_labels(dataset.labels)
    digest = digest_of(path)
    return DatasetInfo(
        sha256=digest.sha256,
        size_bytes=digest.size_bytes,
        row_count=len(dataset.labels),
        input_size=dataset.inputs.shape[1],
        dtype=dataset.inputs.dtype.name,
        class_row_counts=tuple(int(count) for count in counts),
    )


def _tensors(header: bytes) -> dict[str, object]:
    try:
        tensors = json.loads(header)
    except (ValueError, RecursionError):
        raise DataError("the content must begin with a safetensors header in JSON") from None
    names = set(tensors) - {"__metadata__"} if isinstance(tensors, dict) else set()
    if names != {"inputs", "labels"}:
        raise DataError(f'the content must hold the tensors "inputs" and "labels", got {sorted(names)[:8]}')
    return dict(tensors)


def _tensor(
    name: str, entry: object, kinds: dict[str, str], dimensions: int
) -> tuple[np.dtype[np.generic], tuple[int, ...], tuple[int, int]]:
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
    return np.dtype(kinds[entry["dtype"]]), shape, (begin, stop)


def _sizes(what: str, value: object, length: int) -> tuple[int, ...]:
    if (
        not isinstance(value, list)
        or len(value) != length
        or not all(type(size) is int and 0 <= size < 2**48 for size in value)
    ):
        raise DataError(f"{what} must be {length} whole numbers from 0, got {str(value)[:64]}")
    return tuple(value)


def _check_inputs(inputs: HostArray) -> None:
    if inputs.dtype.kind != "f":
        return
    rows, first, count = max(1, _BLOCK_VALUES // inputs.shape[1]), None, 0
    for start in range(0, len(inputs), rows):
        with np.errstate(over="ignore"):
            finite = np.isfinite(inputs[start : start + rows].astype(np.float32, copy=False))
        if not finite.all():
            wrong = np.argwhere(~finite)
            count += len(wrong)
            first = first or (start + int(wrong[0, 0]), int(wrong[0, 1]))
    if first:
        raise DataError(
            f"inputs must be finite as float32, got {inputs[first]} at row {first[0]}, column {first[1]} "
            f"({count} such values)"
        )


def _count_labels(labels: HostArray) -> NDArray[np.int64]:
    wrong = np.flatnonzero((labels < 0) | (labels > LARGEST_LABEL))
    if wrong.size:
        row = int(wrong[0])
        raise DataError(
            f"labels must be between 0 and {LARGEST_LABEL}, got {labels[row]} at row {row} ({wrong.size} such labels)"
        )
    return np.bincount(labels)
