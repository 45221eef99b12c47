"""C++ for CUDA of `Number`: each operation is a statement with a name for its result."""

from __future__ import annotations

from math import isfinite

import numpy as np
from mlpd.core.arithmetic.numbers import BITS, FLOATS, Number

TYPES = {
    "bool": "bool",
    "uint8": "unsigned char",
    "uint16": "unsigned short",
    "int32": "int",
    "int64": "long long",
    "uint64": "unsigned long long",
    "float32": "float",
    "float64": "double",
}
_UNSIGNED = {"int32": "unsigned", "int64": "unsigned long long", "uint64": "unsigned long long"}
_AS_BITS = {"float32": "__float_as_int", "float64": "__double_as_longlong"}
_AS_FLOAT = {"int32": "__int_as_float", "int64": "__longlong_as_double"}


class Writer:
    """Lines of a function, with new names for its values."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._count = 0

    def add(self, *lines: str) -> None:
        """Add lines."""
        self.lines += lines

    def name(self, prefix: str = "t") -> str:
        """Return a name that is used nowhere else in the function."""
        self._count += 1
        return f"{prefix}{self._count}"

    def value(self, code: str, kind: str) -> Code:
        """Add a statement that gives ``code``, a number of type ``kind``, a name."""
        name = self.name()
        self.add(f"const {TYPES[kind]} {name} = {code};")
        return Code(self, name, kind)


class Code(Number):
    """A number that the C++ expression ``code`` names; operations add statements to ``writer``."""

    def __init__(self, writer: Writer, code: str, kind: str) -> None:
        self.writer, self.code, self.kind = writer, code, kind

    def like(self, other: Code | float) -> Code:
        """Return ``other`` as a number of this kind."""
        if isinstance(other, Code):
            assert other.kind == self.kind
            return other
        return Code(self.writer, literal(other, self.kind), self.kind)

    def _new(self, code: str, kind: str = "") -> Code:
        return self.writer.value(code, kind or self.kind)

    def binary(self, sign: str, other: Code | float) -> Code:
        """Return ``self sign other``; integers go through unsigned ones, which wrap by C++'s rules, too."""
        if sign in ("<<", ">>"):
            assert isinstance(other, int)
            return self._new(f"({TYPES[self.kind]})(({_UNSIGNED[self.kind]}){self.code} {sign} {other})")
        right = self.like(other).code
        if self.kind in _UNSIGNED:
            own, wide = TYPES[self.kind], _UNSIGNED[self.kind]
            return self._new(f"({own})(({wide}){self.code} {sign} ({wide}){right})")
        return self._new(f"{self.code} {sign} {right}")

    def __neg__(self) -> Code:
        return self._new(f"-{self.code}") if self.is_float else self.like(0) - self

    def compare(self, sign: str, other: Code | float) -> Code:
        """Return whether ``self sign other`` holds."""
        return self._new(f"{self.code} {sign} {self.like(other).code}", "bool")

    def where(self, condition: Code, other: Code) -> Code:
        """Return this number where ``condition`` holds, else ``other``."""
        return self._new(f"{condition.code} ? {self.code} : {other.code}")

    def bits(self) -> Code:
        """Return the integer that has the bits of this float."""
        return self._new(f"{_AS_BITS[self.kind]}({self.code})", BITS[self.kind])

    def as_float(self) -> Code:
        """Return the float that has the bits of this integer."""
        return self._new(f"{_AS_FLOAT[self.kind]}({self.code})", FLOATS[self.kind])

    def to(self, kind: str) -> Code:
        """Return it as a number of type ``kind``; C++ rounds to nearest and truncates as wanted."""
        if kind == self.kind:
            return self
        return self._new(f"{self.code} != 0" if kind == "bool" else f"({TYPES[kind]}){self.code}", kind)

    def absolute(self) -> Code:
        """Return this float without its sign."""
        return self._new(f"{'fabsf' if self.kind == 'float32' else 'fabs'}({self.code})")

    def square_root(self) -> Code:
        """Return the square root of this float, correctly rounded."""
        return self._new(f"{'sqrtf' if self.kind == 'float32' else 'sqrt'}({self.code})")

    def high_product(self, other: Code | float) -> Code:
        """Return the upper half of the product of two numbers of type uint64."""
        assert self.kind == "uint64"
        return self._new(f"__umul64hi({self.code}, {self.like(other).code})")


def literal(number: float, kind: str) -> str:
    """Return ``number`` as C++ has it, all bits of it; integers are truncated."""
    if kind == "bool":
        return "true" if number else "false"
    if not kind.startswith("float"):
        suffix = {"int64": "LL", "uint64": "ULL"}.get(kind, "")
        # The smallest integer has no literal of its own in C++.
        return f"({int(number) + 1}{suffix} - 1)" if int(number) == -(2**63) else f"{int(number)}{suffix}"
    own = np.dtype(kind).type(number)
    if not isfinite(own):
        width = BITS[kind]
        return f"{_AS_FLOAT[width]}({literal(int(own.view(width)), width)})"
    code = f"{float(own).hex()}{'f' if kind == 'float32' else ''}"
    return f"({code})" if code.startswith("-") else code
