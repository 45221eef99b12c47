"""Optimizers against the recurrences of their papers, written out plainly in float64."""

import numpy as np
import pytest
from mlpd.core.arrays import Cpu
from mlpd.core.optimizers import Adam, Sgd
from mlpd.core.schedules import constant, warmup_cosine

STEPS = 50


def gradients(count=40_000, seed=11):
    random = np.random.default_rng(seed)
    return random.normal(size=(STEPS, count)), random.normal(size=count)


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_sgd_follows_its_recurrence(momentum, nesterov):
    steps, start = gradients()
    ours, theirs, v = start.copy(), start.copy(), np.zeros_like(start)
    optimizer = Sgd(Cpu(), ours, momentum, nesterov)
    for step, g in enumerate(steps):
        v = momentum * v + g
        theirs -= 0.01 * (g + momentum * v if nesterov else v)
        optimizer.update(ours, g.copy(), 0.01, step)
    assert np.allclose(ours, theirs, rtol=1e-10, atol=1e-12)


def test_adam_follows_algorithm_1_of_its_paper():
    steps, start = gradients()
    ours, theirs = start.copy(), start.copy()
    m, s = np.zeros_like(start), np.zeros_like(start)
    optimizer = Adam(Cpu(), ours, 0.9, 0.99, 1e-8)
    for step, g in enumerate(steps):
        m, s = 0.9 * m + 0.1 * g, 0.99 * s + 0.01 * g * g
        t = step + 1
        theirs -= 0.01 * (m / (1 - 0.9**t)) / (np.sqrt(s / (1 - 0.99**t)) + 1e-8)
        optimizer.update(ours, g.copy(), 0.01, step)
    assert np.allclose(ours, theirs, rtol=1e-9, atol=1e-11)


def test_moments_of_gradients_that_stay_zero_do_not_become_subnormal():
    parameters = np.zeros(4, np.float32)
    optimizer = Adam(Cpu(), parameters)
    for step in range(3000):
        optimizer.update(parameters, np.full(4, 1.0 if step == 0 else 0.0, np.float32), 1e-3, step)
    tiny = np.finfo(np.float32).tiny
    assert all(((vector == 0) | (np.abs(vector) >= tiny)).all() for vector in optimizer.state.values())


def test_the_constant_schedule_is_constant():
    assert {constant(0.1)(step) for step in range(5)} == {0.1}


def test_warmup_cosine_rises_to_its_peak_and_falls_to_zero():
    rates = [warmup_cosine(1.0, 4, 12)(step) for step in range(13)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[8] == pytest.approx(0.5)
    assert rates[12] == pytest.approx(0.0)
