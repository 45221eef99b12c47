"""Numbers in code that is being written, with the operators of Python's numbers.

A formula on them is written once; `codegen` makes LLVM's code of it, `cuda` C++. Neither contracts, reorders or flushes
subnormal numbers, so a formula has the same bits on every processor and device.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self, TypeVar

BITS = {"float32": "int32", "float64": "int64"}
FLOATS = {bits: kind for kind, bits in BITS.items()}
BYTES = {"bool": 1, "uint8": 1, "uint16": 2, "int32": 4, "int64": 8, "uint64": 8, "float32": 4, "float64": 8}

N = TypeVar("N", bound="Number")


class Number(ABC):
    """A number of NumPy's type ``kind``, or a vector of them.

    Its operators take numbers of the same kind, and Python's.
    """

    kind: str

    @property
    def is_float(self) -> bool:
        """Whether it is a floating-point number."""
        return self.kind.startswith("float")

    @abstractmethod
    def like(self: N, other: N | float) -> N:
        """Return ``other`` as a number of this kind."""

    @abstractmethod
    def binary(self: N, sign: str, other: N | float) -> N:
        """Return ``self sign other``, where ``sign`` is one of ``+ - * / & | ^ << >>``.

        Integers wrap. Shifts are by a Python number; one to the right brings in zeros, whatever the sign.
        """

    @abstractmethod
    def compare(self: N, sign: str, other: N | float) -> N:
        """Return whether ``self sign other`` holds, ``sign`` as in Python; for NaN only ``!=`` does."""

    @abstractmethod
    def where(self: N, condition: N, other: N) -> N:
        """Return this number where ``condition`` holds, else ``other``."""

    @abstractmethod
    def bits(self: N) -> N:
        """Return the integer that has the bits of this float."""

    @abstractmethod
    def as_float(self: N) -> N:
        """Return the float that has the bits of this integer."""

    @abstractmethod
    def to(self: N, kind: str) -> N:
        """Return it as a number of type ``kind``, rounded to nearest where a float becomes shorter.

        Floats become integers towards zero, and must fit.
        """

    @abstractmethod
    def absolute(self: N) -> N:
        """Return this float without its sign."""

    @abstractmethod
    def square_root(self: N) -> N:
        """Return the square root of this float, correctly rounded."""

    @abstractmethod
    def high_product(self: N, other: N | float) -> N:
        """Return the upper half of the product of two unsigned integers."""

    def __add__(self, other: Self | float) -> Self:
        return self.binary("+", other)

    def __sub__(self, other: Self | float) -> Self:
        return self.binary("-", other)

    def __mul__(self, other: Self | float) -> Self:
        return self.binary("*", other)

    def __truediv__(self, other: Self | float) -> Self:
        assert self.is_float
        return self.binary("/", other)

    def __radd__(self, other: float) -> Self:
        return self.like(other) + self

    def __rsub__(self, other: float) -> Self:
        return self.like(other) - self

    def __rmul__(self, other: float) -> Self:
        return self.like(other) * self

    def __rtruediv__(self, other: float) -> Self:
        return self.like(other) / self

    @abstractmethod
    def __neg__(self: N) -> N:
        """Return it with the other sign, of a zero too."""

    def __and__(self, other: Self | float) -> Self:
        return self.binary("&", other)

    def __or__(self, other: Self | float) -> Self:
        return self.binary("|", other)

    def __xor__(self, other: Self | float) -> Self:
        return self.binary("^", other)

    def __lshift__(self, count: int) -> Self:
        return self.binary("<<", count)

    def __rshift__(self, count: int) -> Self:
        return self.binary(">>", count)

    def __gt__(self, other: Self | float) -> Self:
        return self.compare(">", other)

    def __lt__(self, other: Self | float) -> Self:
        return self.compare("<", other)

    def __ge__(self, other: Self | float) -> Self:
        return self.compare(">=", other)

    def __le__(self, other: Self | float) -> Self:
        return self.compare("<=", other)

    def equals(self, other: Self | float) -> Self:
        """Return whether both are equal; NaN equals nothing."""
        return self.compare("==", other)

    def is_nan(self) -> Self:
        """Return whether it is NaN."""
        return self.compare("!=", self)


def select(condition: N, yes: N, no: N | float) -> N:
    """Return ``yes`` where ``condition`` holds, else ``no``."""
    return yes.where(condition, yes.like(no))


def maximum(x: N, y: N) -> N:
    """Return the larger, ``y`` if they are equal; NaN where either is."""
    return select((x > y) | x.is_nan(), x, y)


def minimum(x: N, y: N) -> N:
    """Return the smaller, ``y`` if they are equal; NaN where either is."""
    return select((x < y) | x.is_nan(), x, y)


def at_least(x: N, least: N | float) -> N:
    """Return ``x``, or ``least`` where ``x`` is less: one instruction of most processors. ``least`` is not NaN."""
    return select(x < least, x.like(least), x)


def at_most(x: N, most: N | float) -> N:
    """Return ``x``, or ``most`` where ``x`` is more. ``most`` is not NaN."""
    return select(x > most, x.like(most), x)
