"""Layers as frozen values: sizes, and pure functions that write into what they are given.

An in-place layer writes its outputs over its inputs; its derivative needs only its outputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from mlpd.core.arrays import Array


class Layer(Protocol):
    """A function of rows (rows, inputs) with outputs (rows, width)."""

    in_place: ClassVar[bool]

    @property
    def width(self) -> int:
        """Values in an output row."""

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the parameters."""

    def forward(self, xp: Any, parameters: Sequence[Array], x: Array, y: Array) -> None:
        """Write the outputs of ``x`` to ``y``."""

    def backward(
        self,
        xp: Any,
        parameters: Sequence[Array],
        gradients: Sequence[Array],
        x: Array,
        y: Array,
        dy: Array,
        dx: Array | None,
    ) -> None:
        """From the gradient ``dy`` of the outputs, write those of the parameters and, unless None, of the inputs.

        ``x`` and ``y`` are not needed afterwards and may be overwritten.
        """


@dataclass(frozen=True)
class Affine:
    """``y = x @ weight + bias``."""

    inputs: int
    width: int
    in_place: ClassVar[bool] = False

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Weight (inputs, width) and bias (width,)."""
        return (self.inputs, self.width), (self.width,)

    def forward(self, xp: Any, parameters: Sequence[Array], x: Array, y: Array) -> None:
        """Write the outputs of ``x`` to ``y``."""
        weight, bias = parameters
        xp.matmul(x, weight, out=y)
        xp.add(y, bias, out=y)

    def backward(
        self,
        xp: Any,
        parameters: Sequence[Array],
        gradients: Sequence[Array],
        x: Array,
        y: Array,
        dy: Array,
        dx: Array | None,
    ) -> None:
        """Write the gradients of weight, bias and, unless None, of the inputs."""
        xp.matmul(x.T, dy, out=gradients[0])
        xp.sum(dy, axis=0, out=gradients[1])
        if dx is not None:
            xp.matmul(dy, parameters[0].T, out=dx)


@dataclass(frozen=True)
class Relu:
    """``y = max(x, 0)``, whose derivative is ``sign(y)`` because ``y >= 0``."""

    width: int
    in_place: ClassVar[bool] = True
    shapes: ClassVar[tuple[tuple[int, ...], ...]] = ()

    def forward(self, xp: Any, parameters: Sequence[Array], x: Array, y: Array) -> None:
        """Write the outputs of ``x`` to ``y``."""
        xp.maximum(x, 0, out=y)

    def backward(
        self,
        xp: Any,
        parameters: Sequence[Array],
        gradients: Sequence[Array],
        x: Array,
        y: Array,
        dy: Array,
        dx: Array | None,
    ) -> None:
        """Write the gradient of the inputs."""
        xp.sign(y, out=y)
        xp.multiply(dy, y, out=dx)
