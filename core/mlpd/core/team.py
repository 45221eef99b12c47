"""The shards of a run, and who works on them: this process, with others where there are several shards."""

from collections.abc import Callable

import numpy as np
from mlpd.core.architecture import parameter_count, statistic_count
from mlpd.core.arrays import Array, Device, HostArray
from mlpd.core.batches import Slate, piece_rows
from mlpd.core.helpers import Helpers
from mlpd.core.shard import Order, learn_alone, make_shards
from mlpd.core.sharding import Layout, seam_widths
from mlpd.core.shared import SharedCpu, create_memory
from mlpd.core.spec import TrainingSpec


class Team:
    """All shards of a run. What is computed depends on their number, never on who computes it.

    Use it in a ``with`` block while it learns: helpers come when they are ready, and go at its end.
    """

    def __init__(self, device: Device, spec: TrainingSpec, *, weighted: bool) -> None:
        if spec.shard_count > 1:
            device = SharedCpu(create_memory(shared_bytes(spec)))
        self._device = device
        self._board, self.shards = make_shards(device, spec, weighted=weighted)
        parts = [shard.parts for shard in self.shards]
        self._layouts = [Layout(spec.model.layers(), parts, statistics=statistics) for statistics in (False, True)]
        self._helpers = Helpers(device, spec, self.shards, weighted=weighted) if isinstance(device, SharedCpu) else None

    def __enter__(self) -> None:
        if self._helpers:
            self._helpers.start()

    def __exit__(self, *_: object) -> None:
        if self._helpers:
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
        """Return a vector of the whole network: the living one, or a copy where there are several shards."""
        self._settle()
        vectors = [shard.vectors[name] for shard in self.shards]
        if len(vectors) == 1:
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

    def _layout(self, name: str) -> Layout:
        return self._layouts[name.endswith("statistics")]

    def _settle(self) -> None:
        if self._helpers:
            self._helpers.settle()


def shared_bytes(spec: TrainingSpec) -> int:
    """Return what the shards of a run share, with room to spare: vectors, slates, seams."""
    layers, sizes = spec.model.layers(), spec.model.layer_sizes
    vectors = 2 * (parameter_count(layers) + statistic_count(layers)) * (2 + len(spec.optimizer.kind.moments))
    seams = sum(seam_widths(layers, spec.shard_count)) * (spec.shard_count + 1)
    slates = 2 * (sizes[0] + 3 * sizes[-1] + 4)
    return 8 * (vectors + piece_rows(spec) * (seams + slates)) + 2**20
