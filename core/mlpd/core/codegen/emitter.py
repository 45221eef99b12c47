"""Writes kernels as LLVM code: ``void kernel(i64* arguments, i64* scalars)``.

Loops take `LANES` numbers at a time, then the rest of a row one by one. So sums are added in one order everywhere,
whatever a compiler makes of a loop.
"""

from llvmlite import ir
from mlpd.core.arithmetic.functions import BY_NUMBER, COMBINE, ELEMENTWISE, philox, start_of
from mlpd.core.arithmetic.numbers import select
from mlpd.core.codegen.kernels import AnyKernel, ArgMax, ArrayOperand, Draw, Kernel, Product, Ref, Step
from mlpd.core.codegen.products import ProductWriter
from mlpd.core.codegen.values import LANES, Value, bytes_of, in_lanes, type_of
from mlpd.core.codegen.writing import Arguments, at, loop, whole

_I64 = ir.IntType(64)
_POINTER = ir.PointerType()


def write_kernel(module: ir.Module, name: str, kernel: AnyKernel) -> None:
    """Add a function called ``name`` that computes ``kernel`` to ``module``."""
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [_POINTER, _POINTER]), name)
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    arguments = Arguments(builder, *function.args)
    match kernel:
        case Kernel():
            _Pass(builder, arguments, kernel).write()
        case Product():
            ProductWriter(builder, arguments, kernel).write()
        case Draw():
            _write_draw(builder, arguments)
        case ArgMax():
            _write_argmax(builder, arguments, kernel)
    builder.ret_void()


class _Array:
    """A kernel's array in the code: its address, its strides in bytes, and where its current row begins."""

    def __init__(self, builder: ir.IRBuilder, arguments: Arguments, operand: ArrayOperand) -> None:
        self.builder, self.operand = builder, operand
        self.address = arguments.whole()
        self.outer, self.inner = arguments.whole(), arguments.whole()
        if operand.chosen:
            self.order, self.first = arguments.whole(), arguments.whole_scalar()
        self.row: ir.Value = self.address

    def _chosen_row(self, number: ir.Value) -> ir.Value:
        """Return the offset in bytes of the chosen row ``number`` from the first row of the source."""
        builder = self.builder
        place = builder.add(self.first, number)
        if self.operand.ordered:
            entry = builder.add(self.order, builder.mul(place, whole(8)))
            place = builder.load(at(builder, entry), typ=_I64)
        return builder.mul(place, self.outer)

    def enter_row(self, j: ir.Value) -> None:
        if self.operand.chosen == "outer":
            self.row = self.builder.add(self.address, self._chosen_row(j))
        else:
            stride = self.inner if self.operand.chosen else self.outer
            self.row = self.builder.add(self.address, self.builder.mul(j, stride))

    def _place(self, i: ir.Value) -> ir.Value:
        if self.operand.chosen == "inner":
            return self.builder.add(self.row, self._chosen_row(i))
        stride: ir.Value = whole(bytes_of(self.operand.kind)) if self.operand.inner == "next" else self.inner
        return self.builder.add(self.row, self.builder.mul(i, stride))

    def load(self, i: ir.Value, lanes: int) -> Value:
        builder, kind = self.builder, self.operand.kind
        if lanes == 1 or self.operand.inner == "next":
            pointer = at(builder, self._place(i))
            return Value(builder, builder.load(pointer, align=bytes_of(kind), typ=type_of(kind, lanes)), kind, lanes)
        vector: ir.Value = ir.Constant(type_of(kind, lanes), ir.Undefined)
        for lane in range(lanes):
            pointer = at(builder, self._place(builder.add(i, whole(lane))))
            number = builder.load(pointer, align=bytes_of(kind), typ=type_of(kind))
            vector = builder.insert_element(vector, number, ir.Constant(ir.IntType(32), lane))
        return Value(builder, vector, kind, lanes)

    def store(self, i: ir.Value, value: Value) -> None:
        builder, kind = self.builder, self.operand.kind
        if value.lanes == 1 or self.operand.inner == "next":
            builder.store(value.code, at(builder, self._place(i)), align=bytes_of(kind))
            return
        for lane in range(value.lanes):
            number = builder.extract_element(value.code, ir.Constant(ir.IntType(32), lane))
            builder.store(number, at(builder, self._place(builder.add(i, whole(lane)))), align=bytes_of(kind))


class _Pass:
    """Writes one kernel's loops."""

    def __init__(self, builder: ir.IRBuilder, arguments: Arguments, kernel: Kernel) -> None:
        self._builder, self._kernel = builder, kernel
        self._outer, self._inner = arguments.whole(), arguments.whole()
        self._arrays = [_Array(builder, arguments, operand) for operand in kernel.arrays]
        refs = [ref for step in kernel.steps for ref in step.operands]
        self._numbers = {
            what: [read() for _ in range(1 + max((ref.number for ref in refs if ref.what == what), default=-1))]
            for what, read in (("constant", arguments.number), ("scalar", arguments.scalar))
        }
        self._known: dict[tuple[str, int, str, int], Value] = {}
        self._sums: dict[tuple[int, int], ir.Value] = {}
        for number, step in enumerate(kernel.steps):
            if step.along == "inner":
                for lanes in (LANES, 1):
                    self._sums[number, lanes] = builder.alloca(type_of(step.kind, lanes))
            for ref in step.operands:
                if ref.what != "array":
                    for lanes in (LANES, 1):
                        self._number(ref, step.kind, lanes)

    def _number(self, ref: Ref, kind: str, lanes: int) -> Value:
        key = (ref.what, ref.number, kind, lanes)
        if key not in self._known:
            self._known[key] = in_lanes(_converted(self._numbers[ref.what][ref.number], kind), lanes)
        return self._known[key]

    def write(self) -> None:
        builder = self._builder
        lanes_end = builder.and_(self._inner, whole(-LANES))
        with loop(builder, whole(0), self._outer) as j:
            for array in self._arrays:
                array.enter_row(j)
            same = self._load_same()
            for (number, lanes), place in self._sums.items():
                step = self._kernel.steps[number]
                start = Value.constant(builder, start_of(step.name, step.kind), step.kind, lanes)
                builder.store(start.code, place)
            with loop(builder, whole(0), lanes_end, LANES) as i:
                self._write_steps(j, i, LANES, same)
            with loop(builder, lanes_end, self._inner) as i:
                self._write_steps(j, i, 1, same)
            self._finish_sums()

    def _load_same(self) -> dict[int, Value]:
        reduced = {step.target for step in self._kernel.steps if step.along}
        places = [
            p for p, array in enumerate(self._arrays) if array.operand.inner == "same" and not array.operand.chosen
        ]
        return {place: self._arrays[place].load(whole(0), 1) for place in places if place not in reduced}

    def _write_steps(self, j: ir.Value, i: ir.Value, lanes: int, same: dict[int, Value]) -> None:
        values: dict[int, Value] = {}

        def value(ref: Ref, kind: str) -> Value:
            if ref.what != "array":
                return self._number(ref, kind, lanes)
            if ref.number not in values:
                once = same.get(ref.number)
                values[ref.number] = in_lanes(once, lanes) if once else self._arrays[ref.number].load(i, lanes)
            return values[ref.number].to(kind)

        for number, step in enumerate(self._kernel.steps):
            operands = [value(ref, step.kind) for ref in step.operands]
            if step.along:
                self._reduce(number, step, operands[0], (j, i))
                continue
            target = self._arrays[step.target]
            by_number = step.name in BY_NUMBER and step.operands[1].what == "constant"
            function = (BY_NUMBER if by_number else ELEMENTWISE)[step.name]
            values[step.target] = function(*operands).to(target.operand.kind)
        for place in self._kernel.stored:
            if place in values:
                self._arrays[place].store(i, values[place])

    def _reduce(self, number: int, step: Step, value: Value, where: tuple[ir.Value, ir.Value]) -> None:
        builder, (j, i) = self._builder, where
        if step.name == "square_sum":
            value *= value
        combine = COMBINE[step.name]
        if step.along == "inner":
            place = self._sums[number, value.lanes]
            known = Value(builder, builder.load(place, typ=type_of(step.kind, value.lanes)), step.kind, value.lanes)
            builder.store(combine(known, value).code, place)
            return
        array = self._arrays[step.target]
        is_first = Value(builder, builder.icmp_signed("==", j, whole(0)), "bool")
        both = combine(array.load(i, value.lanes).to(step.kind), value)
        chosen = builder.select(is_first.code, value.code, both.code)
        array.store(i, Value(builder, chosen, step.kind, value.lanes).to(array.operand.kind))

    def _finish_sums(self) -> None:
        builder = self._builder
        for number, step in enumerate(self._kernel.steps):
            if step.along != "inner":
                continue
            vector = builder.load(self._sums[number, LANES], typ=type_of(step.kind, LANES))
            lanes = [
                Value(builder, builder.extract_element(vector, ir.Constant(ir.IntType(32), lane)), step.kind)
                for lane in range(LANES)
            ]
            while len(lanes) > 1:
                half = len(lanes) // 2
                lanes = [COMBINE[step.name](a, b) for a, b in zip(lanes[:half], lanes[half:], strict=True)]
            rest = Value(builder, builder.load(self._sums[number, 1], typ=type_of(step.kind)), step.kind)
            array = self._arrays[step.target]
            array.store(whole(0), COMBINE[step.name](lanes[0], rest).to(array.operand.kind))


def _converted(number: Value, kind: str) -> Value:
    """Return a float as a number of type ``kind``, truncated for integers."""
    return number.to(kind) if kind.startswith("float") else number.to("int64").to(kind)


def _write_draw(builder: ir.IRBuilder, arguments: Arguments) -> None:
    """Write `Device.draw`: one word a turn, and Philox4x64-10 again whenever the counter changes."""
    rows, words, address, stride = (arguments.whole() for _ in range(4))
    seed, step, first_row = arguments.whole(), arguments.whole_scalar(), arguments.whole_scalar()
    layer, purpose, start_row, row_words, first_word = (arguments.whole() for _ in range(5))
    base = builder.add(first_row, start_row)
    places = [builder.alloca(_I64) for _ in range(4)]
    with loop(builder, whole(0), rows) as j:
        row = builder.add(address, builder.mul(j, stride))
        start = builder.add(builder.mul(builder.add(base, j), row_words), first_word)
        with loop(builder, whole(0), words) as k:
            index = builder.add(start, k)
            lane = builder.and_(index, whole(3))
            fresh = builder.or_(builder.icmp_signed("==", k, whole(0)), builder.icmp_signed("==", lane, whole(0)))
            with builder.if_then(fresh):
                counter = builder.add(builder.lshr(index, whole(2)), whole(1))
                of_row = [Value(builder, code, "uint64") for code in (counter, layer, step, purpose, seed)]
                for place, word in zip(places, philox(of_row[:4], of_row[4]), strict=True):
                    builder.store(word.code, place)
            chosen = builder.load(places[3], typ=_I64)
            for number in (2, 1, 0):
                is_it = builder.icmp_signed("==", lane, whole(number))
                chosen = builder.select(is_it, builder.load(places[number], typ=_I64), chosen)
            builder.store(chosen, at(builder, builder.add(row, builder.mul(k, whole(8)))))


def _write_argmax(builder: ir.IRBuilder, arguments: Arguments, kernel: ArgMax) -> None:
    """Find, for each place of the inner loop, the first largest number along the outer; NaN is larger than any."""
    outer, inner = arguments.whole(), arguments.whole()
    values, places = (_Array(builder, arguments, ArrayOperand(kind, "next")) for kind in (kernel.kind, "int64"))
    lanes_end = builder.and_(inner, whole(-LANES))
    for lanes, start, end in ((LANES, whole(0), lanes_end), (1, lanes_end, inner)):
        place, best = builder.alloca(type_of("int64", lanes)), builder.alloca(type_of(kernel.kind, lanes))
        with loop(builder, start, end, lanes) as i:
            values.enter_row(whole(0))
            builder.store(Value.constant(builder, 0, "int64", lanes).code, place)
            builder.store(values.load(i, lanes).code, best)
            with loop(builder, whole(1), outer) as j:
                values.enter_row(j)
                value = values.load(i, lanes)
                known = Value(builder, builder.load(best, typ=type_of(kernel.kind, lanes)), kernel.kind, lanes)
                found = Value(builder, builder.load(place, typ=type_of("int64", lanes)), "int64", lanes)
                is_larger = (value > known) | (value.is_nan() & known.equals(known))
                builder.store(select(is_larger, value, known).code, best)
                here = in_lanes(Value(builder, j, "int64"), lanes)
                builder.store(select(is_larger, here, found).code, place)
            places.store(i, Value(builder, builder.load(place, typ=type_of("int64", lanes)), "int64", lanes))
