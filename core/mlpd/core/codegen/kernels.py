"""Kernels: calls of a plan that one pass over memory makes, described without sizes, addresses or numbers.

So a kernel is compiled once for networks of all sizes. A pass runs over a grid: an outer loop, and an inner one along
which most arrays are contiguous.
"""

from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import numpy as np
from mlpd.core.devices.arrays import HostArray

KINDS = frozenset(("uint8", "uint16", "int32", "int64", "uint64", "float32", "float64"))  # types, as in NumPy


def readable_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return a type of `KINDS` that has all numbers of ``dtype``; if there is none, a type not in `KINDS`."""
    native = dtype.newbyteorder("=")
    return native if native.name in KINDS else np.result_type(native, np.float32 if native.kind == "f" else np.int32)


class ArrayOperand(NamedTuple):
    """An array as a kernel sees it: its type ``kind``, and its stride along the ``inner`` loop.

    The stride is 0 ("same"), one number ("next"), or given as an argument ("far"). Rows may be ``chosen`` along the
    "outer" or the "inner" loop: consecutive ones or, if ``ordered``, those that a list names.
    """

    kind: str
    inner: str
    chosen: str = ""
    ordered: bool = False


class Ref(NamedTuple):
    """An operand of a step: number ``number`` of the kernel's arrays, constants or scalars.

    ``what`` says of which: "array", "constant" or "scalar".
    """

    what: str
    number: int


class Step(NamedTuple):
    """``arrays[target] = name(*operands)``, computed in type ``kind``; a reduction runs ``along`` a loop.

    That is the "outer" or the "inner" one; empty for other steps.
    """

    name: str
    kind: str
    operands: tuple[Ref, ...]
    target: int
    along: str = ""


@dataclass(frozen=True)
class Kernel:
    """A pass: steps over ``arrays``, of which those with indices in ``stored`` are written to memory."""

    arrays: tuple[ArrayOperand, ...]
    steps: tuple[Step, ...]
    stored: tuple[int, ...]


@dataclass(frozen=True)
class Product:
    """``out = a @ b`` or, if it ``adds``, ``out += scale * a @ b``, of matrices of type ``kind``; ``out`` is row-major.

    ``a`` is row-major if ``a_inner``, ``b`` column-major if ``b_inner``: then their inner dimension is contiguous.
    A product ``in_place`` needs a row-major ``b`` and copies only the columns that fill no panel.
    """

    kind: str
    a_inner: bool
    b_inner: bool
    adds: bool
    in_place: bool = False


@dataclass(frozen=True)
class Draw:
    """Random words for the rows of a matrix, as `Device.draw` gives them."""


@dataclass(frozen=True)
class ArgMax:
    """For each place of the inner loop, where along the outer loop the largest number is."""

    kind: str


AnyKernel = Kernel | Product | Draw | ArgMax


@dataclass(frozen=True)
class Call:
    """A kernel and its arguments: integers, floats, and scalars, for which a runner passes their columns."""

    kernel: AnyKernel
    arguments: tuple[Any, ...]
    reads: tuple[HostArray, ...]
    writes: tuple[HostArray, ...]
    operations: int

    @property
    def name(self) -> str:
        """The names of its steps, or of its kind of kernel."""
        match self.kernel:
            case Kernel(steps=steps):
                return " ".join(step.name for step in steps)
            case other:
                return {Product: "product", Draw: "draw", ArgMax: "argmax"}[type(other)]

    @property
    def bytes(self) -> int:
        """Bytes that the call reads and writes."""
        return sum(map(_bytes_of, (*self.reads, *self.writes)))


def _bytes_of(array: HostArray) -> int:
    """Return the bytes that an array has in memory, where a broadcast one has each once."""
    sizes = (size for size, stride in zip(array.shape, array.strides, strict=True) if stride)
    count: int = array.itemsize * prod(sizes)
    return count
