"""Products on CUDA have the bits of the CPU's kernel, whatever tile makes them, and write nothing else."""

import ctypes
from functools import partial
from itertools import product as pairs

import numpy as np
import pytest
from mlpd.core.codegen.compiler import Compiler
from mlpd.core.codegen.emitter import write_kernel
from mlpd.core.codegen.kernels import Product
from mlpd.core.cuda import products

pytestmark = pytest.mark.cuda

OPTIONS = ("--std=c++17", "-fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true")
KERNEL = """
template <class T> __global__ void __launch_bounds__(256, 1) run_{number}(const products::ProductOf<T> p) {{
    extern __shared__ __align__(16) char shared[];
    {call};
}}
"""
# Loads from ``out`` itself what was there, for nothing.
PLAIN = """[&](int row, int column) { return p.out[row * p.out_stride + column]; },
    [&](int row, int column, T value, T) { p.out[row * p.out_stride + column] = value; }"""
# Twice each value, from the last column to the first.
ROWS = """[&](int row, const T (&values)[{columns}]) {{
    for (int i = 0; i < {columns}; i++) p.out[row * p.out_stride + i] = 2 * values[{columns} - 1 - i];
}}"""
# Copies that arrive as late as they may, when a thread waits for them.
LATE = """
#include <cstring>
namespace products {
constexpr int UNIT = 16;
template <class T, int COUNT> struct alignas(COUNT * sizeof(T)) Vector { T of[COUNT]; };
struct Late { char* to; const void* from; int bytes, group; };
static Late late[256][1024];
static int waiting[256], group[256];
template <int COUNT, class T> __device__ void copy(char* to, const T* from) {
    late[threadIdx.x][waiting[threadIdx.x]++] = {to, from, (int)(COUNT * sizeof(T)), group[threadIdx.x]};
}
__device__ void end_group() { group[threadIdx.x]++; }
template <int COUNT> __device__ void arrive() {
    const int count = waiting[threadIdx.x];
    waiting[threadIdx.x] = 0;
    for (int i = 0; i < count; i++) {
        const Late one = late[threadIdx.x][i];
        if (one.group < group[threadIdx.x] - COUNT) std::memcpy(one.to, one.from, one.bytes);
        else late[threadIdx.x][waiting[threadIdx.x]++] = one;
    }
}
}  // namespace products
"""
TYPES = {"float32": "float", "float64": "double"}
# Compiling takes long: what a training step has, and no more, in float64 and for large tiles.
MAIN = [Product(kind, a, b, adds=not a) for kind in TYPES for a, b in pairs((False, True), repeat=2)]
FORMS = list(dict.fromkeys((*(Product("float32", *flags) for flags in pairs((False, True), repeat=3)), *MAIN)))
ROW_FORMS = [form for form in FORMS if form.a_inner and not form.b_inner]
EDGE, SENTINEL = 3, -77.0
UNITS = (False, True)


def tiles_of(form):
    return [tile for tile in products.tiles_for(form.kind) if form in MAIN or tile.rows < 128]


@pytest.fixture(scope="module")
def compiler():
    return Compiler(None)


def compiled(cuda, source, calls):
    """A function (form, what, in units or not) -> kernel, of ``source`` and the expressions of ``calls``."""
    texts, names = [source], {}
    for number, ((form, what, in_units), call) in enumerate(calls.items()):
        texts.append(KERNEL.format(number=number, call=call).replace("<float,", "<T,").replace("<double,", "<T,"))
        names[form, what, in_units] = f"run_{number}<{TYPES[form.kind]}>"
    module = cuda.xp.RawModule(code="".join(texts), options=OPTIONS, name_expressions=list(names.values()))

    def kernel(form, what, in_units=False):
        function = module.get_function(names[form, what, in_units])
        function.max_dynamic_shared_size_bytes = products.MOST_SHARED
        return function

    return kernel


def call_of(form, tile, in_units):
    return products.call(form, tile, in_units, f"p, blockIdx.x, shared, {PLAIN}")


@pytest.fixture(scope="module")
def kernels(cuda):
    """A function (form, tile or number of columns, in units or not) -> kernel; all are compiled at once."""
    calls = {}
    for form in FORMS:
        for tile in tiles_of(form):
            for in_units in UNITS:
                calls[form, tile, in_units] = call_of(form, tile, in_units)
        for columns in (1, 10, 17, 32) if form in ROW_FORMS else ():
            arguments = f"p, blockIdx.x, shared, {ROWS.format(columns=columns)}"
            calls[form, columns, False] = products.narrow_call(form, columns, False, arguments)
    return compiled(cuda, products.SOURCE, calls)


def expected(compiler, form, a, b, out, scale):
    """What the CPU's kernel makes of host arrays as they are in memory."""
    function = compiler.function(form, partial(write_kernel, kernel=form))
    rows, columns = out.shape
    inner = a.shape[1] if form.a_inner else a.shape[0]
    out = out.copy()
    places = [number for matrix in (a, b, out) for number in (matrix.ctypes.data, matrix.strides[0])]
    arguments = np.array([rows, columns, inner, *places, 0], np.int64)
    arguments[-1:].view(np.float64)[0] = scale
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(function)(arguments.ctypes.data, None)
    return out


def on_device(cuda, host, pad, offset):
    """A copy on the device, within sentinels: lines ``pad`` elements longer, ``offset`` elements after an alignment."""
    lines, length = host.shape
    whole = cuda.xp.full((lines + 2 * EDGE) * (length + pad) + offset, SENTINEL, dtype=host.dtype)
    grid = whole[offset:].reshape(lines + 2 * EDGE, length + pad)
    view = grid[EDGE : EDGE + lines, :length]
    view[...] = cuda.xp.asarray(host)
    return whole, view


def arguments_of(form, rows, columns, inner, matrices, scale):
    places = [part for matrix in matrices for part in (matrix.data.ptr, matrix.strides[0] // matrix.itemsize)]
    return np.array([(*places, rows, columns, inner, scale)], products.argument_type(form.kind))[0]


def check(cuda, compiler, kernel, form, what, rows, columns, inner, pad=0, offset=0, change=None, size=1.0):
    """One product on the device and by the CPU's kernel, with numbers that a seed of its own gives."""
    seed = [rows, columns, inner, pad, offset]
    random = np.random.default_rng(seed)
    a = random.standard_normal((rows, inner) if form.a_inner else (inner, rows)).astype(form.kind)
    b = random.standard_normal((columns, inner) if form.b_inner else (inner, columns)).astype(form.kind)
    if size != 1:
        a, b = abs(a) * a.dtype.type(size), -abs(b) * b.dtype.type(size)
    before = random.standard_normal((rows, columns)).astype(form.kind)
    scale = float(np.float32(-0.37))
    wholes, views = zip(*(on_device(cuda, host, pad, offset) for host in (a, b, before)), strict=True)
    sides = [cuda.xp.asnumpy(whole) for whole in wholes]
    if isinstance(what, int):
        blocks = products.narrow_tile(columns).blocks(rows, columns)
        shared = products.narrow_tile(columns).shared_bytes(inner)
    else:
        blocks, shared = what.blocks(rows, columns), what.shared_bytes(inner)
    kernel((blocks,), (products.THREADS,), (arguments_of(form, rows, columns, inner, views, scale),), shared_mem=shared)
    made = expected(compiler, form, a, b, before, scale)
    wanted = sides[2].copy()
    grid = wanted[offset:].reshape(rows + 2 * EDGE, columns + pad)
    grid[EDGE : EDGE + rows, :columns] = change(made) if change else made
    found = cuda.xp.asnumpy(wholes[2])
    assert found.tobytes() == wanted.tobytes(), f"{form} {what} {seed}: {(found != wanted).sum()} numbers differ"
    for whole, side in zip(wholes[:2], sides[:2], strict=True):
        assert cuda.xp.asnumpy(whole).tobytes() == side.tobytes()
    return made


SHAPES = [
    (1, 1, 1, 0, 0),
    (5, 3, 10, 0, 0),
    (16, 32, 191, 1, 1),
    (17, 40, 192, 0, 0),
    (130, 140, 193, 4, 0),
    (132, 68, 384, 0, 4),
    (20, 36, 784, 4, 4),
    (12, 24, 1732, 0, 0),
]


def in_whole_units(rows, columns, inner, pad, offset):
    """Whether all lines of all matrices begin and end with multiples of 16 bytes."""
    return not any(number % 4 for number in (rows, columns, inner, pad, offset))


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_every_tile_has_the_bits_of_the_cpu(cuda, compiler, kernels, form):
    for tile in tiles_of(form):
        for shape in SHAPES:
            for in_units in UNITS if in_whole_units(*shape) else (False,):
                check(cuda, compiler, kernels(form, tile, in_units), form, tile, *shape)


def test_no_copy_is_read_before_it_has_been_waited_for(cuda, compiler):
    """Elsewhere in these tests copies arrive at once, which is as early as they may: so nothing is overwritten early."""
    pytest.importorskip("cuda_on_cpu", reason="a device makes its own copies")
    keys = [(form, tile, in_units) for form in MAIN[:4] for tile in tiles_of(form) for in_units in UNITS]
    kernels = compiled(cuda, LATE + products.SLABS + products.PRODUCTS, {key: call_of(*key) for key in keys})
    for form, tile, in_units in keys:
        for shape in ((132, 68, 384, 0, 4), (20, 36, 784, 4, 4)):
            check(cuda, compiler, kernels(form, tile, in_units), form, tile, *shape)


@pytest.mark.parametrize("form", ROW_FORMS, ids=str)
def test_rows_have_the_bits_of_the_cpu(cuda, compiler, kernels, form):
    for columns, rows, inner in ((1, 1, 1), (10, 9, 532), (17, 8, 192), (32, 20, 193)):
        check(
            *(cuda, compiler, kernels(form, columns), form, columns),
            *(rows, columns, inner, 1, 1, lambda values: 2 * values[:, ::-1]),
        )


@pytest.mark.parametrize("form", [form for form in FORMS if not form.adds], ids=str)
def test_no_step_past_the_end_turns_minus_zero_into_zero(cuda, compiler, kernels, form):
    """Products of tiny numbers round to -0, and so do their sums."""
    size = {"float32": 1e-30, "float64": 1e-200}[form.kind]
    for tile in tiles_of(form):
        for inner in (1, 9, 195):
            made = check(cuda, compiler, kernels(form, tile), form, tile, 5, 3, inner, size=size)
            assert np.signbit(made).all()
            assert not made.any()


@pytest.mark.parametrize("kind", TYPES)
def test_a_tile_is_chosen_that_fills_the_processors(kind):
    assert products.tile_for(kind, 128, 532, 784).apart
    assert not products.tile_for(kind, 784, 532, 128).apart
    assert products.tile_for("float32", 512, 4096, 4096).rows == 128
