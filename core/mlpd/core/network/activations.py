"""Activations: one class each, found by its ``name`` wherever a network is described."""

from dataclasses import dataclass
from math import pi, sqrt
from typing import Any, ClassVar

from mlpd.core.devices.arrays import Array
from mlpd.core.network.layers import Layer, Shapes, Slot

_LEAK = 0.01


@dataclass(frozen=True)
class Activation(Layer):
    """A function of each value. Its derivative needs only the outputs where ``in_place``."""

    width: int
    name: ClassVar[str]
    in_place: ClassVar[bool] = True
    spares: ClassVar[int] = 0  # work arrays (capacity, width)

    def work(self, capacity: int) -> Shapes:
        """As many arrays as ``spares`` says."""
        return ((capacity, self.width),) * self.spares


class Identity(Activation):
    """``y = x``."""

    name = "identity"

    def forward(self, slot: Slot, x: Array, y: Array) -> None:
        """Do nothing: ``y`` is ``x``."""

    def backward(self, slot: Slot, x: Array, y: Array, dy: Array, dx: Array | None) -> None:
        """Do nothing: ``dx`` is ``dy``."""


class Relu(Activation):
    """``y = max(x, 0)``, whose derivative is ``y > 0``."""

    name = "relu"

    def forward(self, slot: Slot, x: Array, y: Array) -> None:
        slot.xp.maximum(x, 0, out=y)

    def backward(self, slot: Slot, x: Array, y: Array, dy: Array, dx: Array | None) -> None:
        slot.xp.greater(y, 0, out=y)  # NumPy's sign would take ten times as long
        slot.xp.multiply(dy, y, out=dx)


class LeakyRelu(Activation):
    """``y = max(x, 0.01 x)``: Maas et al. 2013."""

    name = "leaky_relu"
    spares = 1

    def forward(self, slot: Slot, x: Array, y: Array) -> None:
        leak = slot.work[0][: len(x)]
        slot.xp.multiply(x, _LEAK, out=leak)
        slot.xp.maximum(x, leak, out=y)

    def backward(self, slot: Slot, x: Array, y: Array, dy: Array, dx: Array | None) -> None:
        xp, slope = slot.xp, slot.work[0][: len(y)]
        xp.greater(y, 0, out=slope)
        xp.multiply(slope, 1.0 - _LEAK, out=slope)
        xp.add(slope, _LEAK, out=slope)
        xp.multiply(dy, slope, out=dx)


class Tanh(Activation):
    """``y = tanh(x)``, whose derivative is ``1 - y**2``."""

    name = "tanh"

    def forward(self, slot: Slot, x: Array, y: Array) -> None:
        slot.xp.tanh(x, out=y)

    def backward(self, slot: Slot, x: Array, y: Array, dy: Array, dx: Array | None) -> None:
        xp = slot.xp
        xp.multiply(y, y, out=y)
        xp.subtract(1.0, y, out=y)
        xp.multiply(dy, y, out=dx)


class Sigmoid(Activation):
    """``y = 1 / (1 + exp(-x))``, whose derivative is ``y (1 - y)``."""

    name = "sigmoid"
    spares = 1

    def forward(self, slot: Slot, x: Array, y: Array) -> None:
        sigmoid(slot.xp, x, y)

    def backward(self, slot: Slot, x: Array, y: Array, dy: Array, dx: Array | None) -> None:
        xp, square = slot.xp, slot.work[0][: len(y)]
        xp.multiply(y, y, out=square)
        xp.subtract(y, square, out=y)
        xp.multiply(dy, y, out=dx)


class Softplus(Activation):
    """``y = log(1 + exp(x))``, whose derivative is ``1 - exp(-y)``: Dugas et al. 2000."""

    name = "softplus"
    spares = 1

    def forward(self, slot: Slot, x: Array, y: Array) -> None:
        xp, tail = slot.xp, slot.work[0][: len(x)]
        softplus_tail(xp, x, tail)
        xp.maximum(x, 0, out=y)
        xp.add(y, tail, out=y)

    def backward(self, slot: Slot, x: Array, y: Array, dy: Array, dx: Array | None) -> None:
        xp = slot.xp
        xp.negative(y, out=y)
        xp.expm1(y, out=y)
        xp.negative(y, out=y)
        xp.multiply(dy, y, out=dx)


class Elu(Activation):
    """``y = x`` above 0, else ``exp(x) - 1``, whose derivative is ``min(y, 0) + 1``: Clevert et al. 2015."""

    name = "elu"
    spares = 1

    def forward(self, slot: Slot, x: Array, y: Array) -> None:
        xp, below = slot.xp, slot.work[0][: len(x)]
        xp.minimum(x, 0, out=below)
        xp.expm1(below, out=below)
        xp.maximum(x, 0, out=y)
        xp.add(y, below, out=y)

    def backward(self, slot: Slot, x: Array, y: Array, dy: Array, dx: Array | None) -> None:
        xp = slot.xp
        xp.minimum(y, 0, out=y)
        xp.add(y, 1.0, out=y)
        xp.multiply(dy, y, out=dx)


class Silu(Activation):
    """``y = x sigmoid(x)``: Elfwing, Uchibe & Doya 2017 (arXiv:1702.03118)."""

    name = "silu"
    in_place = False
    spares = 1

    def forward(self, slot: Slot, x: Array, y: Array) -> None:
        share = slot.work[0][: len(x)]
        sigmoid(slot.xp, x, share)
        slot.xp.multiply(x, share, out=y)

    def backward(self, slot: Slot, x: Array, y: Array, dy: Array, dx: Array | None) -> None:
        """Write the gradient of the inputs: ``sigmoid + y (1 - sigmoid)``."""
        xp, share = slot.xp, slot.work[0][: len(y)]
        xp.subtract(1.0, share, out=x)
        xp.multiply(y, x, out=y)
        xp.add(y, share, out=y)
        xp.multiply(dy, y, out=dx)


class Gelu(Activation):
    """``y = x Phi(x)`` with the normal distribution function itself: Hendrycks & Gimpel 2016 (arXiv:1606.08415)."""

    name = "gelu"
    in_place = False
    spares = 5

    def forward(self, slot: Slot, x: Array, y: Array) -> None:
        xp = slot.xp
        share, *spare = (work[: len(x)] for work in slot.work)
        normal_distribution(xp, x, share, spare)
        xp.multiply(x, share, out=y)

    def backward(self, slot: Slot, x: Array, y: Array, dy: Array, dx: Array | None) -> None:
        """Write the gradient of the inputs: ``Phi(x) + x phi(x)``."""
        xp, share = slot.xp, slot.work[0][: len(y)]
        xp.multiply(x, x, out=y)
        xp.multiply(y, -0.5, out=y)
        xp.exp(y, out=y)
        xp.multiply(y, x, out=y)
        xp.multiply(y, 1.0 / sqrt(2.0 * pi), out=y)
        xp.add(y, share, out=y)
        xp.multiply(dy, y, out=dx)


ACTIVATIONS: dict[str, type[Activation]] = {kind.name: kind for kind in Activation.__subclasses__()}


def sigmoid(xp: Any, x: Array, y: Array) -> None:
    """Write ``1 / (1 + exp(-x))`` to ``y`` as ``(1 + tanh(x / 2)) / 2``, which does not overflow."""
    xp.multiply(x, 0.5, out=y)
    xp.tanh(y, out=y)
    xp.multiply(y, 0.5, out=y)
    xp.add(y, 0.5, out=y)


def softplus_tail(xp: Any, x: Array, y: Array) -> None:
    """Write ``log(1 + exp(-|x|))`` to ``y``: what ``log(1 + exp(x))`` is above ``max(x, 0)``."""
    xp.absolute(x, out=y)
    xp.negative(y, out=y)
    xp.exp(y, out=y)
    xp.log1p(y, out=y)


# erfc(z) = t exp(-z**2 + series in T_n(2 t - 1)), t = 2 / (2 + z), for z >= 0: W. J. Cody's form with the Chebyshev
# coefficients of Press et al., Numerical Recipes (2007), section 6.2.2. Relative error below 1.2e-16.
_ERFC = (
    *(-1.3026537197817094, 6.4196979235649026e-1, 1.9476473204185836e-2, -9.561514786808631e-3),
    *(-9.46595344482036e-4, 3.66839497852761e-4, 4.2523324806907e-5, -2.0278578112534e-5),
    *(-1.624290004647e-6, 1.303655835580e-6, 1.5626441722e-8, -8.5238095915e-8, 6.529054439e-9),
    *(5.059343495e-9, -9.91364156e-10, -2.27365122e-10, 9.6467911e-11, 2.394038e-12, -6.886027e-12),
    *(8.94487e-13, 3.13092e-13, -1.12708e-13, 3.81e-16, 7.106e-15, -1.523e-15, -9.4e-17, 1.21e-16, -2.8e-17),
)
_SINGLE_PRECISION_TERMS = 14  # what follows is below a tenth of float32's precision


def normal_distribution(xp: Any, x: Array, y: Array, spare: list[Array]) -> None:
    """Write the standard normal distribution function of ``x`` to ``y``; four ``spare`` arrays are overwritten."""
    t, last, before, product = spare
    terms = _ERFC if x.dtype.itemsize == 8 else _ERFC[:_SINGLE_PRECISION_TERMS]
    xp.absolute(x, out=t)
    xp.multiply(t, 1.0 / (2.0 * sqrt(2.0)), out=t)  # z / 2
    xp.add(t, 1.0, out=t)
    xp.divide(1.0, t, out=t)
    xp.multiply(t, 4.0, out=y)
    xp.subtract(y, 2.0, out=y)  # twice Chebyshev's variable
    xp.copyto(last, 0.0)
    xp.copyto(before, 0.0)
    for term in reversed(terms[1:]):  # Clenshaw's recurrence: term + y * last - before
        xp.subtract(term, before, out=before)
        xp.multiply(y, last, out=product)
        xp.add(before, product, out=before)
        last, before = before, last
    xp.multiply(y, last, out=y)
    xp.add(y, terms[0], out=y)
    xp.multiply(y, 0.5, out=y)
    xp.subtract(y, before, out=y)
    xp.multiply(x, x, out=product)
    xp.multiply(product, 0.5, out=product)
    xp.subtract(y, product, out=y)
    xp.exp(y, out=y)
    xp.multiply(y, t, out=y)
    xp.multiply(y, 0.5, out=y)  # erfc(|x| / sqrt(2)) / 2, which is Phi(-|x|)
    xp.greater(x, 0, out=t)
    xp.multiply(y, -2.0, out=product)
    xp.add(product, 1.0, out=product)
    xp.multiply(product, t, out=product)
    xp.add(y, product, out=y)
