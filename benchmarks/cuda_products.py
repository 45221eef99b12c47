"""How long each tile of `mlpd.core.cuda.products` takes on this machine's GPU, beside cuBLAS. Needs CuPy.

Usage: python benchmarks/cuda_products.py [--tiny]

Times are medians, in microseconds a launch, of graphs of 20 launches; cuBLAS, which CuPy does not capture, is launched
20 times while the GPU still waits. A star marks the tile that would be chosen. A result that has not the digest of the
CPU's kernel is told.
"""

import statistics
import sys
import time
import zlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import cupy
import numpy as np
from mlpd.core.codegen.kernels import Product
from mlpd.core.cuda import products
from mlpd.core.cuda.compiler import OPTIONS
from mlpd.core.cuda.products import Tile

LAUNCHES, ROUNDS, SECONDS = 20, 50, 0.1  # of a graph; at most, and for about so long
KERNEL = """
extern "C" __global__ void __launch_bounds__(256, 1) run(const products::ProductOf<float> p) {{
    extern __shared__ __align__(16) char shared[];
    {call};
}}
"""
WAIT = """
extern "C" __global__ void wait(long long cycles) {
    for (const long long begin = clock64(); clock64() - begin < cycles;) {}
}
"""
WAITED = 1_000_000  # cycles, for the host to launch in
ELEMENT = """[](int, int) { return 0; },
    [&](int row, int column, float value, int) { p.out[row * p.out_stride + column] = value; }"""
ROW = """[&](int row, const float (&values)[{columns}]) {{
    for (int i = 0; i < {columns}; i++) p.out[row * p.out_stride + i] = values[i];
}}"""
# Also measured: deeper rings, and slabs half or twice as deep.
CANDIDATES = (
    Tile(4, 5, stages=2, cycles=7.5, alone=30, span=128),
    Tile(4, 5, stages=6, cycles=7.5, alone=30, span=32),
    Tile(4, 4, stages=2, cycles=6.5, alone=27, span=128),
    Tile(4, 4, stages=6, cycles=41, high=4, wide=2),
    Tile(4, 4, stages=3, cycles=41, high=4, wide=2, span=128),
    Tile(8, 8, stages=3, cycles=150, high=4, wide=2, span=64),
)
MOST = 3  # times what the chosen tile takes: others are not worth a try
FORWARD, BACKWARD, UPDATE = (
    Product("float32", *flags) for flags in ((True, False, False), (True, True, False), (False, False, True))
)


class KernelOf(NamedTuple):
    """What a kernel is compiled for; ``columns`` is zero, or that of the rows that are wanted."""

    form: Product
    columns: int
    in_units: bool


class Case(NamedTuple):
    """A product: its form and sizes, and the digest of what the CPU makes; ``narrow`` if whole rows are wanted."""

    form: Product
    rows: int
    columns: int
    inner: int
    digest: str
    narrow: bool = False

    @property
    def in_units(self) -> bool:
        """Whether what is not transposed can be copied 16 bytes at a time; memory of CuPy's is aligned."""
        form = self.form
        return not ((0 if form.a_inner else self.rows % 4) or (0 if form.b_inner else self.columns % 4))

    @property
    def kernel(self) -> KernelOf:
        """What its kernels are compiled for."""
        return KernelOf(self.form, self.columns if self.narrow else 0, self.in_units)

    @property
    def tiles(self) -> tuple[Tile, ...]:
        """The tiles worth a try: not those that would take far longer than the best."""
        if self.narrow:
            return (products.narrow_tile(self.columns),)
        sizes = self.rows, self.columns, self.inner
        most = MOST * products.tile_for("float32", *sizes).cost(*sizes)
        tiles = (*products.tiles_for("float32"), *CANDIDATES)
        return tuple(tile for tile in tiles if tile.cost(*sizes) <= most)


def of_batch(rows: int, digests: str) -> list[Case]:
    """Return the products of a training step of 784-532-10."""
    digest = digests.split()
    return [
        Case(FORWARD, rows, 532, 784, digest[0]),
        Case(FORWARD, rows, 10, 532, digest[1], narrow=True),
        Case(BACKWARD, rows, 532, 10, digest[2]),
        Case(UPDATE, 784, 532, rows, digest[3]),
        Case(UPDATE, 532, 10, rows, digest[4]),
    ]


WIDE = [
    Case(FORWARD, 512, 4096, 4096, "88f1db1e"),
    Case(BACKWARD, 512, 4096, 4096, "46742038"),
    Case(UPDATE, 4096, 4096, 512, "c79217bf"),
]
LONG = [
    Case(FORWARD, 60_000, 532, 784, "cbf443be"),
    Case(FORWARD, 60_000, 10, 532, "f92683b8", narrow=True),
]
CASES = [
    *of_batch(128, "cdc3804e 7b2aaa02 58eaf386 ad336ad6 77769573"),
    *WIDE,
    *of_batch(32, "3b628d7d 468ae66b b0fdd23c 6258c52d 4cb8c9ae"),
    *of_batch(1024, "b22f3c0e 1d631a54 06753aef 5f7e4b7c 68dde3b4"),
    *LONG,
]
TINY = [
    case._replace(rows=9, columns=min(case.columns, 20), inner=40)
    for case in of_batch(9, "298cbbf5 80946c3d 2d71e9a5 6fe89827 1d0beb77")
]


def kernel_of(what: KernelOf, tile: Tile) -> Any:
    """Compile a kernel of one product."""
    form, columns, in_units = what
    start = "p, blockIdx.x, shared, "
    if columns:
        call = products.narrow_call(form, columns, in_units, start + ROW.format(columns=columns))
    else:
        call = products.call(form, tile, in_units, start + ELEMENT)
    module = cupy.RawModule(code=products.SOURCE + KERNEL.format(call=call), options=OPTIONS)
    function = module.get_function("run")
    function.max_dynamic_shared_size_bytes = products.MOST_SHARED
    return function


def microseconds_of(launch: Callable[[], object], in_graph: bool = True) -> float:
    """Return the median time of a launch."""
    launch()
    stream = cupy.cuda.get_current_stream()

    def many() -> None:
        for _ in range(LAUNCHES):
            launch()

    replay = many
    if in_graph:
        stream.begin_capture()
        many()
        replay = stream.end_capture().launch
        replay()
    wait = cupy.RawKernel(WAIT, "wait")
    begin, end = cupy.cuda.Event(), cupy.cuda.Event()
    times: list[float] = []
    until = time.perf_counter() + SECONDS
    while len(times) < ROUNDS and (len(times) < 3 or time.perf_counter() < until):
        wait((1,), (1,), (0 if in_graph else WAITED,))
        begin.record(stream)
        replay()
        end.record(stream)
        end.synchronize()
        times.append(cupy.cuda.get_elapsed_time(begin, end) * 1000 / LAUNCHES)
    return statistics.median(times)


def fractions(lines: int, length: int) -> Any:
    """Return fixed numbers (lines, length) between -1 and 1, the same on any processor."""
    return ((cupy.arange(lines * length) * 7919 % 4001 - 2000) / 2048).astype(cupy.float32).reshape(lines, length)


class Run:
    """A case's matrices, and what to do with them."""

    def __init__(self, case: Case) -> None:
        self._case, form = case, case.form
        a = fractions(*((case.rows, case.inner) if form.a_inner else (case.inner, case.rows)))
        b = fractions(*((case.columns, case.inner) if form.b_inner else (case.inner, case.columns)))
        self._out = cupy.zeros((case.rows, case.columns), cupy.float32)
        self._matrices = a, b
        self._a, self._b = (a if form.a_inner else a.T), (b.T if form.b_inner else b)
        places = [part for m in (a, b, self._out) for part in (m.data.ptr, m.strides[0] // m.itemsize)]
        sizes = case.rows, case.columns, case.inner
        self._arguments = np.array([(*places, *sizes, -0.25)], products.argument_type("float32"))[0]

    def launch(self, kernel: Any, tile: Tile) -> None:
        """Make the product once."""
        case = self._case
        shared = (
            products.narrow_tile(case.columns).shared_bytes(case.inner)
            if case.narrow
            else tile.shared_bytes(case.inner)
        )
        blocks = tile.blocks(case.rows, case.columns)
        kernel((blocks,), (products.THREADS,), (self._arguments,), shared_mem=shared)

    def digest(self, kernel: Any, tile: Tile) -> str:
        """Return a digest of the product, added to zeros if it adds."""
        self._out.fill(0)
        self.launch(kernel, tile)
        return f"{zlib.crc32(cupy.asnumpy(self._out).tobytes()):08x}"

    def cublas(self) -> None:
        """Make the product by cuBLAS; it is not added to anything."""
        cupy.matmul(self._a, self._b, out=self._out)


def report(name: str, case: Case, tile: str, microseconds: float, note: str) -> None:
    """Print a line of the table."""
    rate = 2e-6 * case.rows * case.columns * case.inner / microseconds
    print(f"{name:<28} {tile:<24} {microseconds:9.2f} us {rate:7.2f} TFLOP/s  {note}", flush=True)


def measure(case: Case, kernels: dict[tuple[KernelOf, Tile], "Future[Any]"]) -> None:
    """Measure a case's tiles and cuBLAS."""
    form = case.form
    what = {FORWARD: "forward", BACKWARD: "backward", UPDATE: "update"}[form]
    name = f"{what} {case.rows} x {case.columns} x {case.inner}"
    run = Run(case)
    chosen = products.tile_for("float32", case.rows, case.columns, case.inner)
    for tile in case.tiles:
        try:
            kernel = kernels[case.kernel, tile].result()
            digest = run.digest(kernel, tile)
            microseconds = microseconds_of(lambda kernel=kernel, tile=tile: run.launch(kernel, tile))  # type: ignore[misc]
            marks = ("*" if case.narrow or tile == chosen else " ") + (
                "" if digest == case.digest else f" IS {digest}, NOT {case.digest}"
            )
            report(name, case, ("rows " if case.narrow else "") + tile.name, microseconds, marks)
        except Exception as error:  # noqa: BLE001 - the others are still measured
            print(f"{name:<28} {tile.name:<24} failed: {error}", flush=True)
    try:
        report(name, case, "cuBLAS", microseconds_of(run.cublas, in_graph=False), "")
    except Exception as error:  # noqa: BLE001 - the others are still measured
        print(f"{name:<28} cuBLAS failed: {error}", flush=True)


def main(cases: list[Case]) -> None:
    """Compile side by side, then measure one after another."""
    started = time.perf_counter()
    print(cupy.cuda.runtime.getDeviceProperties(0)["name"].decode(), "cupy", cupy.__version__, flush=True)
    with ThreadPoolExecutor(8) as pool:
        kernels: dict[tuple[KernelOf, Tile], Future[Any]] = {}
        for case in cases:
            for tile in case.tiles:
                key = case.kernel, tile
                if key not in kernels:
                    kernels[key] = pool.submit(kernel_of, *key)
    print(f"compiled after {time.perf_counter() - started:.1f} s", flush=True)
    with cupy.cuda.Stream():
        for case in cases:
            measure(case, kernels)
    print(f"{time.perf_counter() - started:.1f} s in all", flush=True)


if __name__ == "__main__":
    main(TINY if "--tiny" in sys.argv else CASES)
