"""Writes matrix products: ``out = a @ b``, or ``out += scale * a @ b``, in one order of additions everywhere.

Each number of ``out`` is a sum of chains of fused multiply-adds along the inner dimension. A chain has up to `CHUNK`
pairs and begins at zero; chains are added to ``out`` in order. Neither the size of a tile, nor the thread, nor the
processor changes a bit.

A tile of ``out`` stays in registers while a panel of ``b`` streams from the nearest cache, where it was copied in the
order of its use (Goto and van de Geijn 2008, doi:10.1145/1356052.1356053). ``a`` is read where it is. With so few rows
that copying would take longer than it saves, ``b`` is read in place too, except the columns that fill no panel.
"""

from collections.abc import Sequence

from llvmlite import binding, ir
from mlpd.core.codegen.kernels import Product
from mlpd.core.codegen.values import Value, bytes_of, call_intrinsic, in_lanes, type_of
from mlpd.core.codegen.writing import Arguments, at, loop, whole

CHUNK = 192
_TILE_ROWS = 6
_PANELS = 8  # copied at a time
_I32, _I64 = ir.IntType(32), ir.IntType(64)


def _registers() -> tuple[int, int]:
    """Return the bytes of this processor's vector registers, and how many of them a row of a tile takes."""
    features = binding.get_host_cpu_features()
    if features.get("avx512f"):
        return 64, 4
    return (32, 2) if features.get("avx2") else (16, 4)


class ProductWriter:
    """Writes the loops over panels, chunks and tiles."""

    def __init__(self, builder: ir.IRBuilder, arguments: Arguments, product: Product) -> None:
        self._builder, self._product = builder, product
        self._rows, self._columns, self._inner = (arguments.whole() for _ in range(3))
        self._a, self._b, self._out = ((arguments.whole(), arguments.whole()) for _ in range(3))  # address, stride
        register_bytes, self._vectors = _registers()
        self._bytes = bytes_of(product.kind)
        self._lanes = register_bytes // self._bytes
        self._width = self._lanes * self._vectors
        self._vector = ir.VectorType(type_of(product.kind), self._lanes)
        self._kind = f"v{self._lanes}f{8 * self._bytes}"
        self._last_row, self._last_column = (builder.sub(n, whole(1)) for n in (self._rows, self._columns))
        if product.adds:
            self._scale = self._in_lanes(arguments.number().to(product.kind).code, product.kind)
        copied = builder.alloca(type_of(product.kind), CHUNK * _PANELS * self._width)
        copied.align = register_bytes
        self._copied = builder.ptrtoint(copied, _I64)

    def write(self) -> None:
        """Write the loops over groups of panels, chunks of the inner dimension, and tiles."""
        builder, span = self._builder, whole(_PANELS * self._width)
        copy = self._copy_transposed if self._product.b_inner else self._copy
        with loop(builder, whole(0), self._columns, _PANELS * self._width) as column:
            width = self._smaller(span, builder.sub(self._columns, column))
            in_panels = builder.sub(width, builder.srem(width, whole(self._width)))
            with loop(builder, whole(0), self._inner, CHUNK) as first:
                depth = self._smaller(whole(CHUNK), builder.sub(self._inner, first))
                copied = in_panels if self._product.in_place else whole(0), width
                copy(column, copied, first, depth)
                place = column, in_panels, width, first, depth
                if self._product.in_place:
                    is_one = builder.icmp_signed("==", self._rows, whole(1))
                    with builder.if_else(is_one) as (one, more):
                        with one:
                            self._write_rows(1, *place)
                        with more:
                            self._write_rows(_TILE_ROWS, *place)
                else:
                    self._write_rows(_TILE_ROWS, *place)

    def _write_rows(
        self,
        count: int,
        column: ir.Value,
        in_panels: ir.Value,
        width: ir.Value,
        first: ir.Value,
        depth: ir.Value,
    ) -> None:
        """Write the loops over tiles of ``count`` rows, within a group of panels and a chunk."""
        builder = self._builder
        with loop(builder, whole(0), self._rows, count) as row:
            with loop(builder, whole(0), in_panels, self._width) as lane:
                self._write_tile(row, count, column, lane, first, depth, self._vectors, None)
            with loop(builder, in_panels, width, self._lanes) as lane:
                mask = self._mask(builder.sub(width, lane))
                self._write_tile(row, count, column, lane, first, depth, 1, mask)

    def _write_tile(
        self,
        row: ir.Value,
        row_count: int,
        column: ir.Value,
        lane: ir.Value,
        first: ir.Value,
        depth: ir.Value,
        vectors: int,
        mask: ir.Value | None,
    ) -> None:
        """Write the tile of ``row_count`` rows and ``vectors`` that begins at ``row`` and at column ``column + lane``.

        ``mask`` tells which lanes are columns; None = all.
        """
        builder = self._builder
        # Rows past the end compute the last row again; it is not stored.
        rows = [self._smaller(builder.add(row, whole(i)), self._last_row) for i in range(row_count)]
        numbers = [builder.add(builder.add(column, lane), whole(j * self._lanes)) for j in range(vectors)]
        outs = [[self._number(self._out, one, number) for number in numbers] for one in rows]
        for out in (out for own in outs for out in own):
            self._fetch(out)
        panel = self._place(lane), whole(self._width * self._bytes)
        if self._product.in_place and mask is None:
            panel = self._number(self._b, first, numbers[0]), self._b[1]
        sums = self._chain(rows, panel, first, depth, vectors)
        for i, (own_outs, own) in enumerate(zip(outs, sums, strict=True)):
            with builder.if_then(builder.icmp_signed("<", builder.add(row, whole(i)), self._rows)):
                for out, total in zip(own_outs, own, strict=True):
                    self._keep(out, total, first, mask)

    def _place(self, lane: ir.Value) -> ir.Value:
        """Return where the copy of column ``lane`` of a group of panels begins; panels follow one another."""
        builder = self._builder
        in_panel = builder.srem(lane, whole(self._width))
        start = builder.mul(builder.sub(lane, in_panel), whole(CHUNK))
        return builder.add(self._copied, builder.mul(builder.add(start, in_panel), whole(self._bytes)))

    def _chain(
        self,
        rows: Sequence[ir.Value],
        panel: tuple[ir.Value, ir.Value],
        first: ir.Value,
        depth: ir.Value,
        vectors: int,
    ) -> list[list[ir.Value]]:
        """Return a chunk's sums, a list of vectors for each row; ``panel`` is (address, stride in bytes)."""
        builder, a_inner = self._builder, self._product.a_inner
        starts = [self._number(self._a, *((row, first) if a_inner else (first, row))) for row in rows]
        stride = whole(self._bytes) if a_inner else self._a[1]
        before = builder.block
        turn, after = (builder.append_basic_block(part) for part in ("turn", "summed"))
        builder.branch(turn)
        builder.position_at_end(turn)
        k = builder.phi(_I64)
        sums = [[builder.phi(self._vector) for _ in range(vectors)] for _ in rows]
        line = builder.add(panel[0], builder.mul(k, panel[1]))
        bs = [self._load(builder.add(line, whole(j * self._lanes * self._bytes))) for j in range(vectors)]
        offset = builder.mul(k, stride)
        for start, own in zip(starts, sums, strict=True):
            number = builder.load(at(builder, builder.add(start, offset)), typ=self._vector.element, align=self._bytes)
            a = self._in_lanes(number, self._product.kind)
            for b, total in zip(bs, own, strict=True):
                total.add_incoming(ir.Constant(self._vector, [0.0] * self._lanes), before)
                total.add_incoming(call_intrinsic(builder, f"llvm.fma.{self._kind}", self._vector, [a, b, total]), turn)
        following = builder.add(k, whole(1))
        k.add_incoming(whole(0), before)
        k.add_incoming(following, turn)
        builder.cbranch(builder.icmp_signed("<", following, depth), turn, after)
        builder.position_at_end(after)
        return [[total.incomings[1][0] for total in own] for own in sums]

    def _keep(self, address: ir.Value, total: ir.Value, first: ir.Value, mask: ir.Value | None) -> None:
        """Add a chunk's sums to ``out``, or write them if there is nothing yet."""
        builder = self._builder
        if self._product.adds:
            total = builder.fmul(self._scale, total)
        both = builder.fadd(self._load(address, mask=mask), total)
        if not self._product.adds:
            both = builder.select(builder.icmp_signed("==", first, whole(0)), total, both)
        self._store(both, address, mask)

    def _copy(self, column: ir.Value, lanes: tuple[ir.Value, ir.Value], first: ir.Value, depth: ir.Value) -> None:
        """Fill panels with a chunk of a row-major ``b``, from the first to before the second of ``lanes``."""
        builder, (start, end) = self._builder, lanes
        with loop(builder, start, end, self._lanes) as lane:
            mask = self._mask(builder.sub(end, lane))
            source = self._number(self._b, first, builder.add(column, lane))
            into = self._place(lane)
            with loop(builder, whole(0), depth) as k:
                vector = self._load(builder.add(source, builder.mul(k, self._b[1])), mask=mask)
                self._store(vector, builder.add(into, builder.mul(k, whole(self._width * self._bytes))))

    def _copy_transposed(
        self, column: ir.Value, lanes: tuple[ir.Value, ir.Value], first: ir.Value, depth: ir.Value
    ) -> None:
        """Fill panels with a chunk of a column-major ``b``, from the first to before the second of ``lanes``."""
        builder, (start, end) = self._builder, lanes
        with loop(builder, start, end, self._lanes) as lane:
            into = self._place(lane)
            numbers = [builder.add(builder.add(column, lane), whole(i)) for i in range(self._lanes)]
            lines = [self._number(self._b, self._smaller(number, self._last_column), first) for number in numbers]
            with loop(builder, whole(0), depth, self._lanes) as k:
                mask, offset = self._mask(builder.sub(depth, k)), builder.mul(k, whole(self._bytes))
                square = [self._load(builder.add(line, offset), mask=mask) for line in lines]
                line = builder.add(into, builder.mul(k, whole(self._width * self._bytes)))
                for i, vector in enumerate(self._transposed(square)):
                    self._store(vector, builder.add(line, whole(i * self._width * self._bytes)))

    def _transposed(self, square: list[ir.Value]) -> list[ir.Value]:
        """Return the columns of a square matrix, given its rows: swaps ever smaller blocks across the diagonal."""
        lanes, half = self._lanes, self._lanes // 2
        while half:
            low = [lane + lanes - half if lane & half else lane for lane in range(lanes)]
            high = [lane + lanes if lane & half else lane + half for lane in range(lanes)]
            for i in (i for i in range(lanes) if not i & half):
                pair = square[i], square[i + half]
                square[i], square[i + half] = self._shuffled(*pair, low), self._shuffled(*pair, high)
            half //= 2
        return square

    def _shuffled(self, a: ir.Value, b: ir.Value, order: Sequence[int]) -> ir.Value:
        return self._builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_I32, len(order)), list(order)))

    def _in_lanes(self, number: ir.Value, kind: str) -> ir.Value:
        return in_lanes(Value(self._builder, number, kind), self._lanes).code

    def _mask(self, count: ir.Value) -> ir.Value:
        """Return a vector that is true in the first ``count`` lanes."""
        numbers = ir.Constant(ir.VectorType(_I64, self._lanes), list(range(self._lanes)))
        return self._builder.icmp_signed("<", numbers, self._in_lanes(count, "int64"))

    def _number(self, matrix: tuple[ir.Value, ir.Value], line: ir.Value, number: ir.Value) -> ir.Value:
        """Return the address of element ``number`` of line ``line`` of ``matrix``, an (address, stride in bytes)."""
        builder, (start, line_bytes) = self._builder, matrix
        offset = builder.add(builder.mul(line, line_bytes), builder.mul(number, whole(self._bytes)))
        return builder.add(start, offset)

    def _smaller(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self._builder.select(self._builder.icmp_signed("<", a, b), a, b)

    def _load(self, address: ir.Value, mask: ir.Value | None = None) -> ir.Value:
        if mask is None:
            return self._builder.load(at(self._builder, address), typ=self._vector, align=self._bytes)
        zeros = ir.Constant(self._vector, [0.0] * self._lanes)
        place = at(self._builder, address), ir.Constant(_I32, self._bytes)
        name = f"llvm.masked.load.{self._kind}.p0"
        return call_intrinsic(self._builder, name, self._vector, [*place, mask, zeros])

    def _fetch(self, address: ir.Value) -> None:
        """Prefetch what is at ``address``, to be written to."""
        write, near, data = 1, 3, 1
        operands = [at(self._builder, address), *(ir.Constant(_I32, number) for number in (write, near, data))]
        call_intrinsic(self._builder, "llvm.prefetch.p0", ir.VoidType(), operands)

    def _store(self, vector: ir.Value, address: ir.Value, mask: ir.Value | None = None) -> None:
        place = at(self._builder, address), ir.Constant(_I32, self._bytes)
        if mask is None:
            self._builder.store(vector, place[0], align=self._bytes)
        else:
            name = f"llvm.masked.store.{self._kind}.p0"
            call_intrinsic(self._builder, name, ir.VoidType(), [vector, *place, mask])
