"""The shards of a run, and who works on them: this process, with others where there are several shards."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from mlpd.core.arrays import Array, Cpu, Device, HostArray
from mlpd.core.batches import RowFormat, Slate, piece_rows
from mlpd.core.examples import Examples
from mlpd.core.helpers import Helpers
from mlpd.core.scaling import Scaling
from mlpd.core.shard import Order, learn_alone, make_shards
from mlpd.core.sharding import Layout, seam_widths, shard_order, shard_parts
from mlpd.core.shared import SharedCpu, create_memory
from mlpd.core.spec import TrainingSpec


class Team:
    """All shards of a run. What is computed depends on their number, never on who computes it."""

    def __init__(self, device: Device, spec: TrainingSpec, examples: Examples) -> None:
        layers, count, form = spec.model.layers(), spec.shard_count, RowFormat.of(spec, examples)
        parts = [shard_parts(layers, number, count) for number in range(count)]
        order = shard_order(spec)
        self._layouts = [Layout(layers, parts, order, statistics=kind) for kind in (False, True)]
        self._is_whole = order == "C"
        if count > 1:
            device = SharedCpu(create_memory(self._shared_bytes(spec)), spec.blas)
        elif spec.blas != "default":
            device = Cpu(spec.blas)
        self._device = device
        self._board, self.shards = make_shards(device, spec, form)
        self._write_scaling(examples.scaling)
        self._helpers = Helpers(device, spec, self.shards, form) if isinstance(device, SharedCpu) else None

    @contextmanager
    def at_work(self, process_limit: int | None) -> Iterator[None]:
        """Have helpers in this block: they come when they are ready, and go at its end.

        Shards that are more than ``process_limit`` are all worked on by this process alone: helpers that have no
        processor only take memory, and turns from each other.
        """
        if not self._helpers:
            yield
            return
        self._helpers.start(process_limit)
        try:
            yield
        finally:
            self._helpers.stop()

    @property
    def names(self) -> list[str]:
        """Names of the vectors that there are."""
        return list(self.shards[0].vectors)

    @property
    def helped_piece_count(self) -> int:
        """How many pieces of work others have helped with; the rest were done alone."""
        return self._helpers.piece_count if self._helpers else 0

    @property
    def slates(self) -> list[Slate]:
        """Where the rows of a piece are written."""
        return self._board.slates

    @property
    def loss_sum(self) -> Array:
        """Sum of the rows' losses since it was last filled with zero, a float64 scalar on the device."""
        return self._board.loss_sum

    @property
    def correct_count(self) -> Array:
        """Number of rows that were right, likewise, an int64 scalar."""
        return self._board.correct_count

    def read(self, name: str) -> Array:
        """Return a vector of the whole network: the living one, or a copy where it lies otherwise in memory."""
        self._settle()
        vectors = [shard.vectors[name] for shard in self.shards]
        if self._is_whole:
            return vectors[0]
        layout = self._layout(name)
        whole = np.empty(layout.size, vectors[0].dtype)
        layout.join(vectors, whole)
        return whole

    def write(self, name: str, vector: HostArray) -> None:
        """Fill a vector of the whole network."""
        self._settle()
        self._layout(name).split(self._device.from_host(vector), [shard.vectors[name] for shard in self.shards])

    def learn(self, order: Order, meanwhile: Callable[[], None]) -> None:
        """Carry out ``order``; call ``meanwhile``, which may fill the other slate, once, when the loss is known."""
        if not (self._helpers and self._helpers.learn(order, meanwhile)):
            learn_alone(self.shards, order, meanwhile)

    def _write_scaling(self, scaling: Scaling) -> None:
        own, given = self._board.scaling, scaling.on(self._device)
        for array, values in ((own.shift, given.shift), (own.factor, given.factor)):
            if own.shift is not None:
                self._device.xp.multiply(values, 1, out=array)

    def _layout(self, name: str) -> Layout:
        return self._layouts[name.endswith("statistics")]

    def _settle(self) -> None:
        if self._helpers:
            self._helpers.settle()

    def _shared_bytes(self, spec: TrainingSpec) -> int:
        """Return what the shards of a run share, with room to spare: vectors, slates, scaling, seams."""
        sizes, count = spec.model.layer_sizes, spec.shard_count
        vectors = sum(sum(layout.sizes) for layout in self._layouts) * (2 + len(spec.optimizer.kind.moments))
        seams = sum(seam_widths(spec.model.layers(), count)) * (count + 1)
        slates, scaling = 2 * (sizes[0] + 3 * sizes[-1] + 4), 2 * sizes[0]
        return 8 * (vectors + scaling + piece_rows(spec) * (seams + slates)) + 2**20
