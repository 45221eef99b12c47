"""Optimizers on flat vectors; their state is named flat vectors and the number of steps taken.

An element-wise pass over a large vector runs at the speed of memory, and an optimizer makes several. So
each works through the vectors in blocks that stay in cache; `Device.block_size` says how long they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any, ClassVar

from mlpd.core.data_types import PRECISIONS
from mlpd.core.declaration import FRACTION, POSITIVE, Kind, setting
from mlpd.core.devices.arrays import Array, Device
from mlpd.core.network.network import Weights

# Where gradients stay zero, moments decay to subnormal numbers, on which processors are up to a hundred times slower.
# Every few steps those about to become subnormal are made zero, as a GPU does with each result. Squares that epsilon
# does not hide are kept as long as their type can: down to sixteen times its smallest normal number.
FLUSH_STEPS = 16

Factors = Mapping[str, Any]  # numbers, or what stands for those of each step


@dataclass(frozen=True)
class Block:
    """A stretch of all vectors: parameters, gradients, moments, and a spare one."""

    xp: Any
    p: Array
    g: Array
    moments: Mapping[str, Array]
    spare: Array


@dataclass(frozen=True)
class Optimizer(Kind):
    """How parameters move against their gradients: a value, whose ``moments`` name the vectors it keeps."""

    @property
    def is_linear(self) -> bool:
        """Whether a step is the gradient times the rate, so that a gradient may bring the rate with it."""
        return False

    @property
    def moments(self) -> tuple[str, ...]:
        """The vectors that it keeps: squares, and means of either sign."""
        return ()

    def factors(self, rate: float, step: int) -> Factors:
        """Return the numbers that `update` takes in step number ``step`` (from 0)."""
        return {"rate": rate}

    def update(self, block: Block, factors: Factors) -> None:
        """Make a step on a block; its gradients and spare are left undefined."""
        raise NotImplementedError


@dataclass(frozen=True)
class Sgd(Optimizer):
    """Stochastic gradient descent: ``v = momentum * v + g``, ``p -= rate * v``.

    With Nesterov's momentum ``p -= rate * (g + momentum * v)``: Sutskever et al. 2013, section 2, in the variant
    that evaluates the gradient at the parameters themselves (Bengio et al. 2013, arXiv:1212.0901, equation 7).
    """

    name, number = "sgd", 1
    momentum: float = setting(0.0, "Share of the last step that goes on", FRACTION, number=1, optional=True)
    nesterov: bool = setting(False, "Look ahead, as Nesterov's variant does; needs momentum", number=2)

    @property
    def is_linear(self) -> bool:
        """Whether there is no momentum."""
        return not self.momentum

    @property
    def moments(self) -> tuple[str, ...]:
        """The velocity, where there is momentum."""
        return ("velocity",) if self.momentum else ()

    def update(self, block: Block, factors: Factors) -> None:
        xp, p, g, rate = block.xp, block.p, block.g, factors["rate"]
        if self.momentum:
            v = block.moments["velocity"]
            xp.multiply(v, self.momentum, out=v)
            xp.add(v, g, out=v)
            if self.nesterov:
                xp.multiply(g, rate, out=g)
                xp.subtract(p, g, out=p)
            xp.multiply(v, rate * self.momentum if self.nesterov else rate, out=g)
        elif rate != 1.0:
            xp.multiply(g, rate, out=g)
        xp.subtract(p, g, out=p)


@dataclass(frozen=True)
class Adam(Optimizer):
    """Kingma & Ba 2015 (arXiv:1412.6980), algorithm 1; AdamW with decoupled weight decay."""

    name, number = "adam", 2
    called: ClassVar = {"adam": {}, "adamw": {"weight_decay": 0.01}}
    beta1: float = setting(0.9, "Decay of the mean gradient", FRACTION, number=1)
    beta2: float = setting(0.999, "Decay of the mean square", FRACTION, number=2)
    epsilon: float = setting(1e-8, "What is added to the root of the mean square", POSITIVE, number=3)

    @property
    def moments(self) -> tuple[str, ...]:
        """Sums of gradients and of their squares, each decayed: m and v, but for factors of ``1 - beta``."""
        return "first_moment", "second_moment"

    def factors(self, rate: float, step: int) -> Factors:
        """Gather all factors of the moments in one rate and one epsilon, which saves passes over the vectors."""
        mean_factor = (1 - self.beta1) / (1 - self.beta1 ** (step + 1))
        root_factor = sqrt((1 - self.beta2) / (1 - self.beta2 ** (step + 1)))
        return {"rate": rate * mean_factor / root_factor, "epsilon": self.epsilon / root_factor}

    def update(self, block: Block, factors: Factors) -> None:
        """Make one step: ``p -= rate * m / (1 - beta1**t) / (sqrt(v / (1 - beta2**t)) + epsilon)``."""
        xp, g, spare = block.xp, block.g, block.spare
        m, v = block.moments["first_moment"], block.moments["second_moment"]
        xp.multiply(m, self.beta1, out=m)
        xp.add(m, g, out=m)
        xp.multiply(g, g, out=g)
        xp.multiply(v, self.beta2, out=v)
        xp.add(v, g, out=v)
        xp.sqrt(v, out=spare)
        xp.add(spare, factors["epsilon"], out=spare)
        xp.divide(m, spare, out=spare)
        xp.multiply(spare, factors["rate"], out=spare)
        xp.subtract(block.p, spare, out=block.p)


@dataclass(frozen=True)
class RmsProp(Optimizer):
    """``s = decay * s + (1 - decay) * g**2``, ``p -= rate * v``: Tieleman & Hinton 2012, lecture 6.5.

    ``v`` is ``g / (sqrt(s) + epsilon)``, summed with ``momentum`` as in `Sgd`.
    """

    name, number = "rmsprop", 4
    decay: float = setting(0.99, "Decay of the mean square", FRACTION, number=1)
    epsilon: float = setting(1e-8, "What is added to the root of the mean square", POSITIVE, number=2)
    momentum: float = setting(0.0, "Share of the last step that goes on", FRACTION, number=3, optional=True)

    @property
    def moments(self) -> tuple[str, ...]:
        """The second moment and, where there is momentum, the velocity."""
        return ("square", "velocity") if self.momentum else ("square",)

    def update(self, block: Block, factors: Factors) -> None:
        xp, g, s, spare = block.xp, block.g, block.moments["square"], block.spare
        xp.multiply(g, g, out=spare)
        _move_towards(xp, s, spare, self.decay, 1 - self.decay, spare)
        _normalize(xp, g, s, self.epsilon, spare)
        if self.momentum:
            v = block.moments["velocity"]
            xp.multiply(v, self.momentum, out=v)
            xp.add(v, g, out=v)
            xp.multiply(v, factors["rate"], out=g)
        else:
            xp.multiply(g, factors["rate"], out=g)
        xp.subtract(block.p, g, out=block.p)


@dataclass(frozen=True)
class AdaGrad(Optimizer):
    """``s += g**2``, ``p -= rate * g / (sqrt(s) + epsilon)``: Duchi, Hazan & Singer 2011, section 1.1, diagonal."""

    name, number = "adagrad", 5
    epsilon: float = setting(1e-10, "What is added to the root of the sum of squares", POSITIVE, number=1)

    @property
    def moments(self) -> tuple[str, ...]:
        """The sum of squares."""
        return ("square",)

    def update(self, block: Block, factors: Factors) -> None:
        xp, g, s, spare = block.xp, block.g, block.moments["square"], block.spare
        xp.multiply(g, g, out=spare)
        xp.add(s, spare, out=s)
        _normalize(xp, g, s, self.epsilon, spare)
        xp.multiply(g, factors["rate"], out=g)
        xp.subtract(block.p, g, out=block.p)


@dataclass(frozen=True)
class Lion(Optimizer):
    """``p -= rate * sign(beta1 * m + (1 - beta1) * g)``, then ``m = beta2 * m + (1 - beta2) * g``.

    Chen et al. 2023 (arXiv:2302.06675), algorithm 2. Its steps have the size of the rate, so a good one is smaller
    than Adam's, by three to ten.
    """

    name, number = "lion", 6
    beta1: float = setting(0.9, "Share of the mean gradient in a step", FRACTION, number=1)
    beta2: float = setting(0.99, "Decay of the mean gradient", FRACTION, number=2)

    @property
    def moments(self) -> tuple[str, ...]:
        """The mean gradient."""
        return ("mean",)

    def update(self, block: Block, factors: Factors) -> None:
        xp, g, m, spare = block.xp, block.g, block.moments["mean"], block.spare
        xp.subtract(m, g, out=spare)
        xp.multiply(spare, self.beta1, out=spare)
        xp.add(spare, g, out=spare)
        _move_towards(xp, m, g, self.beta2, 1 - self.beta2, g)
        xp.greater(spare, 0, out=g)
        xp.less(spare, 0, out=spare)
        xp.subtract(g, spare, out=g)  # the sign, in a fraction of the time that NumPy's takes
        xp.multiply(g, factors["rate"], out=g)
        xp.subtract(block.p, g, out=block.p)


def smallest_kept(optimizer: Optimizer, moment: str, dtype: str) -> float:
    """Return below which size the values of a moment are made zero."""
    precision = PRECISIONS[dtype]
    if not (moment in {"square", "second_moment"} and isinstance(optimizer, Adam | RmsProp | AdaGrad)):
        return precision.smallest_mean
    usual, least = precision.smallest_square
    # Without its square s a step is g / epsilon, not g / (epsilon + sqrt(s)): longer by s / epsilon**2 rates at most.
    return max(least, min(usual, precision.spacing * optimizer.epsilon**2))


OPTIMIZERS: dict[str, type[Optimizer]] = {kind.name: kind for kind in Optimizer.__subclasses__()}


class OptimizerState:
    """Moves ``parameters`` against ``gradients``, and keeps the moments of one run; not for use by two threads."""

    def __init__(
        self,
        device: Device,
        optimizer: Optimizer,
        parameters: Array,
        gradients: Array,
        moments: Mapping[str, Array] | None = None,
    ) -> None:
        xp, self._optimizer = device.xp, optimizer
        size = max(1, min(device.block_size, len(parameters)))
        if moments is None:
            moments = {name: device.zeros(len(parameters), parameters.dtype) for name in optimizer.moments}
        self.moments = moments
        self._smallest = {name: smallest_kept(optimizer, name, parameters.dtype.name) for name in optimizer.moments}
        spare = xp.zeros_like(parameters[:size])
        self._blocks = []
        for start in range(0, len(parameters), size):
            cut = slice(start, start + size)
            own = {name: vector[cut] for name, vector in moments.items()}
            block = Block(xp, parameters[cut], gradients[cut], own, spare[: len(parameters[cut])])
            self._blocks.append(block)

    def update(self, factors: Factors, *, flushing: Any) -> None:
        """Make a step with the optimizer's ``factors``; the gradients serve as scratch and are left undefined.

        Every `FLUSH_STEPS` steps what is about to become subnormal becomes zero: ``flushing`` is 1 then, else None. It
        may also stand for a number of each step, 1 or 0.
        """
        for block in self._blocks:
            self._optimizer.update(block, factors)
            if flushing is not None:
                for name, smallest in self._smallest.items():
                    _flush(block.xp, block.moments[name], flushing * smallest, block.spare)


class Clipping:
    """Scales a gradient down to a global norm of at most ``norm``, without a wait: Pascanu et al. 2013, algorithm 1.

    ``squares`` (parts, 1, 1) has a place for what each part of the gradient adds to the squared norm.
    """

    def __init__(self, device: Device, norm: float, dtype: Any, squares: Array | None = None) -> None:
        self._device, self._norm = device, norm
        self._squares = device.zeros((1, 1, 1), dtype) if squares is None else squares
        self._factor = device.xp.zeros((1, 1), dtype=dtype)

    def __call__(self, gradients: Array) -> None:
        """Scale ``gradients``, all there are, in place."""
        self.measure(gradients, 0)
        self.scale(gradients)

    def measure(self, gradients: Array, part: int) -> None:
        """Note the size of a part of the gradients."""
        self._device.square_sum(gradients, self._squares[part])

    def scale(self, gradients: Array) -> None:
        """Scale a part of the gradients in place, when all have been measured."""
        xp, factor = self._device.xp, self._factor
        xp.sum(self._squares, axis=0, out=factor)
        xp.sqrt(factor, out=factor)
        xp.maximum(factor, self._norm, out=factor)
        xp.divide(self._norm, factor, out=factor)
        xp.multiply(gradients, factor[0], out=gradients)


class Average:
    """Moving averages of weights: Polyak & Juditsky 1992, exponentially weighted. The caller writes the first ones.

    Early on, when there is little to average, the decay is (1 + step) / (10 + step) at most.
    """

    def __init__(self, device: Device, current: Weights, averages: Weights) -> None:
        self._xp, self._current, self._averages, self._block_size = device.xp, current, averages, device.block_size
        longest = max(current, key=len)
        self._spare = device.xp.zeros_like(longest[: self._block_size])

    @staticmethod
    def factors(decay: float, step: int) -> Factors:
        """Return the numbers that `update` takes after step number ``step`` (from 0)."""
        decay = min(decay, (1 + step) / (10 + step))
        return {"average_decay": decay, "average_rest": 1 - decay}

    def update(self, factors: Factors) -> None:
        """Move the averages towards the current weights."""
        decay, rest = factors["average_decay"], factors["average_rest"]
        for current, average in zip(self._current, self._averages, strict=True):
            for start in range(0, len(average), self._block_size):
                cut = slice(start, start + self._block_size)
                spare = self._spare[: len(average[cut])]
                _move_towards(self._xp, average[cut], current[cut], decay, rest, spare)


def _move_towards(xp: Any, mean: Array, value: Array, decay: Any, rest: Any, spare: Array) -> None:
    """Make ``mean`` ``decay * mean + rest * value``; ``spare`` may be ``value`` itself."""
    xp.multiply(value, rest, out=spare)
    xp.multiply(mean, decay, out=mean)
    xp.add(mean, spare, out=mean)


def _normalize(xp: Any, g: Array, square: Array, epsilon: float, spare: Array) -> None:
    """Divide ``g`` by ``sqrt(square) + epsilon``."""
    xp.sqrt(square, out=spare)
    xp.add(spare, epsilon, out=spare)
    xp.divide(g, spare, out=g)


def _flush(xp: Any, vector: Array, smallest: Any, scratch: Array) -> None:
    """Make zero what is smaller than ``smallest``; if that is 0, nothing."""
    xp.absolute(vector, out=scratch)
    xp.greater(scratch, smallest, out=scratch)
    xp.multiply(vector, scratch, out=vector)
