"""Matrix products by a BLAS library: the one that NumPy calls, or Intel's oneMKL.

NumPy has no product that adds to what is there, but every BLAS library does. oneMKL multiplies the thin matrices of a
mini-batch faster than the library that comes with NumPy, by a fifth for 128 rows and a third for 32 on the Intel
processors that we measured; it is used by one thread at a time, for a shard.
"""

import ctypes
import platform
import re
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

BLAS_NAMES = {"cpu": ("default", "mkl"), "cuda": ("default",)}

_ROW_MAJOR, _AS_IS, _TRANSPOSED = 101, 111, 112
_LETTERS = {"f": "s", "d": "d"}
_MKL_SEQUENTIAL, _MKL_CBWR_AUTO = 1, 2
_SMALL_PRODUCT = 2**20  # multiplications, for which NumPy takes half the time that a call from Python costs

HostArray = NDArray[Any]
# Of a (rows, inner), b (inner, columns), scale, keep and out: makes out ``scale * a @ b + keep * out``.
Gemm = Callable[[HostArray, HostArray, float, float, HostArray], None]
_Function = Any  # what ctypes finds in a library


class BlasUnavailable(Exception):
    """The library is not installed, or does not work; the message says what would help."""


class Blas(Protocol):
    """Products of matrices (rows, inner) and (inner, columns), all of one type, into ``out`` (rows, columns)."""

    def description(self) -> str:
        """Say what decides the bits of products, but for the number of threads: libraries, versions, kernels."""

    def matmul(self, a: HostArray, b: HostArray, out: HostArray) -> None:
        """Write ``a @ b``."""

    def add_product(self, a: HostArray, b: HostArray, scale: float, out: HostArray) -> None:
        """Add ``scale * a @ b``."""


class NumpyBlas:
    """The library that NumPy calls, on as many threads as it has; without one, what NumPy does itself."""

    def description(self) -> str:
        """Say which library that is."""
        found = [library.info() for library in _numpy_libraries()]
        return ", ".join(
            " ".join(str(own[key]) for key in ("internal_api", "version", "architecture") if own.get(key))
            for own in found
        )

    def matmul(self, a: HostArray, b: HostArray, out: HostArray) -> None:
        """Write ``a @ b``."""
        np.matmul(a, b, out=out)

    def add_product(self, a: HostArray, b: HostArray, scale: float, out: HostArray) -> None:
        """Add ``scale * a @ b``."""
        gemm = _numpy_gemm(out.dtype)
        if gemm:
            gemm(a, b, scale, 1.0, out)
        else:
            product = np.matmul(a, b)
            np.multiply(product, scale, out=product)
            np.add(out, product, out=out)


class Mkl:
    """Intel's oneMKL on the calling thread, for float32 and float64, but for small products; raises `BlasUnavailable`.

    Its results are the same in every run on one kind of processor, wherever in memory the matrices are.
    """

    def __init__(self) -> None:
        self._gemms = _mkl_gemms()

    def description(self) -> str:
        """Say which oneMKL it is, for and on which processor, and what makes small products."""
        return f"{NumpyBlas().description()}, mkl {version('mkl')} for {_mkl_target()} on {_processor()}"

    def matmul(self, a: HostArray, b: HostArray, out: HostArray) -> None:
        """Write ``a @ b``."""
        if out.size * a.shape[1] < _SMALL_PRODUCT:
            np.matmul(a, b, out=out)
        else:
            self._gemms[out.dtype.char](a, b, 1.0, 0.0, out)

    def add_product(self, a: HostArray, b: HostArray, scale: float, out: HostArray) -> None:
        """Add ``scale * a @ b``."""
        self._gemms[out.dtype.char](a, b, scale, 1.0, out)


def open_blas(name: str) -> Blas:
    """Return the library called "default", NumPy's own, or "mkl"; raises `BlasUnavailable`."""
    return Mkl() if name == "mkl" else NumpyBlas()


def product_threads() -> int:
    """Return how many threads NumPy's products take now."""
    return max((library.num_threads for library in _numpy_libraries()), default=1)


def _numpy_libraries() -> list[Any]:
    """Return the libraries that NumPy may call: all that are loaded, but for a oneMKL that is loaded beside them."""
    found = ThreadpoolController().select(user_api="blas").lib_controllers
    return [library for library in found if library.filepath != mkl_path()] or found


@cache
def mkl_path() -> str:
    """Return where oneMKL is installed, or nothing."""
    try:
        files = distribution("mkl").files or []
    except PackageNotFoundError:
        return ""
    found = (file.locate() for file in files if file.name.startswith("libmkl_rt.so"))
    return next((str(Path(str(path)).resolve()) for path in found), "")


class _MklVersion(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int) for name in ("major", "minor", "update")),
        *((name, ctypes.c_char_p) for name in ("status", "build", "processor", "platform")),
    )


def _mkl_target() -> str:
    """Return which processors oneMKL's kernels are for, in its own words."""
    found = _MklVersion()
    ctypes.CDLL(mkl_path()).MKL_Get_Version(ctypes.byref(found))
    return str(found.processor.decode())


@cache
def _processor() -> str:
    """Return what this machine's processor is called."""
    with suppress(OSError):
        if named := re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text()):
            return named[1]
    return platform.processor() or platform.machine()


@cache
def _mkl_gemms() -> dict[str, Gemm]:
    path = mkl_path()
    if not path:
        raise BlasUnavailable("oneMKL is not installed; install mlpd[mkl], or choose blas default")
    try:
        library = ctypes.CDLL(path)
        library.MKL_Set_Threading_Layer(_MKL_SEQUENTIAL)
        library.MKL_CBWR_Set(_MKL_CBWR_AUTO)
        gemms = {
            char: _bind(getattr(library, f"cblas_{letter}gemm_64"), ctypes.c_int64, np.dtype(char))
            for char, letter in _LETTERS.items()
        }
    except (OSError, AttributeError) as error:
        raise BlasUnavailable(f"oneMKL at {path} can't be called: {error}; reinstall it") from error
    if not all(_is_right(gemm, np.dtype(char)) for char, gemm in gemms.items()):
        raise BlasUnavailable(f"oneMKL at {path} computes wrong products; reinstall it")
    return gemms


@cache
def _numpy_gemm(dtype: np.dtype[Any]) -> Gemm | None:
    """Return the first function that calls itself gemm and gives what NumPy gives; None without one for ``dtype``."""
    if dtype.char not in _LETTERS:
        return None
    for library in _numpy_libraries():
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


def _bind(function: _Function, integer: type[ctypes.c_int64 | ctypes.c_int32], dtype: np.dtype[Any]) -> Gemm:
    real, size = {"f": ctypes.c_float, "d": ctypes.c_double}[dtype.char], dtype.itemsize
    matrix = [ctypes.c_void_p, integer]
    function.argtypes = [ctypes.c_int] * 3 + [integer] * 3 + [real, *matrix, *matrix, real, *matrix]
    function.restype = None

    def gemm(a: HostArray, b: HostArray, scale: float, keep: float, out: HostArray) -> None:
        if out.strides[1] != size and out.shape[1] > 1:  # it lies column after column
            a, b, out = b.T, a.T, out.T
        (rows, inner), columns = a.shape, b.shape[1]
        a_order, a_stride = _order(a, size)
        b_order, b_stride = _order(b, size)
        out_stride = max(out.strides[0] // size, columns, 1)
        function(
            *(_ROW_MAJOR, a_order, b_order, rows, columns, inner, scale, a.ctypes.data, a_stride),
            *(b.ctypes.data, b_stride, keep, out.ctypes.data, out_stride),
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
        gemm(left, other, -2.0, 1.0, out)
        right &= np.array_equal(out, 1 - 2 * (left @ other))
    return right
