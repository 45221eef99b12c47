"""A network cut into shards: each has some units of every hidden layer, and is a network of narrower layers itself.

A shard's first layer makes its units from all inputs; a later one gives to all units of the next layer what comes from
its own, and a `Sum` adds up for its units what all shards give. So weights are never shared, only rows are: Shoeybi et
al. 2019 (arXiv:1909.08053), section 3, with a sum before each hidden layer. The last shard has the outputs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from mlpd.core.architecture import ModelSpec
from mlpd.core.arrays import Array
from mlpd.core.batches import piece_rows
from mlpd.core.blas import mkl_path
from mlpd.core.layers import Affine, Layer, Linear, Sum
from mlpd.core.network import shapes_of, vector_size, views
from mlpd.core.spec import TrainingSpec

Cut = tuple[slice, ...]

_SHARD_LIMIT = 64
_SHARD_WORK = 8_000_000  # floating-point operations of a piece of work


@dataclass(frozen=True)
class Part:
    """A layer of a shard; its arrays are those of the whole network's layer ``index``, from ``first`` on, cut."""

    layer: Layer
    index: int
    first: int = 0
    cuts: tuple[Cut, ...] = ()
    statistic_cuts: tuple[Cut, ...] = ()


def largest_shard_count(model: ModelSpec, device: str) -> int:
    """Return into how many shards a network can be cut: each needs a unit of every hidden layer.

    Layer normalisation looks at all units of a row, and a GPU works on many at a time by itself.
    """
    if device != "cpu" or model.normalization == "layer":
        return 1
    return max(1, min((_SHARD_LIMIT, *model.layer_sizes[1:-1]))) if model.layer_sizes[2:] else 1


def multiplying_threads(spec: TrainingSpec, thread_count: int) -> int:
    """Return how many of a run's threads multiply: all but the one that augments, for they get in each other's way."""
    return max(1, thread_count - (spec.augmentation is not None))


def spreads_products(spec: TrainingSpec) -> bool:
    """Return whether a product may be shared by threads: where shards or a GPU multiply, one does on the host.

    Images are warped on the host for a GPU too.
    """
    return spec.shard_count == 1 and (spec.device == "cpu" or spec.augmentation is not None)


def best_shard_count(spec: TrainingSpec, thread_count: int) -> int:
    """Return how many shards are worth their waiting for each other, for as many threads."""
    rows = min(spec.rows_per_step, piece_rows(spec))
    work = 6 * rows * sum(inputs * width for inputs, width in pairwise(spec.model.layer_sizes))
    threads = multiplying_threads(spec, thread_count)
    return max(1, min(threads, work // _SHARD_WORK, largest_shard_count(spec.model, spec.device)))


def best_blas(spec: TrainingSpec, thread_count: int) -> str:
    """Return the library that multiplies fastest where each shard has one thread: oneMKL, if someone installed it."""
    one_each = spec.shard_count > 1 or multiplying_threads(spec, thread_count) == 1
    return "mkl" if one_each and spec.device == "cpu" and mkl_path() else "default"


def share(width: int, shard: int, count: int) -> tuple[int, int]:
    """Return the first unit of ``width`` that is the shard's, and the first that is not any more."""
    return width * shard // count, width * (shard + 1) // count


def shard_parts(layers: Sequence[Layer], shard: int, count: int) -> tuple[Part, ...]:
    """Return what number ``shard`` of ``count`` has of ``layers``: everything, if it is alone."""
    if count == 1:
        return tuple(_part(layer, i, slice(None)) for i, layer in enumerate(layers))
    products = [i for i, layer in enumerate(layers) if isinstance(layer, Linear)]
    parts: list[Part] = []
    own = slice(0)
    for i, layer in enumerate(layers):
        if i < products[0]:
            parts.append(Part(layer, i))
        elif not isinstance(layer, Linear):
            parts.append(_part(layer.columns(own.start, own.stop), i, own))
        elif i == products[0]:
            own = slice(*share(layer.width, shard, count))
            cuts = ((slice(None), own), (own,))[: len(layer.shapes)]
            parts.append(Part(replace(layer, width=own.stop - own.start), i, 0, cuts))
        else:
            parts.append(Part(Linear(own.stop - own.start, layer.width), i, 0, ((own, slice(None)),)))
            outputs = slice(0, layer.width if shard == count - 1 else 0)
            own = outputs if i == products[-1] else slice(*share(layer.width, shard, count))
            biased = isinstance(layer, Affine)
            cuts = ((own,),) if biased else ()
            parts.append(Part(Sum(layer.width, own.start, own.stop - own.start, biased), i, 1, cuts))
    return tuple(parts)


def seam_widths(layers: Sequence[Layer], count: int) -> list[int]:
    """Return how many units shards give to at each seam."""
    return [layer.width for layer in layers if isinstance(layer, Linear)][1:] if count > 1 else []


def _part(layer: Layer, index: int, own: slice) -> Part:
    cuts = tuple((*(slice(None) for _ in shape[1:]), own) for shape in layer.shapes)
    return Part(layer, index, 0, cuts, tuple((slice(None), own) for _ in layer.statistics))


class Layout:
    """How vectors of a whole network, of parameters or of statistics, are laid out in vectors of its shards.

    These have their arrays in ``order``, column after column or row after row.
    """

    def __init__(
        self, layers: Sequence[Layer], shards: Sequence[Sequence[Part]], order: str, *, statistics: bool
    ) -> None:
        self._whole = shapes_of(layers, statistics=statistics)
        self._own = [shapes_of([part.layer for part in parts], statistics=statistics) for parts in shards]
        self._shards, self._statistics, self._order = shards, statistics, order
        self.size = vector_size(self._whole)
        self.sizes = [vector_size(shapes) for shapes in self._own]

    def join(self, vectors: Sequence[Array], whole: Array) -> None:
        """Write to ``whole`` what the shards have."""
        for mine, its in self._pairs(vectors, whole):
            its[...] = mine

    def split(self, whole: Array, vectors: Sequence[Array]) -> None:
        """Write to ``vectors`` what the shards have of ``whole``."""
        for mine, its in self._pairs(vectors, whole):
            mine[...] = its

    def _pairs(self, vectors: Sequence[Array], whole: Array) -> Iterator[tuple[Array, Array]]:
        wholes = views(whole, self._whole)
        for parts, vector, shapes in zip(self._shards, vectors, self._own, strict=True):
            for part, own in zip(parts, views(vector, shapes, self._order), strict=True):
                cuts = part.statistic_cuts if self._statistics else part.cuts
                for j, (mine, cut) in enumerate(zip(own, cuts, strict=True)):
                    yield mine, wholes[part.index][part.first + j][cut]


def shard_order(spec: TrainingSpec) -> str:
    """Return how a shard's arrays lie in memory: by columns where several work, or for oneMKL, which is faster so."""
    return "F" if spec.shard_count > 1 or spec.blas == "mkl" else "C"
