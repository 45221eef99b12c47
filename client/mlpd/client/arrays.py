"""NumPy arrays as the tensors and data-set files that the server takes."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mlpd.client.columns import check_names
from mlpd.client.errors import InvalidRequest
from mlpd.client.settings import DATA_TYPES, LARGEST_LABEL
from mlpd.client.tables.table import LabelledTable
from mlpd.v1 import types_pb2 as types
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.generic]

_DATA_TYPES: dict[np.dtype[np.generic], types.DataType.ValueType] = {
    np.dtype(name).newbyteorder("<"): types.DataType.Value(data_type) for name, data_type in DATA_TYPES.items()
}
_DTYPES = {data_type: dtype for dtype, data_type in _DATA_TYPES.items()}
# What a data-set file calls a type; in a file, tensors of types that come first here come first.
_FILE_TYPES = {"<i8": "I64", "<f8": "F64", "<f4": "F32", "<i4": "I32", "<f2": "F16", "|u1": "U8"}
_HEADER_LIMIT_BYTES = 1024 * 1024
_FILE_ORDER = list(_FILE_TYPES)
# Types without a wire form of their own, and the smallest that holds all their values.
_WIDENED = {"bool": "u1", "int8": "i4", "int16": "i4", "uint16": "i4", "uint32": "i8"}


def rows_from(name: str, values: ArrayLike) -> Array:
    """Return ``values`` (rows, ...) as C-ordered, little-endian (rows, width) of a type that travels.

    Images (rows, 28, 28) become (rows, 784). Raises `InvalidRequest` for a type that can't be sent without loss.
    """
    array = _array(name, values)
    if array.ndim < 2:
        raise _invalid(name, f"{name} must be (rows, width), got the shape {array.shape}")
    array = array.reshape(len(array), int(np.prod(array.shape[1:])))
    return _supported(name, array)


def labels_from(name: str, values: ArrayLike, row_count: int) -> Array:
    """Return class indices (rows,) as INT64, one a row; raises `InvalidRequest` for anything else."""
    rule = f"{name} must be whole numbers from 0 to {LARGEST_LABEL}"
    array = _array(name, values)
    if array.shape != (row_count,):
        raise _invalid(name, f"{name} must be ({row_count},), one a row, got the shape {array.shape}")
    if array.dtype.kind not in "biuf":
        raise _invalid(name, f"{rule}, got {array.dtype}")
    numbers = array.astype(np.float64)
    wrong = np.flatnonzero(~((numbers >= 0) & (numbers <= LARGEST_LABEL) & (numbers == np.floor(numbers))))
    if wrong.size:
        row = int(wrong[0])
        raise _invalid(name, f"{rule}, got {array[row]} at row {row} ({wrong.size} such labels)")
    return array.astype("<i8")


def targets_from(name: str, values: ArrayLike, row_count: int) -> Array:
    """Return numbers (rows, outputs); (rows,) become (rows, 1). Raises `InvalidRequest` for anything else.

    Integers become float64, but for uint8 and bool, which stand for labels that are there or not.
    """
    array = _array(name, values)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or len(array) != row_count or not array.shape[1]:
        raise _invalid(name, f"{name} must be ({row_count}, outputs), got the shape {array.shape}")
    if array.dtype.kind not in "biuf":
        raise _invalid(name, f"{name} must be numbers, got {array.dtype}")
    if array.dtype.kind == "b" or array.dtype == np.uint8:
        return np.ascontiguousarray(array, "u1")
    numbers = np.ascontiguousarray(array, "<f4" if array.dtype.itemsize <= 4 and array.dtype.kind == "f" else "<f8")
    check_finite(name, numbers)
    return numbers


def weights_from(name: str, values: ArrayLike, row_count: int) -> Array:
    """Return weights of rows (rows,) as float64; raises `InvalidRequest` for anything else."""
    array = _array(name, values)
    if array.shape != (row_count,) or array.dtype.kind not in "biuf":
        raise _invalid(name, f"{name} must be ({row_count},) numbers, got {array.dtype} of the shape {array.shape}")
    weights = array.astype("<f8")
    wrong = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if wrong.size:
        row = int(wrong[0])
        raise _invalid(name, f"{name} must be finite and at least 0, got {array[row]} at row {row}")
    return weights


def check_finite(name: str, rows: Array) -> None:
    """Raise `InvalidRequest` when a value of ``rows`` is not finite as float32."""
    if rows.dtype.kind != "f":
        return
    with np.errstate(over="ignore"):
        finite = np.isfinite(rows.astype(np.float32, copy=False))
    if not finite.all():
        row, column = (int(index) for index in np.argwhere(~finite)[0])
        raise _invalid(
            name,
            f"{name} must be finite as float32, got {rows[row, column]} at row {row}, column {column} "
            f"({int((~finite).sum())} such values)",
        )


def tensor_from(array: Array) -> types.Tensor:
    """Return what `rows_from` or `labels_from` gave as a message."""
    return types.Tensor(data_type=_DATA_TYPES[array.dtype], shape=array.shape, data=array.tobytes())


def array_from(tensor: types.Tensor) -> Array:
    """Return a tensor's values as a read-only array."""
    return np.frombuffer(tensor.data, dtype_of(tensor.data_type)).reshape(tuple(tensor.shape))


def dtype_of(data_type: types.DataType.ValueType) -> np.dtype[np.generic]:
    """Return what NumPy calls a type of the protocol's."""
    return _DTYPES[data_type]


def split(rows: Array, message_bytes: int, target_bytes: int = 0, row_limit: int | None = None) -> Iterator[slice]:
    """Yield slices of up to ``row_limit`` rows that each fit ``message_bytes``, with ``target_bytes`` a row more."""
    row_bytes = rows.dtype.itemsize * rows.shape[1] + target_bytes + 16  # tags
    size = max(1, min((message_bytes - 4096) // row_bytes, row_limit or len(rows)))
    for start in range(0, max(len(rows), 1), size):
        yield slice(start, start + size)


def dataset_tensors(table: LabelledTable) -> dict[str, Array]:
    """Return the tensors of a data-set file; raises `InvalidRequest` for rows or names that can't be stored."""
    rows = rows_from("inputs", table.inputs)
    if table.is_plain:
        check_finite("inputs", rows)
    if table.columns:
        check_names("input_names", table.input_names, rows.shape[1])
    if (table.labels is None) == (table.targets is None):
        raise InvalidRequest("labels or targets must be given, and not both")
    tensors = {"inputs": rows}
    if table.labels is not None:
        tensors["labels"] = labels_from("labels", table.labels, len(rows))
    if table.targets is not None:
        tensors["targets"] = targets_from("targets", table.targets, len(rows))
    if table.weights is not None:
        tensors["weights"] = weights_from("weights", table.weights, len(rows))
    return tensors


def write_dataset(path: Path, tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> tuple[str, int]:
    """Write a data-set file and return its SHA-256 and size; arrays are C-ordered and not copied.

    The bytes are those of `safetensors.numpy.save_file`, which would copy each array. Raises `InvalidRequest` for more
    names than a file may have.
    """
    order = sorted(tensors, key=lambda name: (_FILE_ORDER.index(tensors[name].dtype.str), name))
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    start = 0
    for name in order:
        array = tensors[name]
        kind, stop = _FILE_TYPES[array.dtype.str], start + array.nbytes
        header[name] = {"dtype": kind, "shape": array.shape, "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > _HEADER_LIMIT_BYTES:
        rule = f"names of columns, categories and classes must fit {_HEADER_LIMIT_BYTES:,} bytes"
        raise InvalidRequest(f"{rule}, got {len(text):,}; leave out columns of many texts")
    digest = hashlib.sha256()
    parts: list[Any] = [len(text).to_bytes(8, "little"), text]
    parts += [tensors[name].reshape(-1).view(np.uint8).data for name in order]
    with path.open("wb") as file:
        for part in parts:
            file.write(part)
            digest.update(part)
    return digest.hexdigest(), 8 + len(text) + start


def _array(name: str, values: ArrayLike) -> Array:
    try:
        return np.asarray(values)
    except (ValueError, TypeError) as error:
        raise _invalid(name, f"{name} must be one array with rows of equal length: {error}") from error


def _supported(name: str, array: Array) -> Array:
    wanted = _WIDENED.get(array.dtype.name)
    dtype = np.dtype(wanted) if wanted else array.dtype.newbyteorder("<")
    if dtype not in _DATA_TYPES:
        known = ", ".join(dtype.name for dtype in _DATA_TYPES)
        raise _invalid(name, f"{name} must be of a type that fits one of {known}, got {array.dtype}")
    return np.ascontiguousarray(array, dtype)


def _invalid(field: str, sentence: str) -> InvalidRequest:
    return InvalidRequest(sentence, "FIELD_INVALID", {field: sentence})
