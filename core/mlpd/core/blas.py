"""Products that add to what is there: NumPy has none, but the BLAS library that it calls itself does.

Where no such library is found, `add_product` computes the same with NumPy.
"""

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

_ROW_MAJOR, _AS_IS, _TRANSPOSED = 101, 111, 112
_LETTERS = {"f": "s", "d": "d"}

HostArray = NDArray[Any]
Gemm = Callable[[HostArray, HostArray, float, HostArray], None]


def add_product(a: HostArray, b: HostArray, scale: float, out: HostArray) -> None:
    """Add ``scale * a @ b`` to ``out``: (rows, inner), (inner, columns), (rows, columns), all of one type."""
    gemm = _gemm(out.dtype)
    if gemm:
        gemm(a, b, scale, out)
    else:
        product = np.matmul(a, b)
        np.multiply(product, scale, out=product)
        np.add(out, product, out=out)


@cache
def _gemm(dtype: np.dtype[Any]) -> Gemm | None:
    """Return the first function that calls itself gemm and gives what NumPy gives; None without one for ``dtype``."""
    if dtype.char not in _LETTERS:
        return None
    for library in ThreadpoolController().select(user_api="blas").lib_controllers:
        for name, integer in (
            (f"scipy_cblas_{_LETTERS[dtype.char]}gemm64_", ctypes.c_int64),
            (f"cblas_{_LETTERS[dtype.char]}gemm64_", ctypes.c_int64),
            (f"scipy_cblas_{_LETTERS[dtype.char]}gemm", ctypes.c_int32),
            (f"cblas_{_LETTERS[dtype.char]}gemm", ctypes.c_int32),
        ):
            function = getattr(ctypes.CDLL(library.filepath), name, None)
            if function and _is_right(gemm := _bind(function, integer, dtype), dtype):
                return gemm
    return None


def _bind(
    function: "ctypes._NamedFuncPointer", integer: type[ctypes.c_int64 | ctypes.c_int32], dtype: np.dtype[Any]
) -> Gemm:
    real, size = {"f": ctypes.c_float, "d": ctypes.c_double}[dtype.char], dtype.itemsize
    matrix = [ctypes.c_void_p, integer]
    function.argtypes = [ctypes.c_int] * 3 + [integer] * 3 + [real, *matrix, *matrix, real, *matrix]
    function.restype = None

    def gemm(a: HostArray, b: HostArray, scale: float, out: HostArray) -> None:
        (rows, inner), columns = a.shape, b.shape[1]
        a_order, a_stride = _order(a, size)
        b_order, b_stride = _order(b, size)
        out_stride = max(out.strides[0] // size, columns, 1)
        function(
            *(_ROW_MAJOR, a_order, b_order, rows, columns, inner, scale, a.ctypes.data, a_stride),
            *(b.ctypes.data, b_stride, 1.0, out.ctypes.data, out_stride),
        )

    return gemm


def _order(matrix: HostArray, size: int) -> tuple[int, int]:
    """Return how BLAS is to read a matrix of numbers of ``size`` bytes, and how far its rows or columns are apart."""
    (rows, columns), (down, across) = matrix.shape, matrix.strides
    if columns <= 1 or across == size:
        return _AS_IS, max(down // size, columns, 1)
    return _TRANSPOSED, max(across // size, rows, 1)


def _is_right(gemm: Gemm, dtype: np.dtype[Any]) -> bool:
    a, b = np.arange(6, dtype=dtype).reshape(3, 2), np.arange(8, dtype=dtype).reshape(2, 4)
    right = True
    for left, other in ((a, b), (b.T, a.T)):
        out = np.ones((len(left), other.shape[1]), dtype)
        gemm(left, other, -2.0, out)
        right &= np.array_equal(out, 1 - 2 * (left @ other))
    return right
