"""The vectors that training changes: the current weights, their average, the best so far, and moments."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from mlpd.core.devices.arrays import Array
from mlpd.core.network.network import Change, Weights

_AVERAGE, _BEST, _MOMENT = "average.", "best.", "moment."


@dataclass(frozen=True)
class StateVectors:
    """All vectors of a run, or of one block; ``average`` and ``best`` are None unless a run keeps them.

    ``moments`` are the optimizer's by name, each as long as the parameters.
    """

    current: Weights
    moments: Mapping[str, Array]
    average: Weights | None = None
    best: Weights | None = None

    @property
    def scored(self) -> Weights:
        """The weights that are validated: the average or, without one, the current ones."""
        return self.average or self.current

    def map(self, change: Change) -> "StateVectors":
        """Return what ``change`` makes of each vector."""
        return StateVectors(
            self.current.map(change),
            {name: change(moment) for name, moment in self.moments.items()},
            self.average and self.average.map(change),
            self.best and self.best.map(change),
        )

    def part(self, cut: slice) -> "StateVectors":
        """Return the ``cut`` of current and average parameters and of moments; statistics and the best stay whole."""

        def of(weights: Weights) -> Weights:
            return weights._replace(parameters=weights.parameters[cut])

        moments = {name: moment[cut] for name, moment in self.moments.items()}
        return replace(self, current=of(self.current), moments=moments, average=self.average and of(self.average))

    def named(self) -> dict[str, Array]:
        """Return the vectors that are not empty, by their names in files."""
        groups = {"": self.current, _AVERAGE: self.average, _BEST: self.best}
        named = {
            prefix + name: vector
            for prefix, weights in groups.items()
            if weights
            for name, vector in weights._asdict().items()
        }
        named |= {_MOMENT + name: moment for name, moment in self.moments.items()}
        return {name: vector for name, vector in named.items() if len(vector)}

    @classmethod
    def from_named(cls, vectors: Mapping[str, Array]) -> "StateVectors":
        """Return the vectors that `named` returned as ``vectors``; raises ``KeyError`` without parameters."""
        nothing = vectors["parameters"][:0]

        def weights(prefix: str) -> Weights:
            return Weights(vectors[f"{prefix}parameters"], vectors.get(f"{prefix}statistics", nothing))

        average, best = (weights(prefix) if f"{prefix}parameters" in vectors else None for prefix in (_AVERAGE, _BEST))
        moments = {name.removeprefix(_MOMENT): own for name, own in vectors.items() if name.startswith(_MOMENT)}
        return cls(weights(""), moments, average, best)
