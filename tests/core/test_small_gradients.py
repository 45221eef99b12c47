"""Optimizers where gradients are small: against the recurrences of their papers, in more digits than either type has."""

import numpy as np
import pytest
from mlpd.core.optimization.optimizers import AdaGrad, Adam, Lion, RmsProp, Sgd, smallest_kept

from .test_optimizers import RATE, adagrad, adam, lion, ours, rmsprop, sgd

STEPS = 50
KINDS = {
    "momentum": (lambda _: Sgd(0.9), lambda g, p, _: sgd(g, p, 0.9, nesterov=False)),
    "adam": (lambda e: Adam(epsilon=e), lambda g, p, e: adam(g, p, 0.9, 0.999, e)),
    "rmsprop": (lambda e: RmsProp(epsilon=e), lambda g, p, e: rmsprop(g, p, 0.99, e, 0.0)),
    "rmsprop with momentum": (
        lambda e: RmsProp(epsilon=e, momentum=0.5),
        lambda g, p, e: rmsprop(g, p, 0.99, e, 0.5),
    ),
    "adagrad": (AdaGrad, adagrad),
    "lion": (lambda _: Lion(), lambda g, p, _: lion(g, p, 0.9, 0.99)),
}
SMALL = [
    ("float32", 1e-3, 1e-8),
    ("float32", 1e-9, 1e-10),
    ("float32", 1e-12, 1e-12),
    ("float32", 1e-16, 1e-16),
    ("float32", 1e-18, 1e-16),
    ("float32", 1e-18, 1e-8),
    ("float64", 1e-3, 1e-8),
    ("float64", 1e-19, 1e-30),
    ("float64", 1e-40, 1e-60),
    ("float64", 1e-100, 1e-150),
    ("float64", 1e-151, 1e-150),
]


@pytest.mark.parametrize(("dtype", "size", "epsilon"), SMALL)
@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_those_of_the_paper_however_small_the_gradients(kind, dtype, size, epsilon):
    """To within a ten-thousandth of what the rate allows."""
    make, recurrence = KINDS[kind]
    gradients = (size * np.random.default_rng(3).normal(1, 0.5, size=(STEPS, 200))).astype(dtype)
    found, _ = ours(make(epsilon), gradients, np.zeros(200), dtype=dtype)
    expected = recurrence(gradients.astype(np.longdouble), np.zeros(200, np.longdouble), epsilon)
    allowed = STEPS * RATE * (size if kind == "momentum" else 1)
    assert np.abs(found.astype(np.longdouble) - expected).max() <= 1e-4 * allowed


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", [Sgd(0.9), Adam(beta2=0.99), RmsProp(momentum=0.9), AdaGrad(1e-16), Lion()])
def test_no_moment_is_left_subnormal(kind, dtype):
    tiny = np.finfo(dtype).tiny
    for size in (1.0, tiny**0.5, 4 * tiny):
        gradients = np.zeros((400, 4), dtype)
        gradients[:8] = size
        _, moments = ours(kind, gradients[:385], np.zeros(4), dtype=dtype)
        assert all(((vector == 0) | (np.abs(vector) >= tiny)).all() for vector in moments.values())


def test_float32_flushes_what_it_always_has_where_epsilon_is_usual():
    for kind, name, smallest in (
        (Sgd(0.9), "velocity", 1e-30),
        (Adam(), "first_moment", 1e-30),
        (Adam(), "second_moment", 1e-35),
        (Adam(epsilon=1e-12), "second_moment", 1e-35),
        (RmsProp(), "square", 1e-35),
        (AdaGrad(), "square", 1e-35),
        (Lion(), "mean", 1e-30),
    ):
        assert smallest_kept(kind, name, "float32") == smallest
