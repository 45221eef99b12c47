"""Initial weights (inputs, width) of an affine layer, in float64 on the host; biases start at zero."""

from collections.abc import Callable
from math import sqrt

import numpy as np
from mlpd.core.random import Purpose, normal, uniform
from numpy.typing import NDArray

Weights = NDArray[np.float64]
Initializer = Callable[[int, int, int, int], Weights]  # seed, layer, inputs, width


def he_normal(seed: int, layer: int, inputs: int, width: int) -> Weights:
    """Draw from a normal of variance 2 / inputs: He et al. 2015 (arXiv:1502.01852), equation 10."""
    return _normal(seed, layer, inputs, width, 2 / inputs)


def he_uniform(seed: int, layer: int, inputs: int, width: int) -> Weights:
    """Draw uniformly with variance 2 / inputs: He et al. 2015 (arXiv:1502.01852), equation 10."""
    return _uniform(seed, layer, inputs, width, 2 / inputs)


def glorot_normal(seed: int, layer: int, inputs: int, width: int) -> Weights:
    """Draw from a normal of variance 2 / (inputs + width): Glorot & Bengio 2010, equation 12."""
    return _normal(seed, layer, inputs, width, 2 / (inputs + width))


def glorot_uniform(seed: int, layer: int, inputs: int, width: int) -> Weights:
    """Draw uniformly with variance 2 / (inputs + width): Glorot & Bengio 2010, equation 16."""
    return _uniform(seed, layer, inputs, width, 2 / (inputs + width))


INITIALIZERS: dict[str, Initializer] = {
    "he_normal": he_normal,
    "he_uniform": he_uniform,
    "glorot_normal": glorot_normal,
    "glorot_uniform": glorot_uniform,
}


def _normal(seed: int, layer: int, inputs: int, width: int, variance: float) -> Weights:
    return sqrt(variance) * normal(seed, Purpose.WEIGHTS, layer, inputs * width).reshape(inputs, width)


def _uniform(seed: int, layer: int, inputs: int, width: int, variance: float) -> Weights:
    bound = sqrt(3 * variance)
    return bound * (2 * uniform(seed, Purpose.WEIGHTS, layer, inputs * width).reshape(inputs, width) - 1)
