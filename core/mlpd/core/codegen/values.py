"""LLVM's code of `Number`: there are no fast-math flags and no contraction, so LLVM changes no result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from mlpd.core.arithmetic.numbers import BITS, BYTES, FLOATS, Number

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
_OF_FLOATS = {"+": "fadd", "-": "fsub", "*": "fmul", "/": "fdiv"}
_OF_INTEGERS = {
    "+": "add",
    "-": "sub",
    "*": "mul",
    "&": "and_",
    "|": "or_",
    "^": "xor",
    "<<": "shl",
    ">>": "lshr",
}


def type_of(kind: str, lanes: int = 1) -> ir.Type:
    """Return LLVM's type of a number of NumPy's type ``kind``, or of a vector of ``lanes`` of them."""
    own = _TYPES[kind]
    return own if lanes == 1 else ir.VectorType(own, lanes)


def bytes_of(kind: str) -> int:
    """Return the bytes of a number in memory."""
    return BYTES[kind]


class Value(Number):
    """A number, or a vector of ``lanes``; the same formula writes either."""

    def __init__(self, builder: ir.IRBuilder, code: ir.Value, kind: str, lanes: int = 1) -> None:
        self.builder, self.code, self.kind, self.lanes = builder, code, kind, lanes

    @classmethod
    def constant(cls, builder: ir.IRBuilder, number: float, kind: str, lanes: int = 1) -> Value:
        """Return ``number`` in every lane."""
        of_type = float(number) if kind.startswith("float") else int(number)
        own = of_type if lanes == 1 else [of_type] * lanes
        return cls(builder, ir.Constant(type_of(kind, lanes), own), kind, lanes)

    def like(self, other: Value | float) -> Value:
        """Return ``other`` as a value of this kind, with as many lanes."""
        if isinstance(other, Value):
            assert (other.kind, other.lanes) == (self.kind, self.lanes)
            return other
        return Value.constant(self.builder, other, self.kind, self.lanes)

    def _new(self, code: ir.Value, kind: str = "") -> Value:
        return Value(self.builder, code, kind or self.kind, self.lanes)

    def binary(self, sign: str, other: Value | float) -> Value:
        """Return ``self sign other``."""
        make = getattr(self.builder, (_OF_FLOATS if self.is_float else _OF_INTEGERS)[sign])
        return self._new(make(self.code, self.like(other).code))

    def __neg__(self) -> Value:
        return self._new(self.builder.fneg(self.code)) if self.is_float else self.like(0) - self

    def compare(self, sign: str, other: Value | float) -> Value:
        """Return whether ``self sign other`` holds, lane by lane."""
        code = self.like(other).code
        if not self.is_float:
            compare = self.builder.icmp_unsigned if self.kind.startswith("u") else self.builder.icmp_signed
            return self._new(compare(sign, self.code, code), "bool")
        compare = self.builder.fcmp_unordered if sign == "!=" else self.builder.fcmp_ordered
        return self._new(compare(sign, self.code, code), "bool")

    def where(self, condition: Value, other: Value) -> Value:
        """Return this value where ``condition`` holds, else ``other``, lane by lane."""
        return self._new(self.builder.select(condition.code, self.code, other.code))

    def bits(self) -> Value:
        """Return the integer that has the bits of this float."""
        kind = BITS[self.kind]
        return self._new(self.builder.bitcast(self.code, type_of(kind, self.lanes)), kind)

    def as_float(self) -> Value:
        """Return the float that has the bits of this integer."""
        kind = FLOATS[self.kind]
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
            make: Any = builder.fpext if BYTES[kind] > BYTES[self.kind] else builder.fptrunc
        elif self.is_float:
            make = builder.fptoui if kind.startswith("u") else builder.fptosi
        elif kind.startswith("float"):
            make = builder.uitofp if unsigned else builder.sitofp
        elif self.kind != "bool" and BYTES[kind] == BYTES[self.kind]:
            return self._new(code, kind)
        elif self.kind != "bool" and BYTES[kind] < BYTES[self.kind]:
            make = builder.trunc
        else:
            make = builder.zext if unsigned else builder.sext
        return self._new(make(code, target), kind)

    def absolute(self) -> Value:
        """Return it without its sign."""
        return self.call("llvm.fabs")

    def square_root(self) -> Value:
        """Return its square root, correctly rounded."""
        return self.call("llvm.sqrt")

    def high_product(self, other: Value | float) -> Value:
        """Return the upper half of the product, in twice the bits."""
        bits = 8 * BYTES[self.kind]
        wide, builder = ir.IntType(2 * bits), self.builder
        product = builder.mul(*(builder.zext(factor.code, wide) for factor in (self, self.like(other))))
        return self._new(builder.trunc(builder.lshr(product, ir.Constant(wide, bits)), type_of(self.kind)))

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
