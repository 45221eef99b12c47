"""Steps that take whole rows, as C++."""

from collections.abc import Mapping, Sequence

from mlpd.core.arithmetic.cpp import TYPES, Code, literal
from mlpd.core.arithmetic.functions import COMBINE, start_of
from mlpd.core.codegen.kernels import Step
from mlpd.core.cuda.steps import Steps

WARP = 32
_NO_PLACE = 2**31 - 1  # of a lane that has seen no number


class RowSteps:
    """Writes steps over a row: by one thread, its numbers in registers, or by a warp, with numbers in memory.

    Steps are cut into stages, each a loop over the columns: what needs the sum of a row comes in a later stage than the
    sum. A thread adds up a row in the order of columns; a warp's lanes take turns, and their sums are added in pairs,
    of lanes 16 apart, then 8, and so on. ``known`` are names of arrays that have numbers of the row already.
    """

    def __init__(self, steps: Steps, known: Mapping[int, str]) -> None:
        self._steps, self._writer, self._code, self._known = steps, steps.writer, steps.code, known
        self._narrow = self._code.shape == "narrow"
        self._of_row = [array.columns == "same" for array in self._code.arrays]
        self._stages = self._find_stages()
        self._crossing = self._find_crossing()
        self._registers: dict[int, str] = {}
        self._filled: set[int] = set()  # registers that have their numbers
        self._row_values: dict[int, Code] = {}

    def _find_stages(self) -> list[int]:
        """Return the stage of each step; one for a number a row comes at the end of its stage, -1 = before all."""
        ends: dict[int, int] = {}  # at the end of which stage the number of a row is known
        used: dict[int, int] = {}  # at the end of which stage it is last read or written
        now, stages = -1, []
        for step in self._code.steps:
            places = [ref.number for ref in step.operands if ref.what == "array"]
            known = max([ends.get(place, -1) for place in places], default=-1)
            if step.along:  # its result must not come before those that the row had there
                known = max(known, used.get(step.target, -1))
            if step.along or not self._of_row[step.target]:
                now = max(now, known + 1)
            else:
                used |= dict.fromkeys([*places, step.target], now)
            stages.append(now)
            if self._of_row[step.target]:
                ends[step.target] = now
        return stages

    def _find_crossing(self) -> set[int]:
        """Return the arrays of elements that more than one stage takes."""
        first: dict[int, int] = {}
        found = set()
        for step, stage in zip(self._code.steps, self._stages, strict=True):
            for place in [*(ref.number for ref in step.operands if ref.what == "array"), step.target]:
                if not self._of_row[place] and first.setdefault(place, stage) != stage:
                    found.add(place)
        return found

    def write(self) -> None:
        """Write the loops, and what comes between them."""
        writer = self._writer
        self._load_rows()
        if self._narrow:
            for place in sorted(self._crossing):
                self._registers[place] = writer.name("v")
                writer.add(f"{TYPES[self._code.arrays[place].kind]} {self._registers[place]}[{self._code.columns}];")
        self._store_known()
        for stage in range(-1, max(self._stages) + 1):
            own = [step for step, its in zip(self._code.steps, self._stages, strict=True) if its == stage]
            of_elements = [step for step in own if step.along or not self._of_row[step.target]]
            if of_elements:
                self._write_loop(stage, of_elements)
            for step in own:
                if not step.along and self._of_row[step.target]:
                    self._row_values[step.target] = self._steps.result(step, self._row_values)
        for place in self._code.stored:
            if self._of_row[place]:
                if not self._narrow:
                    writer.add("if (lane == 0)")
                self._steps.store(place, "row", "0", self._row_values[place])

    def _store_known(self) -> None:
        """Write to memory what was known before the steps and no step changes."""
        changed = {step.target for step in self._code.steps}
        for place, name in self._known.items():
            if place in self._code.stored and place not in changed:
                self._writer.add(f"for (int column = 0; column < {self._code.columns}; ++column)")
                self._steps.store(place, "row", "column", Code(self._writer, f"{name}[column]", ""))

    def _load_rows(self) -> None:
        """Read the numbers that a row has one of, before any step writes one."""
        for place in self._steps.loads(self._row_values):
            if self._of_row[place]:
                self._row_values[place] = self._steps.load(place, "row", "0")

    def _write_loop(self, stage: int, steps: Sequence[Step]) -> None:
        writer, code = self._writer, self._code
        sums = {number: self._declare(step) for number, step in enumerate(steps) if step.along}
        if self._narrow:
            writer.add("#pragma unroll", f"for (int column = 0; column < {code.columns}; ++column) {{")
        else:
            writer.add(f"for (int column = lane; column < {self._steps.columns}; column += {WARP}) {{")
        values = self._row_values.copy()
        for number, step in enumerate(steps):
            for ref in step.operands:
                if ref.what == "array" and ref.number not in values:
                    values[ref.number] = self._read(ref.number)
            if step.along:
                self._add_up(step, sums[number], self._steps.operand(step.operands[0], step.kind, values))
            else:
                values[step.target] = self._steps.result(step, values)
        for place in sorted({step.target for step in steps if not step.along} | self._crossing):
            if place in values and place in self._registers:
                writer.add(f"{self._registers[place]}[column] = {values[place].code};")
            if place in code.stored and place in values and self._stores(place, stage):
                self._steps.store(place, "row", "column", values[place])
        writer.add("}")
        self._filled |= values.keys() & self._registers.keys()
        for number, total in sums.items():
            self._row_values[steps[number].target] = self._finish(steps[number], total)

    def _stores(self, place: int, stage: int) -> bool:
        """Whether ``place`` is written to memory in this stage: in the last that changes it, by a warp in each."""
        own = [its for step, its in zip(self._code.steps, self._stages, strict=True) if step.target == place]
        return bool(own) and (stage == own[-1] or (stage in own and not self._narrow))

    def _read(self, place: int) -> Code:
        """Return the number of the current column: in a register, of the values that are known, or in memory."""
        kind = self._code.arrays[place].kind
        if place in self._filled:
            return Code(self._writer, f"{self._registers[place]}[column]", kind)
        if place in self._known:
            return Code(self._writer, f"{self._known[place]}[column]", kind)
        return self._steps.load(place, "row", "column")

    def _declare(self, step: Step) -> tuple[str, str]:
        """Declare the result of a reduction and, of an argmax, its place; return their names."""
        total, place = self._writer.name("s"), self._writer.name("p")
        self._writer.add(f"{TYPES[step.kind]} {total} = {literal(start_of(step.name, step.kind), step.kind)};")
        if step.name == "argmax":
            self._writer.add(f"int {place} = {_NO_PLACE};")
        return total, place

    def _add_up(self, step: Step, names: tuple[str, str], value: Code) -> None:
        """Take in the number of the current column."""
        (total, place), writer = names, self._writer
        known = Code(writer, total, step.kind)
        if step.name == "argmax":
            larger = (value > known) | (value.is_nan() & known.equals(known))
            writer.add(f"if ({place} == {_NO_PLACE} || {larger.code}) {{ {total} = {value.code}; {place} = column; }}")
            return
        both: Code = COMBINE[step.name](known, value)
        first = f"column == 0 ? {value.code} : " if self._narrow else ""
        writer.add(f"{total} = {first}{both.code};")

    def _finish(self, step: Step, names: tuple[str, str]) -> Code:
        """Return the result of a reduction, which a warp's lanes make of theirs."""
        (total, place), writer, kind = names, self._writer, self._code.arrays[step.target].kind
        if not self._narrow:
            writer.add("#pragma unroll", f"for (int apart = {WARP // 2}; apart; apart /= 2) {{")
            known = Code(writer, total, step.kind)
            other = writer.value(f"__shfl_xor_sync(~0u, {total}, apart)", step.kind)
            if step.name == "argmax":
                writer.add(f"const int elsewhere = __shfl_xor_sync(~0u, {place}, apart);")
                larger = (other > known) | (other.is_nan() & known.equals(known))
                alike = other.equals(known) | (other.is_nan() & known.is_nan())
                writer.add(
                    f"if (elsewhere != {_NO_PLACE} && ({place} == {_NO_PLACE} || {larger.code} ||",
                    f"    ({alike.code} && elsewhere < {place}))) {{ {total} = {other.code}; {place} = elsewhere; }}",
                )
            else:
                writer.add(f"{total} = {COMBINE[step.name](known, other).code};")
            writer.add("}")
        if step.name == "argmax":
            return Code(writer, place, "int32").to(kind)
        return writer.value(total, step.kind).to(kind)
