"""An activation and an optimizer that nobody has thought of: one class each, and they run on every runner."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from mlpd.core.network.activations import ACTIVATIONS, Activation
from mlpd.core.optimization.optimizers import Optimizer
from mlpd.core.spec.split import SPLITS

from ..conftest import needs_compiler
from .family import finish, optimized, run, vectors


class Softsign(Activation):
    """``y = x / (1 + |x|)``, whose derivative is ``(1 - |y|)**2``."""

    name = "softsign"
    spares = 1

    def forward(self, slot, x, y):
        xp, size = slot.xp, slot.work[0][: len(x)]
        xp.absolute(x, out=size)
        xp.add(size, 1.0, out=size)
        xp.divide(x, size, out=y)

    def backward(self, slot, x, y, dy, dx):
        xp, slope = slot.xp, slot.work[0][: len(y)]
        xp.absolute(y, out=slope)
        xp.subtract(1.0, slope, out=slope)
        xp.multiply(slope, slope, out=slope)
        xp.multiply(dy, slope, out=dx)


@dataclass(frozen=True)
class Adamax(Optimizer):
    """Kingma & Ba 2015 (arXiv:1412.6980), algorithm 2."""

    name: ClassVar[str] = "adamax"
    beta1: float = 0.9
    beta2: float = 0.999

    @property
    def moments(self):
        return "mean", "largest"

    def factors(self, rate, step):
        return {"rate": rate / (1.0 - self.beta1 ** (step + 1))}

    def update(self, block, factors):
        xp, g, m, u, spare = block.xp, block.g, block.moments["mean"], block.moments["largest"], block.spare
        xp.multiply(u, self.beta2, out=u)
        xp.absolute(g, out=spare)
        xp.maximum(u, spare, out=u)
        xp.multiply(m, self.beta1, out=m)
        xp.multiply(g, 1.0 - self.beta1, out=g)
        xp.add(m, g, out=m)
        xp.add(u, 1e-8, out=spare)
        xp.divide(m, spare, out=g)
        xp.multiply(g, factors["rate"], out=g)
        xp.subtract(block.p, g, out=block.p)


@needs_compiler
@pytest.mark.parametrize("split", SPLITS)
def test_one_class_is_enough_to_run_compiled(monkeypatch, kernels, split):
    monkeypatch.setitem(ACTIVATIONS, Softsign.name, Softsign)
    case = run(activations=("softsign", "softsign"), dtype="float64", **optimized(Adamax()))
    plain = case.start()
    finish(plain)
    found = []
    for thread_count in (1, 3):
        state = case.compiled(split, 3).start()
        finish(state, thread_count=thread_count, kernels=kernels)
        found.append(state)
    assert vectors(found[0]) == vectors(found[1])
    expected = plain.blocks.read().named()
    assert {"parameters", "moment.mean", "moment.largest"} <= expected.keys()
    for name, vector in found[0].blocks.read().named().items():
        assert np.allclose(vector, expected[name], rtol=0, atol=1e-11)
