"""NumPy arrays as the tensors and data-set files that the server takes."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from mlpd.client.columns import check_names, named_rows
from mlpd.client.errors import InvalidRequest
from mlpd.client.settings import DATA_TYPES, LARGEST_LABEL
from mlpd.v1 import types_pb2 as types
from numpy.typing import ArrayLike, NDArray
from safetensors.numpy import save_file

Array = NDArray[np.generic]

_DATA_TYPES: dict[np.dtype[np.generic], types.DataType.ValueType] = {
    np.dtype(name).newbyteorder("<"): types.DataType.Value(data_type) for name, data_type in DATA_TYPES.items()
}
_DTYPES = {data_type: dtype for dtype, data_type in _DATA_TYPES.items()}
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


def dataset_tensors(
    inputs: ArrayLike,
    input_names: Sequence[str] | None,
    *,
    labels: ArrayLike | None,
    targets: ArrayLike | None,
    weights: ArrayLike | None,
) -> tuple[dict[str, Array], tuple[str, ...]]:
    """Return the tensors of a data-set file and the names of its columns, none where they have none.

    Raises `InvalidRequest` for rows or names that can't be stored.
    """
    answers = {"labels": labels, "targets": targets, "weights": weights}
    values, names = named_rows("inputs", inputs, input_names, answers)
    rows = rows_from("inputs", values)
    check_finite("inputs", rows)
    if names:
        check_names("input_names", names, rows.shape[1])
    if (labels is None) == (targets is None):
        raise InvalidRequest("labels or targets must be given, and not both")
    tensors = {"inputs": rows}
    if labels is not None:
        tensors["labels"] = labels_from("labels", labels, len(rows))
    if targets is not None:
        tensors["targets"] = targets_from("targets", targets, len(rows))
    if weights is not None:
        tensors["weights"] = weights_from("weights", weights, len(rows))
    return tensors, names


def write_dataset(path: Path, tensors: Mapping[str, Array], input_names: Sequence[str] = ()) -> tuple[str, int]:
    """Write a data-set file, with the names of its columns if they have any, and return its SHA-256 and size."""
    metadata = {"input_names": json.dumps(list(input_names), ensure_ascii=False)} if input_names else None
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, path, metadata)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size


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
