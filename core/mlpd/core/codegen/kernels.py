"""Kernels: calls of a plan that one pass over memory makes, described without sizes, addresses or numbers.

So networks of all sizes share a kernel, and it is compiled once. A pass goes over a grid: an outer loop, and an inner
one along which most arrays are contiguous.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from mlpd.core.devices.arrays import HostArray

KINDS = frozenset(("bool", "uint8", "uint16", "int32", "int64", "uint64", "float32", "float64"))  # types of numbers


def readable_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return a type that compiled code knows and that has all numbers of type ``dtype``; what has none is returned."""
    native = dtype.newbyteorder("=")
    return native if native.name in KINDS else np.result_type(native, np.float32 if native.kind == "f" else np.int32)


class ArrayOperand(NamedTuple):
    """An array as a kernel sees it: its type, and how it lies along the inner loop: "same", "next" or "far".

    Rows may be ``chosen`` along the "outer" or the "inner" loop, by an order if ``ordered``.
    """

    kind: str
    inner: str
    chosen: str = ""
    ordered: bool = False


class Ref(NamedTuple):
    """An operand: number ``index`` of the kernel's "array"s, "constant"s or "scalar"s."""

    what: str
    number: int


class Step(NamedTuple):
    """``slot target = name(*operands)``, computed in type ``kind``; a reduction goes ``along`` a loop."""

    name: str
    kind: str
    operands: tuple[Ref, ...]
    target: int
    along: str = ""


@dataclass(frozen=True)
class Kernel:
    """What is compiled: steps over the slots, of which some are ``stored``."""

    arrays: tuple[ArrayOperand, ...]
    steps: tuple[Step, ...]
    stored: tuple[int, ...]


@dataclass(frozen=True)
class Product:
    """A product of matrices of type ``kind``; the numbers of their inner dimension lie side by side, or the others.

    It is ``out = a @ b``, or where it ``adds``, ``out += scale * a @ b``; numbers of a row of ``out`` lie side by side.
    Made ``in_place``, it copies nothing of ``b``, of which numbers of the inner dimension must not lie side by side.
    """

    kind: str
    a_inner: bool
    b_inner: bool
    adds: bool
    in_place: bool = False


@dataclass(frozen=True)
class Draw:
    """Random words for rows of a matrix."""


@dataclass(frozen=True)
class ArgMax:
    """The place of the largest number along the "outer" loop, for each of the inner."""

    kind: str


AnyKernel = Kernel | Product | Draw | ArgMax


@dataclass(frozen=True)
class Call:
    """A kernel and what it is called with: whole numbers, floats, and scalars, whose places are filled in."""

    kernel: AnyKernel
    arguments: tuple[Any, ...]
    reads: tuple[HostArray, ...]
    writes: tuple[HostArray, ...]
    operations: int

    @property
    def name(self) -> str:
        """What it does."""
        match self.kernel:
            case Kernel(steps=steps):
                return " ".join(step.name for step in steps)
            case other:
                return {Product: "product", Draw: "draw", ArgMax: "argmax"}[type(other)]

    @property
    def bytes(self) -> int:
        """Bytes that are read and written."""
        return sum(array.nbytes for array in (*self.reads, *self.writes))
