"""What a network is: sizes and choices, and the layers they stand for."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

from mlpd.core.data_types import DATA_TYPES, PRECISIONS
from mlpd.core.declaration import FRACTION, REQUIRED, Count, Enumeration, Nonzero, OneOf, setting
from mlpd.core.network.activations import ACTIVATIONS
from mlpd.core.network.initializers import INITIALIZERS
from mlpd.core.network.layers import Affine, BatchNorm, Dropout, Layer, LayerNorm, Linear

NORMALIZATIONS: dict[str, type[LayerNorm] | type[BatchNorm] | None] = {
    "none": None,
    "layer": LayerNorm,
    "batch": BatchNorm,
}
WIDTHS = Count(1, 1_000_000, each=True)
_DATA_TYPES = Enumeration("DataType", {f"DATA_TYPE_{DATA_TYPES[name].protocol}": (name, "") for name in PRECISIONS})


@dataclass(frozen=True)
class ModelSpec:
    """Units per layer, input first, and what stands between the affine layers, one entry a hidden layer.

    Each hidden layer is affine (without a bias before batch normalisation), normalised, activated, dropped out. Inputs
    are multiplied by ``input_scale``, or standardised by the mean and deviation of the training rows.
    """

    layer_sizes: tuple[int, ...] = setting(
        REQUIRED,
        "Units per layer, input first: 784,532,10; 0 first or last is what the data need. Left out with a warm start, "
        "which brings the whole spec.",
        WIDTHS,
        number=1,
        unit="units",
    )
    activations: tuple[str, ...] = setting(
        REQUIRED,
        "Activation; one, or one a hidden layer",
        OneOf(ACTIVATIONS),
        number=4,
        unset="relu",
        setting="activation",
    )
    dropout_rates: tuple[float, ...] = setting(
        REQUIRED,
        "Share of a hidden layer's values that a step zeroes; one, or one a hidden layer",
        FRACTION,
        number=5,
        unset="0",
        setting="dropout",
    )
    input_dropout_rate: float = setting(
        0.0, "Share of the inputs that a step zeroes", FRACTION, number=6, setting="input_dropout"
    )
    normalization: str = setting("none", "Normalization of hidden layers", OneOf(NORMALIZATIONS), number=7)
    initializer: str = setting(
        "he_normal", "How weights are drawn; biases start at zero", OneOf(INITIALIZERS), number=2
    )
    input_scale: float = setting(
        1.0,
        "Factor of every input value. It belongs to the model version: predictions take rows in the same units as the "
        "training data, and a warm start keeps it.",
        Nonzero(),
        number=3,
        unset="1/255 for whole numbers from 0 to 255 (pixels), else 1",
    )
    standardize_inputs: bool = setting(
        False,
        "Shift and scale inputs by mean and deviation of the training rows. Each column by its own; they are stored in "
        "the model version.",
        number=8,
        setting="standardize",
    )
    dtype: str = setting(
        "float32",
        "Type of parameters and arithmetic",
        OneOf(PRECISIONS),
        number=9,
        setting="data_type",
        wire_name="data_type",
        wire=_DATA_TYPES,
    )

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
