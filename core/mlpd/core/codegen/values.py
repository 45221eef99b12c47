"""Numbers in code that is being written: LLVM values with the operators of Python's numbers.

A value is one number, or a vector of as many as it has lanes; the same formula writes either. There are no fast-math
flags and no contraction, so LLVM changes no result, and every processor gives the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

LANES = 16

_TYPES: dict[str, ir.Type] = {
    "bool": ir.IntType(1),
    "uint8": ir.IntType(8),
    "uint16": ir.IntType(16),
    "int32": ir.IntType(32),
    "int64": ir.IntType(64),
    "uint64": ir.IntType(64),
    "float32": ir.FloatType(),
    "float64": ir.DoubleType(),
}
_BYTES = {"bool": 1, "uint8": 1, "uint16": 2, "int32": 4, "int64": 8, "uint64": 8, "float32": 4, "float64": 8}
_BITS = {"float32": "int32", "float64": "int64"}
_FLOATS = {bits: kind for kind, bits in _BITS.items()}


def type_of(kind: str, lanes: int = 1) -> ir.Type:
    """Return LLVM's type of a number of NumPy's type ``kind``, or of a vector of ``lanes`` of them."""
    own = _TYPES[kind]
    return own if lanes == 1 else ir.VectorType(own, lanes)


def bytes_of(kind: str) -> int:
    """Return the bytes of a number in memory."""
    return _BYTES[kind]


class Value:
    """A number, or a vector of ``lanes``, of NumPy's type ``kind``.

    Its operators take values of the same kind and lanes, and Python's numbers.
    """

    def __init__(self, builder: ir.IRBuilder, code: ir.Value, kind: str, lanes: int = 1) -> None:
        self.builder, self.code, self.kind, self.lanes = builder, code, kind, lanes

    @classmethod
    def constant(cls, builder: ir.IRBuilder, number: float, kind: str, lanes: int = 1) -> Value:
        """Return ``number`` in every lane."""
        of_type = float(number) if kind.startswith("float") else int(number)
        own = of_type if lanes == 1 else [of_type] * lanes
        return cls(builder, ir.Constant(type_of(kind, lanes), own), kind, lanes)

    @property
    def is_float(self) -> bool:
        """Whether it is a floating-point number."""
        return self.kind.startswith("float")

    def like(self, other: Value | float) -> Value:
        """Return ``other`` as a value of this kind, with as many lanes."""
        if isinstance(other, Value):
            assert (other.kind, other.lanes) == (self.kind, self.lanes)
            return other
        return Value.constant(self.builder, other, self.kind, self.lanes)

    def _new(self, code: ir.Value, kind: str = "") -> Value:
        return Value(self.builder, code, kind or self.kind, self.lanes)

    def _by(self, for_floats: str, for_integers: str, other: Value | float) -> Value:
        make = getattr(self.builder, for_floats if self.is_float else for_integers)
        return self._new(make(self.code, self.like(other).code))

    def __add__(self, other: Value | float) -> Value:
        return self._by("fadd", "add", other)

    def __sub__(self, other: Value | float) -> Value:
        return self._by("fsub", "sub", other)

    def __mul__(self, other: Value | float) -> Value:
        return self._by("fmul", "mul", other)

    def __truediv__(self, other: Value | float) -> Value:
        assert self.is_float
        return self._new(self.builder.fdiv(self.code, self.like(other).code))

    def __radd__(self, other: float) -> Value:
        return self.like(other) + self

    def __rsub__(self, other: float) -> Value:
        return self.like(other) - self

    def __rmul__(self, other: float) -> Value:
        return self.like(other) * self

    def __rtruediv__(self, other: float) -> Value:
        return self.like(other) / self

    def __neg__(self) -> Value:
        return self._new(self.builder.fneg(self.code)) if self.is_float else self.like(0) - self

    def __and__(self, other: Value | float) -> Value:
        return self._new(self.builder.and_(self.code, self.like(other).code))

    def __or__(self, other: Value | float) -> Value:
        return self._new(self.builder.or_(self.code, self.like(other).code))

    def __xor__(self, other: Value | float) -> Value:
        return self._new(self.builder.xor(self.code, self.like(other).code))

    def __lshift__(self, count: int) -> Value:
        return self._new(self.builder.shl(self.code, self.like(count).code))

    def __rshift__(self, count: int) -> Value:
        """Shift right; zeros come in from the left, whatever the sign."""
        return self._new(self.builder.lshr(self.code, self.like(count).code))

    def compare(self, sign: str, other: Value | float) -> Value:
        """Return whether ``self sign other`` holds, lane by lane, ``sign`` as in Python; for NaN only ``!=`` does."""
        code = self.like(other).code
        if not self.is_float:
            compare = self.builder.icmp_unsigned if self.kind.startswith("u") else self.builder.icmp_signed
            return self._new(compare(sign, self.code, code), "bool")
        compare = self.builder.fcmp_unordered if sign == "!=" else self.builder.fcmp_ordered
        return self._new(compare(sign, self.code, code), "bool")

    def __gt__(self, other: Value | float) -> Value:
        return self.compare(">", other)

    def __lt__(self, other: Value | float) -> Value:
        return self.compare("<", other)

    def __ge__(self, other: Value | float) -> Value:
        return self.compare(">=", other)

    def __le__(self, other: Value | float) -> Value:
        return self.compare("<=", other)

    def equals(self, other: Value | float) -> Value:
        """Return whether both are equal, lane by lane; NaN equals nothing."""
        return self.compare("==", other)

    def is_nan(self) -> Value:
        """Return whether it is NaN, lane by lane."""
        return self.compare("!=", self)

    def bits(self) -> Value:
        """Return the integer that has the bits of this float."""
        kind = _BITS[self.kind]
        return self._new(self.builder.bitcast(self.code, type_of(kind, self.lanes)), kind)

    def as_float(self) -> Value:
        """Return the float that has the bits of this integer."""
        kind = _FLOATS[self.kind]
        return self._new(self.builder.bitcast(self.code, type_of(kind, self.lanes)), kind)

    def to(self, kind: str) -> Value:
        """Return it as a number of type ``kind``, rounded to nearest where a float becomes shorter.

        Floats become integers towards zero, and must fit.
        """
        if kind == self.kind:
            return self
        code, target = self.code, type_of(kind, self.lanes)
        builder, unsigned = self.builder, self.kind.startswith(("u", "bool"))
        if kind == "bool":
            return self.compare("!=", 0)
        if self.is_float and kind.startswith("float"):
            make: Any = builder.fpext if _BYTES[kind] > _BYTES[self.kind] else builder.fptrunc
        elif self.is_float:
            make = builder.fptoui if kind.startswith("u") else builder.fptosi
        elif kind.startswith("float"):
            make = builder.uitofp if unsigned else builder.sitofp
        elif self.kind != "bool" and _BYTES[kind] == _BYTES[self.kind]:
            return self._new(code, kind)
        elif self.kind != "bool" and _BYTES[kind] < _BYTES[self.kind]:
            make = builder.trunc
        else:
            make = builder.zext if unsigned else builder.sext
        return self._new(make(code, target), kind)

    def call(self, intrinsic: str) -> Value:
        """Return LLVM's ``intrinsic`` of it, which must give the same bits on every processor."""
        lanes = "" if self.lanes == 1 else f"v{self.lanes}"
        name = f"{intrinsic}.{lanes}f{8 * bytes_of(self.kind)}"
        return self._new(call_intrinsic(self.builder, name, type_of(self.kind, self.lanes), [self.code]))


def call_intrinsic(builder: ir.IRBuilder, name: str, result: ir.Type, operands: Sequence[ir.Value]) -> ir.Value:
    """Write a call of LLVM's intrinsic ``name``, which includes its types, and return the result."""
    signature = ir.FunctionType(result, [operand.type for operand in operands])
    module = builder.module
    return builder.call(module.globals.get(name) or ir.Function(module, signature, name), operands)


def in_lanes(value: Value, lanes: int) -> Value:
    """Return ``value``, which is one number, in each of ``lanes`` lanes."""
    if lanes == 1:
        return value
    builder, kind = value.builder, type_of(value.kind, lanes)
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value.code, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
    return Value(builder, builder.shuffle_vector(one, one, zeros), value.kind, lanes)


def select(condition: Value, yes: Value, no: Value | float) -> Value:
    """Return ``yes`` where ``condition`` holds, else ``no``."""
    other = yes.like(no)
    return yes._new(yes.builder.select(condition.code, yes.code, other.code))  # noqa: SLF001 - its own class


def maximum(x: Value, y: Value) -> Value:
    """Return the larger, ``y`` if they are equal; NaN where either is."""
    return select((x > y) | x.is_nan(), x, y)


def minimum(x: Value, y: Value) -> Value:
    """Return the smaller, ``y`` if they are equal; NaN where either is."""
    return select((x < y) | x.is_nan(), x, y)


def at_least(x: Value, least: Value | float) -> Value:
    """Return ``x``, or ``least`` where ``x`` is less: one instruction of most processors. ``least`` is not NaN."""
    return select(x < least, x.like(least), x)


def at_most(x: Value, most: Value | float) -> Value:
    """Return ``x``, or ``most`` where ``x`` is more. ``most`` is not NaN."""
    return select(x > most, x.like(most), x)


def absolute(x: Value) -> Value:
    """Return ``x`` without its sign."""
    return x.call("llvm.fabs")


def square_root(x: Value) -> Value:
    """Return the square root of ``x``, correctly rounded."""
    return x.call("llvm.sqrt")
