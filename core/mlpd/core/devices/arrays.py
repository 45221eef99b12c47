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
# Variables that make CuPy or cuBLAS compute otherwise.
_CUDA_SETTINGS = ("CUBLAS_WORKSPACE_CONFIG", "CUPY_ACCELERATORS", "CUPY_TF32", "NVIDIA_TF32_OVERRIDE")

# Philox4x64-10: Salmon et al. 2011, Parallel Random Numbers: As Easy as 1, 2, 3, section 3.3 and table 2. NumPy counts
# up before it draws. Tested against NumPy's own bits.
_PHILOX = """
    unsigned long long a = c0 + i + 1, b = c1, c = c2, d = c3, key = seed, other_key = 0;
    for (int round = 0; round < 10; ++round) {
        unsigned long long high = __umul64hi(0xD2E7470EE14C6C93ULL, a), low = 0xD2E7470EE14C6C93ULL * a;
        unsigned long long other_high = __umul64hi(0xCA5A826395121157ULL, c), other_low = 0xCA5A826395121157ULL * c;
        a = other_high ^ b ^ key;
        b = other_low;
        c = high ^ d ^ other_key;
        d = low;
        key += 0x9E3779B97F4A7C15ULL;
        other_key += 0xBB67AE8584CAA73BULL;
    }
    unsigned long long four[4] = {a, b, c, d};
    for (int j = 0; j < 4 && 4 * i + j < count; ++j) words[4 * i + j] = four[j];
"""


@dataclass(frozen=True)
class RowWords:
    """Which random words of rows are wanted: of ``whole`` a row, those from ``first`` on, row ``start_row`` first."""

    seed: int
    layer: int
    purpose: int
    whole: int
    first: int = 0
    start_row: int = 0

    @property
    def counters(self) -> int:
        """Counters that a row has to itself, of four words each."""
        return -(-self.whole // 4)


class Device(Protocol):
    """An array namespace ``xp`` and what has no common spelling."""

    xp: Any
    name: str
    block_size: int  # values that an element-wise pass should work on at a time
    adds_products: bool  # whether `add_product` costs no more than the product alone
    memory_order: str  # how matrices of a pass lie in memory: "C", row after row, or "F", column after column

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

    def fill_random(self, seed: int, counter: Sequence[int], out: Array) -> None:
        """Fill ``out`` (count,) uint64 with the words of NumPy's ``Philox(key=seed, counter=counter)``."""

    def draw(self, words: "RowWords", step: Any, first_row: Any, out: Array) -> None:
        """Fill ``out`` (rows, words) uint64 with ``words`` of rows, those of row ``first_row + words.start_row`` first.

        The words of all rows follow each other in ``Philox(key=seed, counter=(first_row * counters, layer, step,
        purpose))``.
        """

    def free(self) -> None:
        """Give memory that no array uses any more back to the device."""


class _Sums:
    """Sums that NumPy and CuPy spell alike; a product with ones takes half the time of NumPy's own sum."""

    xp: Any

    def column_sums(self, ones: Array, values: Array, out: Array) -> None:
        """Write sums of columns."""
        self.xp.matmul(ones, values, out=out[None])

    def square_sum(self, values: Array, out: Array) -> None:
        """Write the sum of squares."""
        self.xp.matmul(values[None], values[:, None], out=out)


class Cpu(_Sums):
    """NumPy, and the BLAS library that it calls."""

    xp: Any = np
    name = "cpu"
    block_size = 32768  # 128 KiB of float32: a block and its moments fit in a second-level cache
    adds_products = True
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

    def fill_random(self, seed: int, counter: Sequence[int], out: Array) -> None:
        """Fill ``out`` piece by piece: NumPy can't draw raw words into an array."""
        generator = np.random.Philox(key=seed, counter=np.array(counter, np.uint64))
        for start in range(0, len(out), _WORDS_AT_A_TIME):
            piece = out[start : start + _WORDS_AT_A_TIME]
            piece[...] = generator.random_raw(len(piece))

    def draw(self, words: RowWords, step: int, first_row: int, out: Array) -> None:
        """Fill rows of words; of more than are wanted, where these are but a part."""
        counter, whole = [first_row * words.counters, words.layer, step, words.purpose], words.whole
        if out.shape[1] == whole and not words.start_row:
            self.fill_random(words.seed, counter, out.reshape(-1))
            return
        before = words.start_row * whole
        counter[0] += before // 4
        drawn = np.empty(before % 4 + len(out) * whole, np.uint64)
        self.fill_random(words.seed, counter, drawn)
        out[...] = drawn[before % 4 :].reshape(len(out), whole)[:, words.first : words.first + out.shape[1]]

    def free(self) -> None:
        """Do nothing: NumPy keeps no pool."""


class ByColumns(Cpu):
    """The CPU as compiled code wants it: matrices column after column, vectors in one piece."""

    block_size = 2**62
    memory_order = "F"


class Cuda(_Sums):
    """CuPy on the current CUDA device. Raises `DeviceUnavailable` where that can't work."""

    name = "cuda"
    block_size = 2**62  # one launch for all
    adds_products = False
    memory_order = "C"

    def __init__(self) -> None:
        try:
            import cupy
        except ImportError:
            raise DeviceUnavailable("CuPy is not installed; install mlpd[cuda12] or mlpd[cuda13]") from None
        if not cupy.cuda.is_available():
            raise DeviceUnavailable("CuPy finds no CUDA device; check the NVIDIA driver and CUDA_VISIBLE_DEVICES")
        try:
            probe = cupy.ones((2, 2), dtype=cupy.float32)
            broken = float(cupy.matmul(probe, probe).sum()) != 8.0
        except Exception as error:
            raise DeviceUnavailable(
                f"the CUDA toolkit is broken, a 2x2 product failed with {type(error).__name__}; "
                "reinstall CuPy with its [ctk] extra"
            ) from error
        if broken:
            raise DeviceUnavailable("the CUDA device computes wrong results: a 2x2 product of ones did not sum to 8")
        self.xp: Any = cupy
        self._philox = cupy.ElementwiseKernel(
            "uint64 seed, uint64 c0, uint64 c1, uint64 c2, uint64 c3, int64 count",
            "raw uint64 words",
            _PHILOX,
            "mlpd_philox",
        )
        self._products: dict[tuple[int, ...], Array] = {}

    def description(self) -> str:
        """Say what computes, and by which library."""
        device = self.xp.cuda.Device()
        name = self.xp.cuda.runtime.getDeviceProperties(device.id)["name"].decode()
        return f"cuda:{device.id} {name}, cupy {self.xp.__version__}"

    def environment(self) -> str:
        """Name what the host uses, CuPy, CUDA, its BLAS and compiler, their settings, and the device."""
        cuda, device = self.xp.cuda, self.xp.cuda.Device()
        properties = cuda.runtime.getDeviceProperties(device.id)
        compiler = ".".join(map(str, cuda.nvrtc.getVersion()))
        return ", ".join(
            [
                Cpu().environment(),
                f"cupy {self.xp.__version__}",
                f"cuda {cuda.runtime.runtimeGetVersion()}",
                f"cublas {cuda.cublas.getVersion(device.cublas_handle)}",
                f"nvrtc {compiler}",
                *(f"{name}={os.environ[name]}" for name in _CUDA_SETTINGS if name in os.environ),
                f"{properties['name'].decode()} {properties['major']}.{properties['minor']}",
            ]
        )

    def memory_bytes(self) -> int:
        """Return the device's memory."""
        return int(self.xp.cuda.Device().mem_info[1])

    def zeros(self, shape: int | tuple[int, ...], dtype: Any) -> Array:
        """Return an array on the device."""
        return self.xp.zeros(shape, dtype)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return an array on the device; CuPy aligns all."""
        return self.xp.empty(shape, dtype)

    def matmul(self, a: Array, b: Array, out: Array) -> None:
        """Write ``a @ b`` to ``out`` (rows, columns)."""
        self.xp.matmul(a, b, out=out)

    def add_product(self, a: Array, b: Array, scale: float, out: Array) -> None:
        """Add ``scale * a @ b`` to ``out`` (rows, columns); the first of a shape allocates."""
        key = (*out.shape, out.itemsize)
        if key not in self._products:
            self._products[key] = self.xp.empty_like(out)
        product = self.xp.matmul(a, b, out=self._products[key])
        self.xp.multiply(product, scale, out=product)
        self.xp.add(out, product, out=out)

    def gather(self, source: Array, order: Array | None, first: int, out: Array) -> None:
        """Write the chosen rows; an index outside ``source`` wraps."""
        chosen = slice(first, first + len(out))
        if order is None:
            self.xp.copyto(out, source[chosen])
        else:
            self.xp.take(source, order[chosen], axis=0, out=out)

    def write(self, array: HostArray, out: Array) -> None:
        """Send to the device."""
        out.set(array)

    def from_host(self, array: HostArray) -> Array:
        """Return a copy on the device."""
        return self.xp.asarray(array)

    def to_host(self, array: Array) -> HostArray:
        """Return a copy in host memory, after the work that fills it."""
        host: HostArray = self.xp.asnumpy(array)
        return host

    def fill_random(self, seed: int, counter: Sequence[int], out: Array) -> None:
        """Fill ``out``, four words a thread."""
        self._philox(seed, *map(int, counter), len(out), out, size=-(-len(out) // 4))

    def draw(self, words: RowWords, step: int, first_row: int, out: Array) -> None:
        """Fill all words of rows; on a GPU nobody draws a part."""
        assert out.shape[1] == words.whole
        assert words.start_row == words.first == 0
        self.fill_random(words.seed, (first_row * words.counters, words.layer, step, words.purpose), out.reshape(-1))

    def free(self) -> None:
        """Empty CuPy's memory pools."""
        self._products.clear()
        self.xp.get_default_memory_pool().free_all_blocks()
        self.xp.get_default_pinned_memory_pool().free_all_blocks()


def address_of(array: Array) -> int:
    """Return where the first number of a NumPy or CuPy array is in memory."""
    address: int = array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr
    return address


def matrix(device: Device, shape: tuple[int, ...], dtype: Any) -> Array:
    """Return an array of any values that lies in memory as the device has it, row after row or column after column."""
    if device.memory_order == "C":
        return device.empty(shape, dtype)
    return device.empty(shape[::-1], dtype).T


def open_device(name: str) -> Device:
    """Return the device called "cpu" or "cuda", or raise `DeviceUnavailable`."""
    return Cuda() if name == "cuda" else Cpu()
