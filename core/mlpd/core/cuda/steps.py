"""The steps of a pass as C++: their arrays, their numbers, and what one thread does for one element."""

from collections.abc import Container, Mapping

from mlpd.core.arithmetic.cpp import TYPES, Code, Writer
from mlpd.core.arithmetic.functions import BY_NUMBER, ELEMENTWISE
from mlpd.core.codegen.kernels import Ref, Step
from mlpd.core.cuda.calls import ArrayCode, PassCode


class NumberReader:
    """The numbers of a call, taken one by one in the order in which `pack` gives them."""

    def __init__(self, writer: Writer) -> None:
        self._writer, self._count = writer, 0

    def address(self) -> str:
        """Return the next address, a ``char*``."""
        self._count += 1
        return f"n.numbers[AT + {self._count - 1}]"

    def next(self) -> str:
        """Return the next integer."""
        return f"(long long){self.address()}"

    def whole(self) -> str:
        """Return the name of a variable for the next integer, an ``int``."""
        name = self._writer.name("n")
        self._writer.add(f"const int {name} = (int){self.next()};")
        return name

    def number(self, kind: str) -> Code:
        """Return the next constant, whose bits are given in its type."""
        return self._writer.value(f"as_number({self.next()}, ({TYPES[kind]})0)", kind)

    def scalar(self, kind: str) -> Code:
        """Return a micro-batch's scalar, whose place among them is given."""
        return self._writer.value(f"as_number(now[{self.next()}], ({TYPES[kind]})0)", kind)


class _Array:
    """An array: how its numbers are read and written."""

    def __init__(self, numbers: NumberReader, code: ArrayCode) -> None:
        self.code = code
        self._address, self._row, self._column = numbers.address(), numbers.next(), numbers.next()
        self._order, self._first = (numbers.address(), numbers.scalar("int64").code) if code.chosen else ("", "")

    def at(self, row: str, column: str) -> str:
        """Return the expression of one number of it."""
        code, number = self.code, f"(long long){row}"
        if code.chosen:
            number = f"({self._first} + {row})"
            if code.chosen == "listed":
                number = f"at<const long long>({self._order})[{number}]"
        place = self._address
        if code.moves:
            place += f" + {number} * {self._row}"
        kind = TYPES[code.kind]
        if code.columns == "next":
            return f"at<{kind}>({place})[{column}]"
        if code.columns == "far":
            place += f" + (long long){column} * {self._column}"
        return f"*at<{kind}>({place})"


class Steps:
    """The steps of a pass: its arrays and numbers, and the code of one step."""

    def __init__(self, writer: Writer, numbers: NumberReader, code: PassCode) -> None:
        self.writer, self.code = writer, code
        self.rows, self.columns = numbers.whole(), numbers.whole()
        self.arrays = [_Array(numbers, array) for array in code.arrays]
        self._constants = [numbers.number(kind) for kind in code.constants]
        self._scalars = [numbers.scalar(kind) for kind in code.scalars]

    def load(self, place: int, row: str, column: str) -> Code:
        """Read a number from memory."""
        array = self.arrays[place]
        return self.writer.value(array.at(row, column), array.code.kind)

    def store(self, place: int, row: str, column: str, value: Code) -> None:
        """Write a number to memory."""
        self.writer.add(f"{self.arrays[place].at(row, column)} = {value.code};")

    def operand(self, ref: Ref, kind: str, values: Mapping[int, Code]) -> Code:
        """Return a step's operand in type ``kind``; ``values`` are those of arrays."""
        if ref.what == "array":
            return values[ref.number].to(kind)
        return (self._constants if ref.what == "constant" else self._scalars)[ref.number]

    def result(self, step: Step, values: Mapping[int, Code]) -> Code:
        """Return what an element-wise step makes of ``values``, in the type of its target."""
        operands = [self.operand(ref, step.kind, values) for ref in step.operands]
        by_number = step.name in BY_NUMBER and step.operands[1].what == "constant"
        result: Code = (BY_NUMBER if by_number else ELEMENTWISE)[step.name](*operands)
        return result.to(self.arrays[step.target].code.kind)

    def loads(self, known: Container[int]) -> list[int]:
        """Return the arrays that steps read from memory before they write them, but those ``known``."""
        found: list[int] = []
        written: set[int] = set()
        for step in self.code.steps:
            for ref in step.operands:
                if ref.what == "array" and not (ref.number in known or ref.number in written or ref.number in found):
                    found.append(ref.number)
            written.add(step.target)
        return found

    def element(self, row: str, column: str, values: dict[int, Code]) -> None:
        """Write all steps for one number of the grid; ``values`` are known already."""
        for place in self.loads(values):
            values[place] = self.load(place, row, column)
        for step in self.code.steps:
            values[step.target] = self.result(step, values)
        for place in self.code.stored:
            self.store(place, row, column, values[place])
