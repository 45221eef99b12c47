"""Array namespaces, and the few operations on which NumPy and CuPy differ."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = Any  # numpy.ndarray or cupy.ndarray; one run never mixes them
HostArray = NDArray[Any]


class DeviceUnavailable(Exception):
    """The device can't be used; the message says why and what would help."""


class Device(Protocol):
    """An array namespace ``xp`` and what has no common spelling."""

    xp: Any
    name: str
    block_size: int  # values that an element-wise pass should work on at a time

    def description(self) -> str:
        """Say what computes, and by which library."""

    def gather(self, source: Array, rows: Array, out: Array) -> None:
        """Write ``source[rows]`` to ``out``."""

    def from_host(self, array: HostArray) -> Array:
        """Return ``array`` on the device; on the CPU that is ``array`` itself."""

    def to_host(self, array: Array) -> HostArray:
        """Return a copy of ``array`` in host memory, after the work that fills it."""

    def free(self) -> None:
        """Give memory that no array uses any more back to the device."""


class Cpu:
    """NumPy."""

    xp: Any = np
    name = "cpu"
    block_size = 16384  # 64 KiB of float32: four vectors of a block fit in a second-level cache

    def description(self) -> str:
        """Say what computes, and by which library."""
        return f"cpu, numpy {np.__version__}"

    def gather(self, source: Array, rows: Array, out: Array) -> None:
        """Write ``source[rows]`` to ``out``; any mode but "clip" makes NumPy copy ``out``."""
        np.take(source, rows, axis=0, out=out, mode="clip")

    def from_host(self, array: HostArray) -> Array:
        """Return ``array`` itself."""
        return array

    def to_host(self, array: Array) -> HostArray:
        """Return a copy."""
        return np.array(array)

    def free(self) -> None:
        """Do nothing: NumPy keeps no pool."""


class Cuda:
    """CuPy on the current CUDA device. Raises `DeviceUnavailable` where that can't work."""

    name = "cuda"
    block_size = 2**62  # one launch for all

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

    def description(self) -> str:
        """Say what computes, and by which library."""
        device = self.xp.cuda.Device()
        name = self.xp.cuda.runtime.getDeviceProperties(device.id)["name"].decode()
        return f"cuda:{device.id} {name}, cupy {self.xp.__version__}"

    def gather(self, source: Array, rows: Array, out: Array) -> None:
        """Write ``source[rows]`` to ``out``; an index outside ``source`` wraps."""
        self.xp.take(source, rows, axis=0, out=out)

    def from_host(self, array: HostArray) -> Array:
        """Return a copy on the device."""
        return self.xp.asarray(array)

    def to_host(self, array: Array) -> HostArray:
        """Return a copy in host memory, after the work that fills it."""
        host: HostArray = self.xp.asnumpy(array)
        return host

    def free(self) -> None:
        """Empty CuPy's memory pools."""
        self.xp.get_default_memory_pool().free_all_blocks()
        self.xp.get_default_pinned_memory_pool().free_all_blocks()


def open_device(name: str) -> Device:
    """Return the device called "cpu" or "cuda", or raise `DeviceUnavailable`."""
    return Cuda() if name == "cuda" else Cpu()
