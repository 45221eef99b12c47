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

SOURCE = "".join(Path(__file__).with_name(name).read_text("utf-8") for name in ("slabs.cuh", "products.cuh"))
THREADS = 256  # of a block

_CHUNK = 192  # steps of the inner dimension that are summed by themselves
_WARPS = 8
_MOST_SHARED = 49_152  # bytes of shared memory that any kernel may have
_SPAN = 128  # bytes of a line in a slab of a tile whose warps work apart
_PROCESSORS = 132  # of an H100
_START = 2000  # cycles before the first multiplication and after the last
_STORED = 16  # elements that a processor stores in a cycle


@dataclass(frozen=True)
class Tile:
    """A type of `products.cuh`: its name there, its ``rows`` and ``columns``, and about what it costs.

    ``cycles`` are those of a processor for a step of the inner dimension in float32; the warps of an ``apart`` tile
    share a processor's ``cycles`` for as many steps as there are chunks, and a warp alone takes ``alone`` cycles.
    """

    name: str
    rows: int
    columns: int
    cycles: float
    span: int = _SPAN
    alone: float = 0

    @property
    def apart(self) -> bool:
        """Whether each warp takes a chunk of its own."""
        return self.alone > 0

    def blocks(self, rows: int, columns: int) -> int:
        """Return how many blocks make a product of this many rows and columns."""
        return ceil(rows / self.rows) * ceil(columns / self.columns)

    def shared_bytes(self, inner: int) -> int:
        """Return the bytes of shared memory of a block."""
        line_bytes = self.span * (self.rows + self.columns)
        return line_bytes * (min(self.at_once, ceil(inner / _CHUNK)) if self.apart else 2)

    @property
    def at_once(self) -> int:
        """How many chunks an apart tile takes at a time."""
        return min(_WARPS, _MOST_SHARED // (self.span * (self.rows + self.columns)))

    def cost(self, rows: int, columns: int, inner: int) -> float:
        """Return about how many cycles a float32 product takes."""
        if self.apart:
            rounds, rest = divmod(ceil(inner / _CHUNK), self.at_once)
            steps = min(inner, _CHUNK)
            cycles = steps * (
                rounds * max(self.alone, self.cycles * self.at_once) + max(self.alone, self.cycles * rest)
            )
        else:
            cycles = inner * self.cycles
        cycles += self.rows * self.columns / _STORED
        return _START + ceil(self.blocks(rows, columns) / _PROCESSORS) * cycles


_NARROW = Tile("Apart<2, 2, 256>", 8, 16, 3.5, span=256, alone=13)
_LESS_NARROW = Tile("Apart<2, 4, 128>", 8, 32, 5, alone=16)
TILES = (
    _NARROW,
    Tile("Apart<4, 4, 128>", 16, 32, 7, alone=24),
    Tile("Apart<4, 5, 128>", 16, 40, 8.5, alone=30),
    Tile("Together<2, 2, 4, 2, 128>", 32, 32, 20),
    Tile("Together<2, 2, 8, 1, 128>", 64, 16, 21),
    Tile("Together<4, 4, 4, 2, 128>", 64, 64, 40),
    Tile("Together<8, 4, 4, 2, 64>", 128, 64, 72, span=64),
    Tile("Together<8, 8, 4, 2, 64>", 128, 128, 124, span=64),
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


def call(product: Product, tile: Tile, arguments: str) -> str:
    """Return the C++ expression that makes a tile of ``product``.

    ``arguments`` are a ``products::ProductOf``, the tile's number, a ``char*`` to shared memory, aligned to 16 bytes,
    and what is done with each element: ``epilogue(row, column, value)``.
    """
    return f"products::product<{TYPES[product.kind]}, products::{tile.name}, {_flags(product)}>({arguments})"


def narrow_call(product: Product, columns: int, arguments: str) -> str:
    """Return the C++ expression that makes rows of a ``product`` of ``columns`` columns: ``epilogue(row, values)``."""
    return f"products::narrow_product<{TYPES[product.kind]}, {columns}, {_flags(product)}>({arguments})"


def _flags(product: Product) -> str:
    return ", ".join(str(flag).lower() for flag in (product.a_inner, product.b_inner, product.adds))
