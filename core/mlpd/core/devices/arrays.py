"""Array namespaces, and the few operations on which NumPy and CuPy differ."""

import os
import platform
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from mlpd.core.devices.blas import add_product, blas_description
from numpy.typing import NDArray

Array = Any  # numpy.ndarray or cupy.ndarray; one run never mixes them
HostArray = NDArray[Any]


class DeviceUnavailable(Exception):
    """The device can't be used; the message says why and what would help."""


_WORDS_AT_A_TIME = 4096
_LINE_BYTES = 64


@dataclass(frozen=True)
class RowWords:
    """Which random words of rows are wanted: of ``whole`` a row, those from ``first`` on, row ``start_row`` first.

    A row's words depend on its place in the step alone, however that is cut.
    """

    seed: int
    layer: int
    purpose: int
    whole: int
    first: int = 0
    start_row: int = 0


class Device(Protocol):
    """An array namespace ``xp`` and what has no common spelling."""

    xp: Any
    name: str
    block_size: int  # values that an element-wise pass should work on at a time
    adds_products: bool  # whether `add_product` costs no more than the product alone
    runs_ahead: bool  # whether it may still be busy when a call returns
    is_compiled: bool  # whether code is compiled for its calls: that reads fewer types of numbers
    memory_order: str  # how matrices of a pass lie in memory: "C", row after row, or "F", column after column

    @property
    def multiplies(self) -> bool:
        """Whether the library is installed by which it multiplies matrices."""

    def description(self) -> str:
        """Say what computes, and by which library."""

    def environment(self) -> str:
        """Say what decides the bits of results, but for the number of threads: libraries, kernels, the processor."""

    def memory_bytes(self) -> int:
        """Return the memory there is in all; 0 where that is unknown."""

    def zeros(self, shape: int | tuple[int, ...], dtype: Any) -> Array:
        """Return zeros that all who work on a run see."""

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return an array for this process alone, of any values, that begins with a line of the cache."""

    def matmul(self, a: Array, b: Array, out: Array) -> None:
        """Write ``a @ b`` to ``out`` (rows, columns)."""

    def add_product(self, a: Array, b: Array, scale: float, out: Array) -> None:
        """Add ``scale * a @ b`` to ``out`` (rows, columns)."""

    def column_sums(self, ones: Array, values: Array, out: Array) -> None:
        """Write the sums of the columns of ``values`` (rows, columns) to ``out`` (columns,); ``ones`` is (1, rows)."""

    def square_sum(self, values: Array, out: Array) -> None:
        """Write the sum of the squares of ``values`` (count,) to ``out`` (1, 1)."""

    def gather(self, source: Array, order: Array | None, first: Any, out: Array) -> None:
        """Write to ``out`` as many rows of ``source``, of its type, as it has: from place ``first`` of ``order`` on.

        ``order`` (count,) are numbers of rows; None is the order in which they stand.
        """

    def write(self, array: HostArray, out: Array) -> None:
        """Write ``array`` to ``out`` on the device, of the same shape and type."""

    def from_host(self, array: HostArray) -> Array:
        """Return ``array`` on the device; on the CPU that is ``array`` itself."""

    def to_host(self, array: Array) -> HostArray:
        """Return a copy of ``array`` in host memory, after the work that fills it."""

    def fill_random(self, seed: int, counter: Sequence[int], first: int, out: Array) -> None:
        """Fill ``out`` (count,) uint64 with words of NumPy's ``Philox(key=seed, counter=(0, *counter))``.

        They are those from number ``first`` on; ``counter`` are its three upper words.
        """

    def draw(self, words: "RowWords", step: Any, first_row: Any, out: Array) -> None:
        """Fill ``out`` (rows, words) uint64 with ``words`` of rows, those of row ``first_row + words.start_row`` first.

        The words of all rows of a step follow each other in ``Philox(key=seed, counter=(0, layer, step, purpose))``.
        """

    def free(self) -> None:
        """Give memory that no array uses any more back to the device."""

    def for_compiled_code(self) -> "Device":
        """Return the device as compiled code wants it."""


class Sums:
    """Sums that NumPy and CuPy spell alike; a product with ones takes half the time of NumPy's own sum."""

    xp: Any

    def column_sums(self, ones: Array, values: Array, out: Array) -> None:
        """Write sums of columns."""
        self.xp.matmul(ones, values, out=out[None])

    def square_sum(self, values: Array, out: Array) -> None:
        """Write the sum of squares."""
        self.xp.matmul(values[None], values[:, None], out=out)


class Cpu(Sums):
    """NumPy, and the BLAS library that it calls."""

    xp: Any = np
    name = "cpu"
    block_size = 32768  # 128 KiB of float32: a block and its moments fit in a second-level cache
    adds_products = True
    multiplies = True
    runs_ahead = False
    is_compiled = False
    memory_order = "C"

    def description(self) -> str:
        """Say what computes, and by which library."""
        return f"cpu, numpy {np.__version__}"

    def environment(self) -> str:
        """Name NumPy with the features of the processor that it uses, the library of elementary functions, and BLAS."""
        features = np.show_config(mode="dicts")["SIMD Extensions"]
        used = " ".join([*features.get("baseline", []), *features.get("found", [])])
        numpy = f"numpy {np.__version__} on {platform.machine()} ({used})"
        return ", ".join(filter(None, [numpy, " ".join(platform.libc_ver()).strip(), blas_description()]))

    def memory_bytes(self) -> int:
        """Return the machine's memory, or what its control group leaves of it."""
        try:
            total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (AttributeError, ValueError, OSError):
            return 0
        with suppress(OSError, ValueError):  # no control group, or one without a limit
            total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
        return total

    def zeros(self, shape: int | tuple[int, ...], dtype: Any) -> Array:
        """Return an array of this process."""
        return np.zeros(shape, dtype)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return an array that begins with a line of the cache."""
        size, dtype = prod(shape), np.dtype(dtype)
        memory = np.empty(size * dtype.itemsize + _LINE_BYTES, np.uint8)
        start = -memory.ctypes.data % _LINE_BYTES
        return memory[start : start + size * dtype.itemsize].view(dtype).reshape(shape)

    def matmul(self, a: Array, b: Array, out: Array) -> None:
        """Write ``a @ b`` to ``out``."""
        np.matmul(a, b, out=out)

    def add_product(self, a: Array, b: Array, scale: float, out: Array) -> None:
        """Add ``scale * a @ b`` to ``out``."""
        add_product(a, b, scale, out)

    def gather(self, source: Array, order: Array | None, first: int, out: Array) -> None:
        """Write the chosen rows; any mode but "clip" makes NumPy copy ``out``."""
        chosen = slice(first, first + len(out))
        if order is None:
            np.copyto(out, source[chosen])
        else:
            source.take(order[chosen], 0, out, "clip")

    def write(self, array: HostArray, out: Array) -> None:
        """Copy."""
        out[...] = array

    def from_host(self, array: HostArray) -> Array:
        """Return ``array`` itself."""
        return array

    def to_host(self, array: Array) -> HostArray:
        """Return a copy."""
        return np.array(array)

    def fill_random(self, seed: int, counter: Sequence[int], first: int, out: Array) -> None:
        """Fill ``out`` piece by piece: NumPy can't draw raw words into an array."""
        generator = np.random.Philox(key=seed, counter=np.array([first // 4, *counter], np.uint64))
        generator.random_raw(first % 4)
        for start in range(0, len(out), _WORDS_AT_A_TIME):
            piece = out[start : start + _WORDS_AT_A_TIME]
            piece[...] = generator.random_raw(len(piece))

    def draw(self, words: RowWords, step: int, first_row: int, out: Array) -> None:
        """Fill rows of words; of more than are wanted, where these are but a part."""
        whole = words.whole
        drawn = out if out.shape[1] == whole else np.empty((len(out), whole), np.uint64)
        counter, first = (words.layer, step, words.purpose), (first_row + words.start_row) * whole
        self.fill_random(words.seed, counter, first, drawn.reshape(-1))
        if drawn is not out:
            out[...] = drawn[:, words.first : words.first + out.shape[1]]

    def free(self) -> None:
        """Do nothing: NumPy keeps no pool."""

    def for_compiled_code(self) -> "Device":
        """Return the CPU with matrices column after column."""
        return ByColumns()


class ByColumns(Cpu):
    """The CPU as compiled code wants it: matrices column after column, vectors in one piece."""

    block_size = 2**62
    is_compiled = True
    memory_order = "F"


def address_of(array: Array) -> int:
    """Return where the first number of a NumPy or CuPy array is in memory."""
    address: int = array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr
    return address


def is_row_major(matrix: Array) -> bool:
    """Return whether the numbers of each row lie next to each other."""
    return bool(matrix.shape[1] == 1 or matrix.strides[1] == matrix.itemsize)


def matrix(device: Device, shape: tuple[int, ...], dtype: Any) -> Array:
    """Return an array of any values that lies in memory as the device has it, row after row or column after column."""
    if device.memory_order == "C":
        return device.empty(shape, dtype)
    return device.empty(shape[::-1], dtype).T


def open_device(name: str) -> Device:
    """Return the device called "cpu" or "cuda", or raise `DeviceUnavailable`."""
    from mlpd.core.devices.cuda import Cuda

    return Cuda() if name == "cuda" else Cpu()
