"""Slopes of a function along one random direction, by central differences in float64."""

import numpy as np
import pytest
from hypothesis import assume

_STEPS = (1e-5, 3e-6, 1e-6)


def slope(function, point, direction):
    """Return the slope of ``function`` at ``point``; a kink close by makes the example invalid."""
    slopes = [(function(point + step * direction) - function(point - step * direction)) / (2 * step) for step in _STEPS]
    assume(np.ptp(slopes) < 1e-5 * (1 + abs(slopes[-1])))
    return slopes[-1]


def assert_gradient(gradient, function, point, direction):
    """Check that ``gradient`` along ``direction`` is the slope of ``function`` at ``point``."""
    assert float((gradient * direction).sum()) == pytest.approx(slope(function, point, direction), rel=1e-4, abs=1e-6)
