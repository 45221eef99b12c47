"""What all writers of LLVM code share: a kernel's arguments, loops, addresses."""

from collections.abc import Iterator
from contextlib import contextmanager

from llvmlite import ir
from mlpd.core.codegen.values import Value

_I64 = ir.IntType(64)
_POINTER = ir.PointerType()


class Arguments:
    """Writes code that reads a kernel's arguments, in their order."""

    def __init__(self, builder: ir.IRBuilder, arguments: ir.Value, scalars: ir.Value) -> None:
        self._builder, self._arguments, self._scalars = builder, arguments, scalars
        self._next = 0

    def whole(self) -> ir.Value:
        """Return the next argument, an integer."""
        place = self._builder.gep(self._arguments, [ir.Constant(_I64, self._next)], source_etype=_I64)
        self._next += 1
        return self._builder.load(place, typ=_I64)

    def number(self) -> Value:
        """Return the next argument, a float."""
        return Value(self._builder, self._builder.bitcast(self.whole(), ir.DoubleType()), "float64")

    def whole_scalar(self) -> ir.Value:
        """Return an integer scalar, whose column is the next argument."""
        place = self._builder.gep(self._scalars, [self.whole()], source_etype=_I64)
        return self._builder.load(place, typ=_I64)

    def scalar(self) -> Value:
        """Return a float scalar, whose column is the next argument."""
        return Value(self._builder, self._builder.bitcast(self.whole_scalar(), ir.DoubleType()), "float64")


@contextmanager
def loop(builder: ir.IRBuilder, start: ir.Value, end: ir.Value, step: int = 1) -> Iterator[ir.Value]:
    """Write a loop around what the ``with`` block writes; its variable, which is yielded, stops before ``end``."""
    before = builder.block
    head, body, after = (builder.append_basic_block(part) for part in ("head", "body", "after"))
    builder.branch(head)
    builder.position_at_end(head)
    variable = builder.phi(_I64)
    variable.add_incoming(start, before)
    builder.cbranch(builder.icmp_signed("<", variable, end), body, after)
    builder.position_at_end(body)
    yield variable
    following = builder.add(variable, ir.Constant(_I64, step))
    variable.add_incoming(following, builder.block)
    builder.branch(head)
    builder.position_at_end(after)


def at(builder: ir.IRBuilder, address: ir.Value) -> ir.Value:
    """Return a pointer to ``address``."""
    return builder.inttoptr(address, _POINTER)


def whole(number: int) -> ir.Constant:
    """Return ``number`` as a 64-bit constant."""
    return ir.Constant(_I64, number)
