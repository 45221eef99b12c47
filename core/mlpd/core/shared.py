"""Memory that several processes see, as a device and as signals between them."""

import mmap
import os
import tempfile
import threading
import weakref
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from mlpd.core.arrays import Array, Cpu

_ALIGNMENT = 64  # a cache line
_SIGNAL_BYTES = 2**15


def create_memory(size: int) -> int:
    """Return the descriptor of a file of ``size`` zeros that lives in memory and has no name; raises `OSError`."""
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("mlpd")
    else:
        with tempfile.TemporaryFile() as temporary:
            file = os.dup(temporary.fileno())
    os.ftruncate(file, size)
    return file


class SharedCpu(Cpu):
    """The CPU, with arrays in a file that other processes map as well; those who ask for the same find the same."""

    def __init__(self, file: int, blas: str = "default") -> None:
        super().__init__(blas)
        self.file = file
        weakref.finalize(self, os.close, file)
        self._memory = mmap.mmap(file, 0)
        self._end = _SIGNAL_BYTES

    def zeros(self, shape: int | tuple[int, ...], dtype: Any) -> Array:
        """Return the next array; zeros, unless someone has written to it. Raises `MemoryError` at the file's end."""
        shape = (shape,) if isinstance(shape, int) else shape
        start, dtype = self._end, np.dtype(dtype)
        self._end += -(-prod(shape) * dtype.itemsize // _ALIGNMENT) * _ALIGNMENT
        if self._end > len(self._memory):
            raise MemoryError(f"the shards' {len(self._memory):,} bytes are used up")
        return np.frombuffer(self._memory, dtype, prod(shape), start).reshape(shape)

    def signals(self) -> "Signals":
        """Return the signals that come with the memory."""
        return Signals(memoryview(self._memory)[:_SIGNAL_BYTES])


class Signals:
    """Numbers that one process writes and others wait for, each in a cache line of its own; and a few more to say why.

    What a process wrote before it set a number is seen by those who have seen the number: the lock is there for
    processors that would reorder the two.
    """

    def __init__(self, memory: memoryview) -> None:
        half = len(memory) // 2
        self._numbers = memory[:half].cast("q")
        self._note = memory[half:].cast("d")
        self._fence = threading.Lock()

    def __setitem__(self, place: int, number: int) -> None:
        with self._fence:
            pass
        with self._fence:
            self._numbers[place * 8] = number

    def __getitem__(self, place: int) -> int:
        return self._numbers[place * 8]

    def has(self, place: int, number: int) -> bool:
        """Return whether the number at ``place`` has come to ``number``."""
        if self._numbers[place * 8] < number:
            return False
        with self._fence:
            return True

    def clear(self) -> None:
        """Make all numbers zero."""
        for place in range(len(self._numbers)):
            self._numbers[place] = 0

    def write_note(self, numbers: Sequence[float]) -> None:
        """Leave numbers for whoever sees the next signal."""
        for i, number in enumerate(numbers):
            self._note[i] = number

    def read_note(self, count: int) -> list[float]:
        """Return the numbers that were left."""
        return list(self._note[:count])
