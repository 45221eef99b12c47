"""Matrix products on CUDA: which tile of `products.cuh` makes a product, and how a kernel calls it.

All tiles compute the same bits, so only speed is chosen. A block of 256 threads makes one tile. A kernel that
calls products needs ``__launch_bounds__(256, 1)``, else registers may be spilled to let more blocks run side by side.
"""

from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from mlpd.core.arithmetic.cpp import TYPES
from mlpd.core.codegen.kernels import Product

COPIES, SLABS, PRODUCTS = (
    Path(__file__).with_name(f"{name}.cuh").read_text("utf-8") for name in ("copies", "slabs", "products")
)
SOURCE = COPIES + SLABS + PRODUCTS
THREADS = 256  # of a block

UNIT = 16  # bytes that are copied at once
MOST_SHARED = 65_536  # bytes of shared memory of a block

_CHUNK = 192  # steps of the inner dimension that are summed by themselves
_WARPS, _LANES_DOWN, _LANES_ACROSS = 8, 4, 8
_PROCESSORS = 132  # of an H100
_START = 2000  # cycles before the first multiplication and after the last
_STORED = 16  # elements that a processor stores in a cycle


@dataclass(frozen=True)
class Tile:
    """A type of `products.cuh`, and about what it costs.

    Each lane of a warp has ``own_rows`` x ``own_columns`` elements. A block has ``high`` x ``wide`` warps that go
    through the inner dimension together; without these, it has eight warps that take chunks apart. A ring of ``stages``
    has ``span`` bytes of each row and column.

    ``cycles`` are those of a processor for a step of the inner dimension in float32; the warps of an ``apart`` tile
    share a processor's ``cycles`` for as many steps as there are chunks, and a warp alone takes ``alone`` cycles. So
    many blocks ``side_by_side`` have a processor's registers.
    """

    own_rows: int
    own_columns: int
    stages: int
    cycles: float
    alone: float = 0
    high: int = 0
    wide: int = 0
    span: int = 64
    side_by_side: int = 1

    @property
    def name(self) -> str:
        """Its name in C++."""
        kind, warps = ("Apart", ()) if self.apart else ("Together", (self.high, self.wide))
        numbers = self.own_rows, self.own_columns, *warps, self.span, self.stages
        return f"{kind}<{', '.join(map(str, numbers))}>"

    @property
    def apart(self) -> bool:
        """Whether each warp takes a chunk of its own."""
        return self.high == 0

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return _LANES_DOWN * self.own_rows * max(1, self.high)

    @property
    def columns(self) -> int:
        """How many columns it has."""
        return _LANES_ACROSS * self.own_columns * max(1, self.wide)

    def blocks(self, rows: int, columns: int) -> int:
        """Return how many blocks make a product of this many rows and columns."""
        return ceil(rows / self.rows) * ceil(columns / self.columns)

    def shared_bytes(self, inner: int) -> int:
        """Return the bytes of shared memory of a block."""
        return self._ring_bytes * (min(self._at_once, ceil(inner / _CHUNK)) if self.apart else 1)

    @property
    def _ring_bytes(self) -> int:
        return self.stages * self.span * (self.rows + self.columns)

    @property
    def _at_once(self) -> int:
        """How many chunks an apart tile takes at a time."""
        return min(_WARPS, MOST_SHARED // self._ring_bytes)

    def cost(self, rows: int, columns: int, inner: int) -> float:
        """Return about how many cycles a float32 product takes."""
        blocks = ceil(self.blocks(rows, columns) / _PROCESSORS)
        if not self.apart:
            return blocks * (inner * self.cycles + self.rows * self.columns / _STORED) + _START
        rounds, rest = divmod(ceil(inner / _CHUNK), self._at_once)
        at_once = [self._at_once] * rounds + [rest] * (rest > 0)
        together, others = divmod(blocks, self.side_by_side)
        groups = [self.side_by_side] * together + [others] * (others > 0)
        cycles = min(inner, _CHUNK) * sum(
            max(self.alone, self.cycles * chunks * count) for chunks in at_once for count in groups
        )
        return cycles + blocks * self.rows * self.columns / _STORED + _START


# Cycles are counted in the machine code of compute capability 9.0, where no line of a matrix is cut; not measured.
_NARROW = Tile(2, 2, stages=8, cycles=3.5, alone=16, side_by_side=2)
_LESS_NARROW = Tile(2, 4, stages=5, cycles=5, alone=20, side_by_side=2)
ODD, SQUARE = Tile(4, 5, stages=3, cycles=7.5, alone=30), Tile(4, 4, stages=4, cycles=41, high=4, wide=2)
TILES = (
    _NARROW,
    Tile(4, 4, stages=4, cycles=6.5, alone=27),
    ODD,
    Tile(2, 2, stages=4, cycles=20, high=4, wide=2),
    Tile(2, 2, stages=4, cycles=21, high=8, wide=1),
    SQUARE,
    Tile(8, 4, stages=3, cycles=79, high=4, wide=2),
    Tile(8, 8, stages=4, cycles=150, high=4, wide=2, span=32),
)


def argument_type(kind: str) -> np.dtype[Any]:
    """Return the type of ``products::ProductOf``: addresses, strides in elements, sizes and the scale."""
    matrices = [part for name in ("a", "b", "out") for part in ((name, np.uint64), (f"{name}_stride", np.int64))]
    sizes = [(name, np.int32) for name in ("rows", "columns", "inner")]
    return np.dtype([*matrices, *sizes, ("scale", kind)], align=True)


def tiles_for(kind: str) -> tuple[Tile, ...]:
    """Return the tiles that have registers enough for numbers of type ``kind``."""
    return TILES if kind == "float32" else TILES[:-2]


def tile_for(kind: str, rows: int, columns: int, inner: int) -> Tile:
    """Return the tile that makes a product fastest, as far as `Tile.cost` knows."""
    return min(tiles_for(kind), key=lambda tile: tile.cost(rows, columns, inner))


def narrow_tile(columns: int) -> Tile:
    """Return the tile of ``narrow_product``, for at most 32 columns; it has whole rows."""
    return _NARROW if columns <= _NARROW.columns else _LESS_NARROW


def call(product: Product, tile: Tile, in_units: bool, arguments: str) -> str:
    """Return the C++ expression that makes a tile of ``product``.

    ``in_units`` says that matrices which are not transposed can be copied 16 bytes at a time. ``arguments`` are a
    ``products::ProductOf``, the tile's number, a ``char*`` to shared memory, aligned to 128 bytes, and what is done
    with each element: ``load(row, column)``, of numbers in memory, and ``epilogue(row, column, value, loaded)``.
    """
    types = f"{TYPES[product.kind]}, products::{tile.name}"
    return f"products::product<{types}, {_flags(product, in_units)}>({arguments})"


def narrow_call(product: Product, columns: int, in_units: bool, arguments: str) -> str:
    """Return the C++ expression that makes rows of a ``product`` of ``columns`` columns: ``epilogue(row, values)``."""
    types = f"{TYPES[product.kind]}, products::{narrow_tile(columns).name}, {columns}"
    return f"products::narrow_product<{types}, {_flags(product, in_units)}>({arguments})"


def rows_call(product: Product, inner: int, arguments: str) -> str:
    """Return the C++ expression that makes a ``product`` of rows that a block of `narrow_call` has stored.

    They have ``inner`` numbers each. ``arguments`` are those of `call`, with the number of the narrow tile.
    """
    types = f"{TYPES[product.kind]}, products::{narrow_tile(inner).name}, {inner}"
    return f"products::rows_product<{types}, {str(product.b_inner).lower()}>({arguments})"


def _flags(product: Product, in_units: bool) -> str:
    return ", ".join(str(flag).lower() for flag in (product.a_inner, product.b_inner, product.adds, in_units))
