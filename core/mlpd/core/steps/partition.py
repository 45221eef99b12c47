"""A network in blocks, which can be worked on at the same time: of units, or of the rows of a micro-batch.

A block of units is a network of narrower layers. Its first product computes its units from all inputs. Each later one
computes partial sums for all units of the next layer, and a `Sum` adds up those of all blocks for the block's own
units: tensor parallelism (Shoeybi et al. 2019, arXiv:1909.08053, section 3), with a sum at each product but the first.
The last block has the outputs. Blocks of rows have all units, and add up their gradients: data parallelism.

The number of blocks decides the bits of a run; which threads work on them does not.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from mlpd.core.devices.arrays import Array, Device
from mlpd.core.network.layers import Affine, Layer, Linear, Sum
from mlpd.core.network.network import Weights, shapes_of, vector_size, views
from mlpd.core.optimization.state import StateVectors
from mlpd.core.plans.plan import share

Cut = tuple[slice, ...]


@dataclass(frozen=True)
class Part:
    """A layer of a block, cut from layer ``index`` of the whole network.

    Its parameters are the ``cuts`` of that layer's, from parameter ``first`` on; its statistics the ``statistic_cuts``.
    """

    layer: Layer
    index: int
    first: int = 0
    cuts: tuple[Cut, ...] = ()
    statistic_cuts: tuple[Cut, ...] = ()


def unit_parts(layers: Sequence[Layer], block: int, count: int) -> tuple[Part, ...]:
    """Return the layers of block ``block`` of ``count``; one block alone has all of ``layers``."""
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
            own = slice(*share(layer.width, block, count))
            cuts = ((slice(None), own), (own,))[: len(layer.shapes)]
            parts.append(Part(replace(layer, width=own.stop - own.start), i, 0, cuts))
        else:
            parts.append(Part(Linear(own.stop - own.start, layer.width), i, 0, ((own, slice(None)),)))
            outputs = slice(0, layer.width if block == count - 1 else 0)
            own = outputs if i == products[-1] else slice(*share(layer.width, block, count))
            biased = isinstance(layer, Affine)
            cuts = ((own,),) if biased else ()
            parts.append(Part(Sum(layer.width, own.start, own.stop - own.start, biased), i, 1, cuts))
    return tuple(parts)


def exchanged_widths(layers: Sequence[Layer], count: int) -> list[int]:
    """Return the width of each layer for which ``count`` blocks compute partial sums; none for one block."""
    return [layer.width for layer in layers if isinstance(layer, Linear)][1:] if count > 1 else []


def _part(layer: Layer, index: int, own: slice) -> Part:
    cuts = tuple((*(slice(None) for _ in shape[1:]), own) for shape in layer.shapes)
    return Part(layer, index, 0, cuts, tuple((slice(None), own) for _ in layer.statistics))


class Layout:
    """Where the parameters, or the ``statistics``, of a network are in the vectors of its blocks.

    Arrays of the network are row-major, those of blocks in ``memory_order``: "C", row-major, or "F", column-major.
    """

    def __init__(
        self, layers: Sequence[Layer], blocks: Sequence[Sequence[Part]], memory_order: str, *, statistics: bool
    ) -> None:
        self._whole = shapes_of(layers, statistics=statistics)
        self._own = [shapes_of([part.layer for part in parts], statistics=statistics) for parts in blocks]
        self._blocks, self._statistics, self._memory_order = blocks, statistics, memory_order
        self.size = vector_size(self._whole)
        self.sizes = [vector_size(shapes) for shapes in self._own]

    def join(self, vectors: Sequence[Array], whole: Array) -> None:
        """Write the blocks' ``vectors`` to ``whole``."""
        for mine, its in self._pairs(vectors, whole):
            its[...] = mine

    def split(self, whole: Array, vectors: Sequence[Array]) -> None:
        """Write each block's part of ``whole`` to ``vectors``."""
        for mine, its in self._pairs(vectors, whole):
            mine[...] = its

    def _pairs(self, vectors: Sequence[Array], whole: Array) -> Iterator[tuple[Array, Array]]:
        wholes = views(whole, self._whole)
        for parts, vector, shapes in zip(self._blocks, vectors, self._own, strict=True):
            for part, own in zip(parts, views(vector, shapes, self._memory_order), strict=True):
                cuts = part.statistic_cuts if self._statistics else part.cuts
                for j, (mine, cut) in enumerate(zip(own, cuts, strict=True)):
                    yield mine, wholes[part.index][part.first + j][cut]


class StateLayout:
    """Where the vectors of a network are in those of its blocks; a row-major device has one block, the network."""

    def __init__(self, device: Device, layers: Sequence[Layer], blocks: Sequence[Sequence[Part]]) -> None:
        self._device, self._is_whole = device, device.memory_order == "C"
        self._parameters, self._statistics = (
            Layout(layers, blocks, device.memory_order, statistics=kind) for kind in (False, True)
        )
        self.sizes = list(zip(self._parameters.sizes, self._statistics.sizes, strict=True))

    def joined(self, blocks: Sequence[StateVectors]) -> StateVectors:
        """Return the network's vectors: the block's own on a row-major device, else copies."""
        names, averages = blocks[0].moments, [own.average for own in blocks if own.average]
        return StateVectors(
            self.joined_weights([own.current for own in blocks]),
            {name: self._joined(self._parameters, [own.moments[name] for own in blocks]) for name in names},
            self.joined_weights(averages) if averages else None,
        )

    def joined_weights(self, blocks: Sequence[Weights]) -> Weights:
        """Return the network's weights, as `joined` does."""
        parameters, statistics = zip(*blocks, strict=True)
        return Weights(self._joined(self._parameters, parameters), self._joined(self._statistics, statistics))

    def split(self, whole: StateVectors, blocks: Sequence[StateVectors]) -> None:
        """Write to ``blocks`` their parts of the vectors that ``whole`` has, on the device or the host."""
        self.split_weights(whole.current, [own.current for own in blocks])
        if whole.average:
            self.split_weights(whole.average, [own.average for own in blocks if own.average])
        for name, moment in whole.moments.items():
            self._split(self._parameters, moment, [own.moments[name] for own in blocks])

    def split_weights(self, whole: Weights, blocks: Sequence[Weights]) -> None:
        """Write to ``blocks`` their parts of the weights ``whole``."""
        parameters, statistics = zip(*blocks, strict=True)
        self._split(self._parameters, whole.parameters, parameters)
        self._split(self._statistics, whole.statistics, statistics)

    def _joined(self, layout: Layout, vectors: Sequence[Array]) -> Array:
        if self._is_whole:
            return vectors[0]
        whole = np.empty(layout.size, vectors[0].dtype)
        layout.join(vectors, whole)
        return whole

    def _split(self, layout: Layout, whole: Array, vectors: Sequence[Array]) -> None:
        if self._is_whole:
            vectors[0][...] = self._device.from_host(whole)
        else:
            layout.split(whole, vectors)
