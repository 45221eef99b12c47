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


def lecun_normal(seed: int, layer: int, inputs: int, width: int) -> Weights:
    """Draw from a normal of variance 1 / inputs: LeCun et al. 1998, Efficient BackProp, equation 16."""
    return _normal(seed, layer, inputs, width, 1 / inputs)


def lecun_uniform(seed: int, layer: int, inputs: int, width: int) -> Weights:
    """Draw uniformly with variance 1 / inputs: LeCun et al. 1998, Efficient BackProp, equation 16."""
    return _uniform(seed, layer, inputs, width, 1 / inputs)


def orthogonal(seed: int, layer: int, inputs: int, width: int) -> Weights:
    """Draw a matrix with orthonormal rows or columns, uniformly: Saxe et al. 2014 (arXiv:1312.6120), section 3.

    The Q of a normal matrix, with the signs that make the decomposition unique (Mezzadri 2007, section 5).
    """
    tall, wide = max(inputs, width), min(inputs, width)
    q, r = np.linalg.qr(_normal(seed, layer, tall, wide, 1.0))
    q *= np.where(np.diagonal(r) < 0, -1.0, 1.0)
    return np.ascontiguousarray(q if inputs >= width else q.T)


def zeros(seed: int, layer: int, inputs: int, width: int) -> Weights:  # noqa: ARG001 - nothing is drawn
    """Return zeros: for linear models, whose units need not differ at the start."""
    return np.zeros((inputs, width))


INITIALIZERS: dict[str, Initializer] = {
    initializer.__name__: initializer
    for initializer in (
        *(he_normal, he_uniform, glorot_normal, glorot_uniform),
        *(lecun_normal, lecun_uniform, orthogonal, zeros),
    )
}


def _normal(seed: int, layer: int, inputs: int, width: int, variance: float) -> Weights:
    return sqrt(variance) * normal(seed, Purpose.WEIGHTS, layer, inputs * width).reshape(inputs, width)


def _uniform(seed: int, layer: int, inputs: int, width: int, variance: float) -> Weights:
    bound = sqrt(3 * variance)
    return bound * (2 * uniform(seed, Purpose.WEIGHTS, layer, inputs * width).reshape(inputs, width) - 1)
