"""CuPy on a CUDA device."""

import os
from collections import deque
from collections.abc import Sequence
from copy import copy
from typing import Any

import numpy as np
from mlpd.core.arithmetic.cpp import Code, Writer
from mlpd.core.arithmetic.functions import philox
from mlpd.core.devices.arrays import Array, Cpu, Device, DeviceUnavailable, HostArray, RowWords, Sums

# What to do where CUDA's compiler does not work.
REINSTALL = "install mlpd[cuda12] or mlpd[cuda13] again, which bring a compiler and its headers"

# Variables that make CuPy or cuBLAS compute otherwise.
_CUDA_SETTINGS = ("CUBLAS_WORKSPACE_CONFIG", "CUPY_ACCELERATORS", "CUPY_TF32", "NVIDIA_TF32_OVERRIDE")


def _philox_code() -> str:
    """Return what a thread ``i`` does: it writes the four words of a counter. NumPy, too, counts up before it draws."""
    writer = Writer()
    counter = [Code(writer, part, "uint64") for part in ("(first / 4 + i + 1)", "c1", "c2", "c3")]
    words = philox(counter, Code(writer, "seed", "uint64"))
    writer.add("const long long start = 4 * (long long)i - first % 4;")
    for place, word in enumerate(words):
        index = f"start + {place}"
        writer.add(f"if ({index} >= 0 && {index} < count) words[{index}] = {word.code};")
    return "\n".join(writer.lines)


class _Outbox:
    """Page-locked memory for arrays like ``array`` on their way to a GPU: two, for one may still be on its way."""

    def __init__(self, xp: Any, array: HostArray) -> None:
        self._boxes: deque[tuple[HostArray, Any]] = deque()
        for _ in range(2):
            memory = xp.cuda.alloc_pinned_memory(array.nbytes)
            held = np.frombuffer(memory, array.dtype, array.size).reshape(array.shape)
            self._boxes.append((held, xp.cuda.Event(disable_timing=True)))

    def send(self, array: HostArray, out: Array) -> None:
        """Write ``array`` to ``out``; wait only if the last but one is not there yet."""
        held, sent = self._boxes[0]
        self._boxes.rotate(1)
        if not sent.done:
            sent.synchronize()
        np.copyto(held, array)
        out.set(held)
        sent.record()


class Cuda(Sums):
    """CuPy on the current CUDA device. Raises `DeviceUnavailable` where that can't work."""

    name = "cuda"
    block_size = 2**62  # one launch for all
    adds_products = False
    runs_ahead = True
    is_compiled = False
    memory_order = "C"

    def __init__(self) -> None:
        try:
            import cupy
        except ImportError:
            raise DeviceUnavailable("CuPy is not installed; install mlpd[cuda12] or mlpd[cuda13]") from None
        if not cupy.cuda.is_available():
            raise DeviceUnavailable("CuPy finds no CUDA device; check the NVIDIA driver and CUDA_VISIBLE_DEVICES")
        try:
            ones = cupy.ones((2, 2), dtype=cupy.float32)
            broken = float((ones + ones).sum()) != 8.0
        except Exception as error:
            raise DeviceUnavailable(
                f"the CUDA toolkit is broken, an addition failed with {type(error).__name__}; {REINSTALL}"
            ) from error
        if broken:
            raise DeviceUnavailable("the CUDA device computes wrong results: eight ones did not sum to 8")
        self.xp: Any = cupy
        self._philox = cupy.ElementwiseKernel(
            "uint64 seed, uint64 c1, uint64 c2, uint64 c3, int64 first, int64 count",
            "raw uint64 words",
            _philox_code(),
            "mlpd_philox",
        )
        self._products: dict[tuple[int, ...], Array] = {}
        self._outboxes: dict[tuple[Any, ...], _Outbox] = {}

    def description(self) -> str:
        """Say what computes, and by which library."""
        device = self.xp.cuda.Device()
        name = self.xp.cuda.runtime.getDeviceProperties(device.id)["name"].decode()
        return f"cuda:{device.id} {name}, cupy {self.xp.__version__}"

    @property
    def multiplies(self) -> bool:
        """Whether cuBLAS is there, by which CuPy multiplies; compiled code does so by itself."""
        try:
            return bool(self.xp.cuda.Device().cublas_handle)
        except Exception:  # noqa: BLE001 - whatever it lacks, it can't be used
            return False

    def environment(self) -> str:
        """Name what the host uses, CuPy, CUDA, its compiler, BLAS if it is used, their settings, and the device."""
        cuda, device = self.xp.cuda, self.xp.cuda.Device()
        properties = cuda.runtime.getDeviceProperties(device.id)
        compiler = ".".join(map(str, cuda.nvrtc.getVersion()))
        return ", ".join(
            [
                Cpu().environment(),
                f"cupy {self.xp.__version__}",
                f"cuda {cuda.runtime.runtimeGetVersion()}",
                *([] if self.is_compiled else [f"cublas {cuda.cublas.getVersion(device.cublas_handle)}"]),
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
        """Send to the device, by way of memory that it can fetch from while the host goes on."""
        key = array.shape, array.dtype
        if key not in self._outboxes:
            self._outboxes[key] = _Outbox(self.xp, array)
        self._outboxes[key].send(array, out)

    def from_host(self, array: HostArray) -> Array:
        """Return a copy on the device."""
        return self.xp.asarray(array)

    def to_host(self, array: Array) -> HostArray:
        """Return a copy in host memory, after the work that fills it."""
        host: HostArray = self.xp.asnumpy(array)
        return host

    def fill_random(self, seed: int, counter: Sequence[int], first: int, out: Array) -> None:
        """Fill ``out``, four words a thread."""
        self._philox(seed, *map(int, counter), first, len(out), out, size=-(-(first % 4 + len(out)) // 4))

    def draw(self, words: RowWords, step: int, first_row: int, out: Array) -> None:
        """Fill all words of rows; on a GPU nobody draws a part."""
        assert out.shape[1] == words.whole
        assert words.start_row == words.first == 0
        self.fill_random(words.seed, (words.layer, step, words.purpose), first_row * words.whole, out.reshape(-1))

    def for_compiled_code(self) -> "Device":
        """Return the device, whose products then add to what is there at no cost."""
        device = copy(self)
        device.adds_products = device.is_compiled = True
        return device

    def free(self) -> None:
        """Empty CuPy's memory pools."""
        self._products.clear()
        self._outboxes.clear()
        self.xp.get_default_memory_pool().free_all_blocks()
        self.xp.get_default_pinned_memory_pool().free_all_blocks()
