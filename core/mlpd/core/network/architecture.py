"""What a network is: sizes and choices, and the layers they stand for."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

from mlpd.core.network.activations import ACTIVATIONS
from mlpd.core.network.layers import Affine, BatchNorm, Dropout, Layer, LayerNorm, Linear

NORMALIZATIONS: dict[str, type[LayerNorm] | type[BatchNorm] | None] = {
    "none": None,
    "layer": LayerNorm,
    "batch": BatchNorm,
}


@dataclass(frozen=True)
class ModelSpec:
    """Units per layer, input first, and what stands between the affine layers, one entry a hidden layer.

    Each hidden layer is affine (without a bias before batch normalisation), normalised, activated, dropped out. Inputs
    are multiplied by ``input_scale``, or standardised by the mean and deviation of the training rows.
    """

    layer_sizes: tuple[int, ...]
    activations: tuple[str, ...]
    dropout_rates: tuple[float, ...]
    input_dropout_rate: float = 0.0
    normalization: str = "none"
    initializer: str = "he_normal"
    input_scale: float = 1.0
    standardize_inputs: bool = False
    dtype: str = "float32"

    @classmethod
    def plain(cls, layer_sizes: Sequence[int], **choices: object) -> "ModelSpec":
        """Return the spec of affine layers with ReLU between them."""
        hidden = max(len(layer_sizes) - 2, 0)
        return cls(tuple(layer_sizes), ("relu",) * hidden, (0.0,) * hidden, **choices)  # type: ignore[arg-type]

    @property
    def normalizes_batches(self) -> bool:
        """Whether a layer looks at all rows of a mini-batch."""
        return self.normalization == "batch" and len(self.layer_sizes) > 2

    def layers(self) -> tuple[Layer, ...]:
        """Return the layers, first to last."""
        layers: list[Layer] = []
        if self.input_dropout_rate:
            layers.append(Dropout(self.layer_sizes[0], self.input_dropout_rate))
        normalization = NORMALIZATIONS[self.normalization]
        *hidden, last = pairwise(self.layer_sizes)
        for (inputs, width), activation, rate in zip(hidden, self.activations, self.dropout_rates, strict=True):
            layers.append(Linear(inputs, width) if normalization is BatchNorm else Affine(inputs, width))
            if normalization:
                layers.append(normalization(width))
            layers.append(ACTIVATIONS[activation](width))
            if rate:
                layers.append(Dropout(width, rate))
        return (*layers, Affine(*last))


def parameter_count(layers: Sequence[Layer]) -> int:
    """Return the number of parameters that are trained."""
    return sum(prod(shape) for layer in layers for shape in layer.shapes)


def statistic_count(layers: Sequence[Layer]) -> int:
    """Return the number of statistics."""
    return sum(statistic.size for layer in layers for statistic in layer.statistics)
