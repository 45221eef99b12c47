"""Tensors on the wire and NumPy arrays."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from mlpd.core.data.encoding import Encoder
from mlpd.core.data_types import DATA_TYPES, LABEL_TYPES, TARGET_TYPES
from mlpd.server.errors import InvalidRequest
from mlpd.server.names import shown
from mlpd.v1 import types_pb2 as types
from numpy.typing import NDArray

_DATA_TYPES = {
    np.dtype(name).newbyteorder("<"): types.DataType.Value(f"DATA_TYPE_{kind.protocol}")
    for name, kind in DATA_TYPES.items()
}
_DTYPES = {data_type: dtype for dtype, data_type in _DATA_TYPES.items()}


def data_type_of(dtype: str) -> types.DataType.ValueType:
    """Return the wire's name of a NumPy type."""
    return _DATA_TYPES[np.dtype(dtype)]


def fill_tensor(tensor: types.Tensor, array: NDArray[np.generic]) -> None:
    """Write ``array`` to a message where it stands: to put one message into another copies it once more."""
    tensor.data_type = _DATA_TYPES[array.dtype]
    tensor.shape.extend(array.shape)
    tensor.data = array.tobytes()


def inputs_from(
    field: str, tensor: types.Tensor, input_size: int, encoder: Encoder | None = None
) -> NDArray[np.generic]:
    """Return rows (rows, input_size) as a view of ``tensor``.

    Raises `InvalidRequest` for another shape, a byte length that does not fit it, or a value that is not finite
    as float32; or, where rows are for an ``encoder``, that it does not take.
    """
    array = _array_from(field, tensor, tuple(DATA_TYPES))
    if array.ndim != 2 or array.shape[0] < 1 or array.shape[1] != input_size:
        raise InvalidRequest.field(
            f"{field}.shape",
            f"{field}.shape must be [N, {input_size}] with N >= 1, got {_shown(tensor.shape)}",
            "SHAPE_MISMATCH",
        )
    if encoder:
        _check_encoded(field, array, encoder)
    else:
        _check_finite(field, array)
    return array


def targets_from(field: str, tensor: types.Tensor, row_count: int, output_count: int) -> NDArray[np.generic]:
    """Return numbers (rows, outputs) as a view of ``tensor``, or raise `InvalidRequest`."""
    array = _array_from(field, tensor, TARGET_TYPES)
    if array.shape != (row_count, output_count):
        raise InvalidRequest.field(
            f"{field}.shape",
            f"{field}.shape must be [{row_count}, {output_count}], got {_shown(tensor.shape)}",
            "SHAPE_MISMATCH",
        )
    _check_finite(field, array)
    return array


def labels_from(field: str, tensor: types.Tensor, row_count: int, class_count: int) -> NDArray[np.int64]:
    """Return labels (rows,), each a class of the model, or raise `InvalidRequest`."""
    array = _array_from(field, tensor, LABEL_TYPES)
    if array.shape != (row_count,):
        raise InvalidRequest.field(
            f"{field}.shape",
            f"{field}.shape must be [{row_count}], one a row, got {_shown(tensor.shape)}",
            "SHAPE_MISMATCH",
        )
    wrong = (array < 0) | (array >= class_count)
    if wrong.any():
        row = int(wrong.argmax())
        raise InvalidRequest.field(
            f"{field}.data",
            f"{field} must be between 0 and {class_count - 1}, got {array[row]} at row {row}",
            rows=row,
        )
    return array.astype(np.int64)


def _check_finite(field: str, array: NDArray[Any]) -> None:
    if array.dtype.kind != "f":
        return
    with np.errstate(over="ignore"):
        finite = np.isfinite(array.astype(np.float32, copy=False))
    if not finite.all():
        row, column = divmod(int(finite.argmin()), array.shape[1])
        raise InvalidRequest.field(
            f"{field}.data",
            f"{field} must be finite as float32, got {array[row, column]} at row {row}, column {column} "
            f"({finite.size - np.count_nonzero(finite)} such values)",
            rows=row,
        )


def _check_encoded(field: str, array: NDArray[Any], encoder: Encoder) -> None:
    if fault := encoder.fault(array):
        value = array[fault.row, encoder.columns.index(fault.column)]
        text = f"{field} must {fault.rule}, in the column {shown(fault.column.name)}, got {value} at row {fault.row}"
        raise InvalidRequest.field(f"{field}.data", text, rows=fault.row)


def _array_from(field: str, tensor: types.Tensor, dtypes: Sequence[str]) -> NDArray[Any]:
    allowed = [data_type_of(dtype) for dtype in dtypes]
    if tensor.data_type not in allowed:
        names = ", ".join(types.DataType.Name(data_type) for data_type in allowed)
        raise InvalidRequest.field(
            f"{field}.data_type", f"{field}.data_type must be one of {names}, got {tensor.data_type}"
        )
    dtype = _DTYPES[tensor.data_type]
    shape = tuple(tensor.shape)
    if not 1 <= len(shape) <= 2 or min(shape) < 1:
        raise InvalidRequest.field(
            f"{field}.shape", f"{field}.shape must be one or two sizes >= 1, got {_shown(shape)}", "SHAPE_MISMATCH"
        )
    needed = math.prod(shape) * dtype.itemsize
    if len(tensor.data) != needed:
        raise InvalidRequest.field(
            f"{field}.data",
            f"{field}.data must hold {needed} bytes for shape {_shown(shape)}, got {len(tensor.data)}",
            "SHAPE_MISMATCH",
        )
    return np.frombuffer(tensor.data, dtype).reshape(shape)


def _shown(shape: Sequence[int]) -> str:
    return str(list(shape[:8])) if len(shape) <= 8 else f"{len(shape)} sizes"
