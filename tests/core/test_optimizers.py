"""Optimizers against the recurrences of their papers, written out plainly in float64."""

import numpy as np
import pytest
from mlpd.core.devices.arrays import Cpu
from mlpd.core.network.network import Weights
from mlpd.core.optimization.optimizers import (
    FLUSH_STEPS,
    OPTIMIZERS,
    AdaGrad,
    Adam,
    Average,
    Clipping,
    Lion,
    OptimizerState,
    RmsProp,
    Sgd,
)

STEPS, RATE = 50, 0.01


def drawn(count=40_000, seed=11):
    random = np.random.default_rng(seed)
    return random.normal(size=(STEPS, count)), random.normal(size=count)


def ours(optimizer, gradients, start, *, first_step=0, device=None, dtype=np.float64):
    device = device or Cpu()
    parameters = device.from_host(start.astype(dtype))
    living = device.xp.zeros_like(parameters)
    state = OptimizerState(device, optimizer, parameters, living)
    for step, gradient in enumerate(gradients, first_step):
        living[...] = device.from_host(gradient.astype(dtype))
        state.update(optimizer.factors(RATE, step), flushing=None if step % FLUSH_STEPS else 1.0)
    return device.to_host(parameters), {name: device.to_host(vector) for name, vector in state.moments.items()}


def sgd(gradients, p, momentum, *, nesterov):
    v = np.zeros_like(p)
    for g in gradients:
        v = momentum * v + g
        p = p - RATE * (g + momentum * v if nesterov else v)
    return p


def adam(gradients, p, beta1, beta2, epsilon):
    m, s = np.zeros_like(p), np.zeros_like(p)
    for t, g in enumerate(gradients, 1):
        m, s = beta1 * m + (1 - beta1) * g, beta2 * s + (1 - beta2) * g * g
        p = p - RATE * (m / (1 - beta1**t)) / (np.sqrt(s / (1 - beta2**t)) + epsilon)
    return p


def rmsprop(gradients, p, decay, epsilon, momentum):
    s, v = np.zeros_like(p), np.zeros_like(p)
    for g in gradients:
        s = decay * s + (1 - decay) * g * g
        v = momentum * v + g / (np.sqrt(s) + epsilon)
        p = p - RATE * v
    return p


def adagrad(gradients, p, epsilon):
    s = np.zeros_like(p)
    for g in gradients:
        s = s + g * g
        p = p - RATE * g / (np.sqrt(s) + epsilon)
    return p


def lion(gradients, p, beta1, beta2):
    m = np.zeros_like(p)
    for g in gradients:
        p = p - RATE * np.sign(beta1 * m + (1 - beta1) * g)
        m = beta2 * m + (1 - beta2) * g
    return p


RECURRENCES = {
    "sgd": (Sgd(), lambda g, p: sgd(g, p, 0.0, nesterov=False)),
    "momentum": (Sgd(0.9), lambda g, p: sgd(g, p, 0.9, nesterov=False)),
    "nesterov": (Sgd(0.9, nesterov=True), lambda g, p: sgd(g, p, 0.9, nesterov=True)),
    "adam": (Adam(0.9, 0.99, 1e-3), lambda g, p: adam(g, p, 0.9, 0.99, 1e-3)),
    "rmsprop": (RmsProp(0.95, 1e-3), lambda g, p: rmsprop(g, p, 0.95, 1e-3, 0.0)),
    "rmsprop with momentum": (RmsProp(0.95, 1e-3, 0.7), lambda g, p: rmsprop(g, p, 0.95, 1e-3, 0.7)),
    "adagrad": (AdaGrad(1e-3), lambda g, p: adagrad(g, p, 1e-3)),
    "lion": (Lion(0.8, 0.95), lambda g, p: lion(g, p, 0.8, 0.95)),
}


@pytest.mark.parametrize(("optimizer", "recurrence"), RECURRENCES.values(), ids=RECURRENCES)
def test_an_optimizer_follows_the_recurrence_of_its_paper(optimizer, recurrence, device):
    gradients, start = drawn(20_000)
    found, _ = ours(optimizer, gradients, start, device=device)
    assert np.allclose(found, recurrence(gradients, start), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("optimizer", [case[0] for case in RECURRENCES.values()], ids=RECURRENCES)
def test_an_update_does_not_depend_on_the_block_size(optimizer):
    class SmallBlocks(Cpu):
        block_size = 7

    gradients, start = drawn(100)
    found, whole = (ours(optimizer, gradients, start, device=device)[0] for device in (SmallBlocks(), Cpu()))
    assert found.tobytes() == whole.tobytes()


def test_every_optimizer_has_a_recurrence_here():
    assert {optimizer.name for optimizer, _ in RECURRENCES.values()} == set(OPTIMIZERS)


@pytest.mark.parametrize("optimizer", [case[0] for case in RECURRENCES.values()], ids=RECURRENCES)
def test_float32_stays_float32(optimizer):
    gradients, start = drawn(10)
    parameters, moments = ours(optimizer, gradients, start, dtype=np.float32)
    assert {vector.dtype.name for vector in (parameters, *moments.values())} == {"float32"}


@pytest.mark.parametrize(
    "optimizer", [Sgd(0.9), Adam(beta2=0.99), RmsProp(momentum=0.9), AdaGrad(), Lion()], ids=lambda kind: kind.name
)
def test_moments_of_gradients_that_stay_zero_do_not_become_subnormal(optimizer):
    parameters, gradients = np.zeros(4, np.float32), np.zeros(4, np.float32)
    state, tiny = OptimizerState(Cpu(), optimizer, parameters, gradients), np.finfo(np.float32).tiny
    for step in range(12_000):
        gradients.fill(step == 0)
        state.update(optimizer.factors(1e-3, step), flushing=None if step % FLUSH_STEPS else 1.0)
        if step % FLUSH_STEPS == FLUSH_STEPS - 1:
            assert all(((vector == 0) | (np.abs(vector) >= tiny)).all() for vector in state.moments.values()), step
    if optimizer != AdaGrad():
        assert not any(vector.any() for vector in state.moments.values())


@pytest.mark.parametrize("optimizer", [Sgd(0.9), RmsProp(), Adam()], ids=lambda kind: kind.name)
def test_moments_that_matter_are_kept(optimizer):
    """Gradients of 1e-12 give moments well above the smallest that are kept."""
    _, moments = ours(optimizer, np.full((40, 4), 1e-12), np.zeros(4), dtype=np.float32)
    assert all(vector.all() for vector in moments.values())


@pytest.mark.parametrize("norm", [0.5, 10.0, 1e9])
def test_clipping_scales_the_whole_gradient_to_its_norm(norm, device):
    values = np.random.default_rng(4).normal(size=1000)
    gradients = device.from_host(values.copy())
    Clipping(device, norm, np.float64)(gradients)
    length = np.linalg.norm(values)
    assert np.allclose(device.to_host(gradients), values * min(1.0, norm / length), rtol=1e-12)


def test_clipping_leaves_a_gradient_of_zero_alone(device):
    gradients = device.from_host(np.zeros(5))
    Clipping(device, 1.0, np.float64)(gradients)
    assert not device.to_host(gradients).any()


def test_an_average_moves_slowly_but_not_at_first(device):
    random = np.random.default_rng(5)
    living = Weights(*(device.from_host(random.normal(size=size)) for size in (9, 4)))
    averages = living.map(lambda vector: vector.copy())
    expected = [device.to_host(vector) for vector in living]
    average = Average(device, living, averages)
    for step in range(40):
        for i, vector in enumerate(living):
            value = random.normal(size=len(vector))
            vector[...] = device.from_host(value)
            decay = min(0.7, (1 + step) / (10 + step))
            expected[i] = decay * expected[i] + (1 - decay) * value
        average.update(Average.factors(0.7, step))
    for vector, wanted in zip(averages, expected, strict=True):
        assert np.allclose(device.to_host(vector), wanted)
