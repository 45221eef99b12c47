"""The BLAS library that NumPy calls: what it is, and its products that add to what is there, which NumPy lacks."""

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController, threadpool_limits

_ROW_MAJOR, AS_IS, TRANSPOSED = 101, 111, 112  # in CBLAS's words
_LETTERS = {"f": "s", "d": "d"}

HostArray = NDArray[Any]
# Of a (rows, inner), b (inner, columns), scale, keep and out: makes out ``scale * a @ b + keep * out``.
_Gemm = Callable[[HostArray, HostArray, float, float, HostArray], None]
_Function = Any  # what ctypes finds in a library


def blas_description() -> str:
    """Say what decides the bits of products, but for the number of threads: libraries, versions, kernels."""
    found = [library.info() for library in _libraries()]
    return ", ".join(
        " ".join(str(own[key]) for key in ("internal_api", "version", "architecture") if own.get(key)) for own in found
    )


def product_threads() -> int:
    """Return how many threads NumPy's products take now."""
    return max((library.num_threads for library in _libraries()), default=1)


def one_product_thread() -> Any:
    """Return a context in which products take one thread each."""
    return threadpool_limits(1, "blas")


def add_product(a: HostArray, b: HostArray, scale: float, out: HostArray) -> None:
    """Add ``scale * a @ b`` to ``out`` (rows, columns), all of one type."""
    if found := _gemm(out.dtype):
        found(a, b, scale, 1.0, out)
    else:
        product = np.matmul(a, b)
        np.multiply(product, scale, out=product)
        np.add(out, product, out=out)


def _gemm_arguments(
    a: HostArray, b: HostArray, out: HostArray
) -> tuple[tuple[int, int, int, int, int], tuple[tuple[int, int], tuple[int, int], tuple[int, int]]]:
    """Return how ``cblas_?gemm`` is to be called for ``a @ b`` into ``out``, row-major.

    That is how both are to be read and the three sizes; and where each matrix is, and how far its rows or columns are
    apart.
    """
    size = out.itemsize
    if out.shape[1] > 1 and out.strides[1] != size:  # it lies column after column
        a, b, out = b.T, a.T, out.T
    (rows, inner), columns = a.shape, b.shape[1]
    (a_order, a_stride), (b_order, b_stride) = order_of(a), order_of(b)
    out_stride = max(out.strides[0] // size, columns, 1)
    places = (a.ctypes.data, a_stride), (b.ctypes.data, b_stride), (out.ctypes.data, out_stride)
    return (a_order, b_order, rows, columns, inner), places


def order_of(matrix: HostArray) -> tuple[int, int]:
    """Return how BLAS is to read a matrix, and how far its rows or columns are apart."""
    (rows, columns), (down, across), size = matrix.shape, matrix.strides, matrix.itemsize
    if columns <= 1 or across == size:
        return AS_IS, max(down // size, columns, 1)
    return TRANSPOSED, max(across // size, rows, 1)


def _libraries() -> list[Any]:
    return list(ThreadpoolController().select(user_api="blas").lib_controllers)


@cache
def _gemm(dtype: np.dtype[Any]) -> _Gemm | None:
    """Return the first function that calls itself gemm and gives what NumPy gives; None without one for ``dtype``."""
    if dtype.char not in _LETTERS:
        return None
    letter = _LETTERS[dtype.char]
    for name, integer in (
        (f"scipy_cblas_{letter}gemm64_", ctypes.c_int64),
        (f"cblas_{letter}gemm64_", ctypes.c_int64),
        (f"scipy_cblas_{letter}gemm", ctypes.c_int32),
        (f"cblas_{letter}gemm", ctypes.c_int32),
    ):
        for library in _libraries():
            function = getattr(ctypes.CDLL(library.filepath), name, None)
            if function and _is_right(gemm := _bind(function, integer, dtype), dtype):
                return gemm
    return None


def _bind(function: _Function, integer: type[ctypes.c_int64 | ctypes.c_int32], dtype: np.dtype[Any]) -> _Gemm:
    real = {"f": ctypes.c_float, "d": ctypes.c_double}[dtype.char]
    matrix = [ctypes.c_void_p, integer]
    function.argtypes = [ctypes.c_int] * 3 + [integer] * 3 + [real, *matrix, *matrix, real, *matrix]
    function.restype = None

    def gemm(a: HostArray, b: HostArray, scale: float, keep: float, out: HostArray) -> None:
        shape, (a_place, b_place, out_place) = _gemm_arguments(a, b, out)
        function(_ROW_MAJOR, *shape, scale, *a_place, *b_place, keep, *out_place)

    return gemm


def _is_right(gemm: _Gemm, dtype: np.dtype[Any]) -> bool:
    a, b = np.arange(6, dtype=dtype).reshape(3, 2), np.arange(8, dtype=dtype).reshape(2, 4)
    right = True
    for left, other in ((a, b), (b.T, a.T)):
        out = np.ones((len(left), other.shape[1]), dtype)
        gemm(left, other, -2.0, 1.0, out)
        right &= np.array_equal(out, 1 - 2 * (left @ other))
    return right
