"""Our formulas against PyTorch's own, where it is installed."""

import numpy as np
import pytest
from mlpd.core.devices.arrays import Cpu
from mlpd.core.network.activations import ACTIVATIONS
from mlpd.core.network.layers import BatchNorm, Layer, LayerNorm
from mlpd.core.network.losses import LOSSES, BufferedLoss
from mlpd.core.network.network import Backward, Pass, Weights, initial_statistics

from .trajectories import CASES, our_losses

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
functional = torch.nn.functional

THEIR_ACTIVATIONS = {
    "identity": lambda x: x,
    "relu": functional.relu,
    "leaky_relu": functional.leaky_relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": functional.softplus,
    "elu": functional.elu,
    "silu": functional.silu,
    "gelu": functional.gelu,
}
THEIR_LOSSES = {
    "softmax_cross_entropy": functional.cross_entropy,
    "sigmoid_cross_entropy": functional.binary_cross_entropy_with_logits,
    "mean_squared": functional.mse_loss,
    "huber": functional.huber_loss,
    "mean_absolute": functional.l1_loss,
    "poisson": functional.poisson_nll_loss,
}


@pytest.mark.parametrize("case", CASES)
def test_losses_agree_over_two_hundred_steps(case):
    from .record_pytorch import their_losses  # noqa: PLC0415 - needs PyTorch

    np.testing.assert_allclose(our_losses(case), their_losses(case), rtol=0, atol=1e-4)


def through(layer, x, dy, parameters=()):
    """Return a layer's outputs, the gradients of its inputs and parameters, and its statistics."""
    vector = np.concatenate([np.zeros(1), *[part.ravel() for part in parameters]])
    statistics = initial_statistics([layer], "float64")
    run = Pass(Cpu(), [_Spread(x.shape[1]), layer], x.shape[1], Weights(vector, statistics), len(x), Backward())
    run.inputs(len(x))[...] = x
    y = run.forward(len(x)).copy()
    run.output_gradient(len(x))[...] = dy
    run.backward(len(x))
    return y, run._dy[0].copy(), run.gradients[1:], statistics


class _Spread(Layer):
    """Hands its inputs on in a buffer of its own, so that a layer's input gradient can be looked at."""

    shapes = ((1,),)  # without parameters no gradient would be passed on to it

    def __init__(self, width):
        self.width = width

    def forward(self, slot, x, y):
        y[...] = x

    def backward(self, slot, x, y, dy, dx):
        pass


def tensors(*shape, seed=0):
    random = np.random.default_rng(seed)
    return random.normal(size=shape) * 2, random.normal(size=shape)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_agree(name):
    x, dy = tensors(7, 5)
    y, dx, _, _ = through(ACTIVATIONS[name](5), x, dy)
    theirs = torch.tensor(x, requires_grad=True)
    expected = THEIR_ACTIVATIONS[name](theirs)
    expected.backward(torch.tensor(dy))
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(dx, theirs.grad.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", [LayerNorm, BatchNorm])
def test_normalizations_agree(kind):
    x, dy = tensors(9, 6)
    gain, bias = tensors(6, seed=1)
    y, dx, gradients, statistics = through(kind(6), x, dy, [gain, bias])
    layer = torch.nn.LayerNorm(6) if kind is LayerNorm else torch.nn.BatchNorm1d(6)
    layer = layer.double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(gain))
        layer.bias.copy_(torch.tensor(bias))
    theirs = torch.tensor(x, requires_grad=True)
    expected = layer(theirs)
    expected.backward(torch.tensor(dy))
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(dx, theirs.grad.numpy(), rtol=1e-8, atol=1e-12)
    parts = [layer.weight.grad.numpy(), layer.bias.grad.numpy()]
    np.testing.assert_allclose(gradients, np.concatenate(parts), rtol=1e-9, atol=1e-12)
    if kind is BatchNorm:
        running = np.concatenate([layer.running_mean.numpy(), layer.running_var.numpy()])
        np.testing.assert_allclose(statistics, running, rtol=1e-9)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_agree(name):
    z, _ = tensors(6, 4)
    t = np.random.default_rng(2).uniform(size=(6, 4))
    if name == "softmax_cross_entropy":
        t /= t.sum(axis=1, keepdims=True)
    gradient, total = np.empty_like(z), np.zeros(())
    BufferedLoss(Cpu(), LOSSES[name](), 4, 6, np.float64)(z, t, None, gradient, total, 1 / 6)
    theirs = torch.tensor(z, requires_grad=True)
    expected = THEIR_LOSSES[name](theirs, torch.tensor(t))
    expected.backward()
    assert total / 6 == pytest.approx(expected.item(), rel=1e-12)
    np.testing.assert_allclose(gradient, theirs.grad.numpy(), rtol=1e-9, atol=1e-14)
