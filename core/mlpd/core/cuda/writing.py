"""Writes calls as C++ for CUDA: a function template each, whose numbers a launch gives by value.

All code is compiled without contraction, flushing or approximation, so that a step has the bits that its formula says.
"""

from mlpd.core.arithmetic.cpp import TYPES, Code, Writer, literal
from mlpd.core.arithmetic.functions import COMBINE, philox, start_of
from mlpd.core.cuda.calls import (
    LANES,
    ROWS_A_BLOCK,
    CallCode,
    DrawCode,
    PassCode,
    ProductCode,
    SumCode,
    SumsCode,
)
from mlpd.core.cuda.products import THREADS, call, narrow_call, rows_call
from mlpd.core.cuda.rows import WARP, RowSteps
from mlpd.core.cuda.steps import NumberReader, Steps

PRELUDE = """\
// All numbers of a launch, integers too, as addresses: what such a struct points to, the compiler knows to be global.
template <int COUNT> struct Numbers { char* numbers[COUNT]; };
__device__ __forceinline__ float as_number(long long bits, float) { return __int_as_float((int)bits); }
__device__ __forceinline__ double as_number(long long bits, double) { return __longlong_as_double(bits); }
template <class T> __device__ __forceinline__ T as_number(long long bits, T) { return (T)bits; }
template <class T> __device__ __forceinline__ T* at(char* address) { return (T*)address; }
"""


def write_call(name: str, code: CallCode) -> str:
    """Return the function template ``name``, called with a launch's numbers, of which its own begin ``AT`` places in.

    ``now`` are the scalars of a micro-batch, ``block`` the number of the block within the call.
    """
    writer = Writer()
    numbers = NumberReader(writer)
    match code.source:
        case ProductCode() as product:
            _write_product(writer, numbers, product, code.steps)
            if code.following:
                _write_following(writer, numbers, code.following, code.steps.columns)
        case SumsCode() as sums:
            _write_sums(writer, numbers, sums, code.steps)
        case DrawCode() as draw:
            _write_draw(writer, numbers, draw, code.steps)
        case _:
            _write_pass(writer, numbers, code.steps)
    body = "\n".join(f"    {line}" for line in writer.lines)
    return (
        "template <int AT, class N> __device__ __forceinline__\n"
        f"void {name}(const N& n, const long long* now, int block, char* shared) {{\n{body}\n}}\n"
    )


def _write_pass(writer: Writer, numbers: NumberReader, code: PassCode) -> None:
    steps = Steps(writer, numbers, code)
    if code.shape == "elements":
        _begin_element(writer, steps)
        steps.element("row", "column", {})
        return
    each = ROWS_A_BLOCK[code.shape]
    if code.shape == "narrow":
        writer.add(f"if (threadIdx.x >= {each}) return;", f"const int row = block * {each} + threadIdx.x;")
    else:
        writer.add(f"const int row = block * {each} + threadIdx.x / {WARP}, lane = threadIdx.x % {WARP};")
    writer.add(f"if (row >= {steps.rows}) return;")
    RowSteps(steps, {}).write()


def _begin_element(writer: Writer, steps: Steps) -> None:
    """Write which element a thread has, and end threads that have none."""
    writer.add(
        f"const long long element = (long long)block * {THREADS} + threadIdx.x;",
        f"if (element >= (long long){steps.rows} * {steps.columns}) return;",
        f"const int row = element / {steps.columns}, column = element % {steps.columns};",
    )


def _write_draw(writer: Writer, numbers: NumberReader, draw: DrawCode, code: PassCode) -> None:
    """Write `Device.draw`, a word a thread."""
    seed, step, first_row = numbers.next(), numbers.scalar("int64").code, numbers.scalar("int64").code
    layer, purpose, start_row, whole, first = (numbers.next() for _ in range(5))
    steps = Steps(writer, numbers, code)
    _begin_element(writer, steps)
    index = writer.value(f"({first_row} + {start_row} + row) * {whole} + {first} + column", "uint64")
    counter = writer.value(f"{index.code} / 4 + 1", "uint64")
    others = [writer.value(part, "uint64") for part in (layer, step, purpose, seed)]
    words = philox([counter, *others[:3]], others[3])
    chosen = " : ".join(f"{index.code} % 4 == {i} ? {words[i].code}" for i in range(3))
    steps.element("row", "column", {draw.target: writer.value(f"{chosen} : {words[3].code}", "uint64")})


def _write_product(writer: Writer, numbers: NumberReader, code: ProductCode, after: PassCode) -> None:
    """Write a product; each thread makes the steps for the numbers, or the rows, that it has computed."""
    product, kind = code.product, TYPES[code.product.kind]
    _declare_product(writer, numbers, code)
    steps = Steps(writer, numbers, after)
    if after.shape == "narrow":
        writer.add(f"const auto epilogue = [&](int row, const {kind} (&values)[{after.columns}]) {{")
        RowSteps(steps, {code.target: "values"}).write()
        writer.add("};", f"{narrow_call(product, after.columns, code.in_units, 'p, block, shared, epilogue')};")
    else:
        _declare_epilogue(writer, steps, code)
        writer.add(f"{call(product, code.tile, code.in_units, 'p, block, shared, load, epilogue')};")


def _write_following(writer: Writer, numbers: NumberReader, code: CallCode, inner: int) -> None:
    """Write a product of the rows that the block has just made, of ``inner`` numbers each."""
    source = code.source
    assert isinstance(source, ProductCode)
    writer.add("{")
    _declare_product(writer, numbers, source)
    _declare_epilogue(writer, Steps(writer, numbers, code.steps), source)
    writer.add(f"{rows_call(source.product, inner, 'p, block, shared, load, epilogue')};", "}")


def _declare_product(writer: Writer, numbers: NumberReader, code: ProductCode) -> None:
    """Declare ``p``, what a product is made of."""
    kind = TYPES[code.product.kind]
    matrices = ", ".join(f"at<{kind}>({numbers.address()}), {numbers.next()}" for _ in range(3))
    sizes = ", ".join(f"(int){numbers.next()}" for _ in range(3))
    scale = numbers.number(code.product.kind).code
    writer.add(f"const products::ProductOf<{kind}> p = {{{matrices}, {sizes}, {scale}}};")


def _declare_epilogue(writer: Writer, steps: Steps, code: ProductCode) -> None:
    """Declare ``load``, which reads what steps take for one element, and ``epilogue``, which makes them."""
    kinds = {place: steps.code.arrays[place].kind for place in steps.loads({code.target})}
    members = " ".join(f"{TYPES[kind]} v{place};" for place, kind in kinds.items())
    writer.add("const auto load = [&](int row, int column) {", f"struct {{ {members} }} loaded;")
    writer.add(*(f"loaded.v{place} = {steps.arrays[place].at('row', 'column')};" for place in kinds))
    writer.add("return loaded;", "};")
    kind = code.product.kind
    writer.add(f"const auto epilogue = [&](int row, int column, {TYPES[kind]} value, const auto& loaded) {{")
    loaded = {place: Code(writer, f"loaded.v{place}", kind) for place, kind in kinds.items()}
    steps.element("row", "column", {code.target: Code(writer, "value", kind), **loaded})
    writer.add("};")


def _write_sums(writer: Writer, numbers: NumberReader, code: SumsCode, after: PassCode) -> None:
    """Write sums over rows, of `LANES` lanes each, then steps by the first lane.

    A lane adds up each sixteenth number. Lanes are added in pairs, eight apart, then four and so on, and last the
    numbers that are left when those before fill all lanes alike, one by one: the order of compiled code.
    """
    rows, columns, part_rows = numbers.whole(), numbers.whole(), numbers.whole()
    places = [(numbers.address(), numbers.next(), numbers.next()) for _ in code.sums]
    steps = Steps(writer, numbers, after)
    lane, own = ("% {0}", "/ {0}") if code.along_rows else ("/ {0}", "% {0}")
    writer.add(
        f"const int lane = threadIdx.x {lane.format(LANES)}, row = block * {LANES} + threadIdx.x {own.format(LANES)};",
        f"const int part = row / {columns}, first = part * {part_rows}, column = row % {columns};",
        f"const int count = row < {steps.rows} ? min({part_rows}, {rows} - first) : 0;",
        f"const int in_lanes = count / {LANES} * {LANES};",
    )
    totals = [
        _write_sum(writer, one, place, number)
        for number, (one, place) in enumerate(zip(code.sums, places, strict=True))
    ]
    writer.add("__syncthreads();", f"if (lane || row >= {steps.rows}) return;")
    values = {}
    for one, (sums, rest) in zip(code.sums, totals, strict=True):
        lanes = [Code(writer, f"{sums}[{number}]", one.total_kind) for number in range(LANES)]
        while len(lanes) > 1:
            half = len(lanes) // 2
            lanes = [COMBINE[one.name](x, y) for x, y in zip(lanes[:half], lanes[half:], strict=True)]
        total: Code = COMBINE[one.name](lanes[0], Code(writer, rest, one.total_kind))
        values[one.target] = total.to(after.arrays[one.target].kind)
    steps.element("row", "0", values)


def _write_sum(writer: Writer, code: SumCode, place: tuple[str, str, str], number: int) -> tuple[str, str]:
    """Write what lanes add up; return the names of the lanes' sums in shared memory and of the rest."""
    kind, (address, row, column) = TYPES[code.total_kind], place
    sums, total, rest = (writer.name(prefix) for prefix in "lsr")
    start = literal(start_of(code.name, code.total_kind), code.total_kind)
    writer.add(
        f"{kind}* const {sums} = ({kind}*)(shared + {number * THREADS * 8}) + (row - block * {LANES}) * {LANES};",
        f"{kind} {total} = {start}, {rest} = {start};",
    )
    for name, header in (
        (total, f"for (int i = lane; i < in_lanes; i += {LANES}) {{"),
        (rest, "for (int i = lane ? count : in_lanes; i < count; ++i) {"),
    ):
        writer.add("#pragma unroll 4", header)
        where = f"{address} + (long long)(first + i) * {row} + (long long)column * {column}"
        value = writer.value(f"*at<const {TYPES[code.kind]}>({where})", code.kind).to(code.total_kind)
        if code.name == "square_sum":
            value *= value
        writer.add(f"{name} = {COMBINE[code.name](Code(writer, name, code.total_kind), value).code};", "}")
    writer.add(f"{sums}[lane] = {total};")
    return sums, rest
