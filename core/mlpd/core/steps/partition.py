"""A network in blocks, which can be worked on at the same time: of units, or of the rows of a micro-batch.

Blocks of units are networks of narrower layers themselves. A block's first layer makes its units from all inputs; a
later one gives to all units of the next layer what comes from its own, and a `Sum` adds up for its units what all
blocks give: tensor parallelism (Shoeybi et al. 2019, arXiv:1909.08053, section 3), with a sum before each hidden layer.
The last block has the outputs. Blocks of rows have all units, and sum up their gradients: data parallelism.

How many blocks there are decides the bits of a run; who works on them does not.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from mlpd.core.devices.arrays import Array, Device
from mlpd.core.execution.plan import share
from mlpd.core.network.layers import Affine, Layer, Linear, Sum
from mlpd.core.network.network import Weights, shapes_of, vector_size, views
from mlpd.core.optimization.state import StateVectors

Cut = tuple[slice, ...]


@dataclass(frozen=True)
class Part:
    """A layer of a block; its arrays are those of the whole network's layer ``index``, from ``first`` on, cut."""

    layer: Layer
    index: int
    first: int = 0
    cuts: tuple[Cut, ...] = ()
    statistic_cuts: tuple[Cut, ...] = ()


def unit_parts(layers: Sequence[Layer], block: int, count: int) -> tuple[Part, ...]:
    """Return what block number ``block`` of ``count`` has of ``layers``: everything, if it is alone."""
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
    """Return how many units blocks give partial sums for, at each place where they do."""
    return [layer.width for layer in layers if isinstance(layer, Linear)][1:] if count > 1 else []


def _part(layer: Layer, index: int, own: slice) -> Part:
    cuts = tuple((*(slice(None) for _ in shape[1:]), own) for shape in layer.shapes)
    return Part(layer, index, 0, cuts, tuple((slice(None), own) for _ in layer.statistics))


class Layout:
    """How vectors of a whole network, of parameters or of statistics, are laid out in vectors of its blocks.

    These have their arrays in ``order``, column after column or row after row.
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
        """Write to ``whole`` what the blocks have."""
        for mine, its in self._pairs(vectors, whole):
            its[...] = mine

    def split(self, whole: Array, vectors: Sequence[Array]) -> None:
        """Write to ``vectors`` what the blocks have of ``whole``."""
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
    """How the vectors of a run lie in those of its blocks; a device that has them row by row has one block."""

    def __init__(self, device: Device, layers: Sequence[Layer], blocks: Sequence[Sequence[Part]]) -> None:
        self._device, self._is_whole = device, device.memory_order == "C"
        self._parameters, self._statistics = (
            Layout(layers, blocks, device.memory_order, statistics=kind) for kind in (False, True)
        )
        self.sizes = list(zip(self._parameters.sizes, self._statistics.sizes, strict=True))

    def joined(self, blocks: Sequence[StateVectors]) -> StateVectors:
        """Return the vectors of the whole network: the living ones, or copies where they lie otherwise in memory."""
        names, averages = blocks[0].moments, [own.average for own in blocks if own.average]
        return StateVectors(
            self.joined_weights([own.current for own in blocks]),
            {name: self._joined(self._parameters, [own.moments[name] for own in blocks]) for name in names},
            self.joined_weights(averages) if averages else None,
        )

    def joined_weights(self, blocks: Sequence[Weights]) -> Weights:
        """Return the weights of the whole network, as `joined`."""
        parameters, statistics = zip(*blocks, strict=True)
        return Weights(self._joined(self._parameters, parameters), self._joined(self._statistics, statistics))

    def split(self, whole: StateVectors, blocks: Sequence[StateVectors]) -> None:
        """Write to the vectors of ``blocks`` what they have of those that ``whole`` has, on the device or the host."""
        self.split_weights(whole.current, [own.current for own in blocks])
        if whole.average:
            self.split_weights(whole.average, [own.average for own in blocks if own.average])
        for name, moment in whole.moments.items():
            self._split(self._parameters, moment, [own.moments[name] for own in blocks])

    def split_weights(self, whole: Weights, blocks: Sequence[Weights]) -> None:
        """Write to the weights of ``blocks`` what they have of ``whole``."""
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
