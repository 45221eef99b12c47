"""Recording: formulas run once on a namespace that notes their calls instead of making them.

Arrays are the device's own, so that slices, transposes and other views work as ever. A number that changes from step to
step is given to the formulas as a `Scalar`, which can only be an operand of a call or be multiplied by a number.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from mlpd.core.arithmetic.functions import BY_NUMBER
from mlpd.core.devices.arrays import Array, Device

Numbers = Mapping[str, float]  # the values of a micro-batch's scalars, by name

# Everything that formulas may call; other calls raise `NotRecordable`.
ELEMENTWISE = frozenset(
    (
        *("absolute", "add", "copyto", "divide", "equal", "exp", "expm1", "greater", "greater_equal", "less", "log"),
        *("log1p", "maximum", "minimum", "multiply", "negative", "sign", "sqrt", "subtract", "tanh"),
    )
)
_OPTIONS = frozenset(("casting", "dtype"))
REDUCTIONS = frozenset(("argmax", "max", "sum"))
DEVICE_CALLS = frozenset(("add_product", "column_sums", "draw", "gather", "matmul", "square_sum"))
_MAKERS = frozenset(
    (
        *("arange", "empty", "empty_like", "zeros", "zeros_like"),
        *("float32", "float64", "int32", "int64", "uint8", "uint16", "uint64"),
    )
)


_OF_FLOATS = frozenset(("absolute", "divide", "exp", "expm1", "log", "log1p", "sign", "sqrt", "tanh"))


class NotRecordable(TypeError):
    """A formula's call can't be recorded or compiled; the message says which."""


@dataclass(frozen=True)
class Scalar:
    """A number that each micro-batch has another of: ``factor`` times the one called ``name``."""

    name: str
    factor: float = 1.0

    def __mul__(self, factor: float) -> "Scalar":
        return Scalar(self.name, self.factor * factor)

    def of(self, numbers: Numbers) -> float:
        """Return the value in a micro-batch with these ``numbers``."""
        number = numbers[self.name]
        return number if self.factor == 1.0 else number * self.factor


Operand = Any  # an array, a number, or a Scalar


@dataclass(frozen=True, eq=False)
class Chosen:
    """The operand of a gather, rows of ``source``: from ``first`` on or, with an ``order`` (count,), those it names."""

    source: Array
    order: Array | None
    first: Any

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the rows."""
        dtype: np.dtype[Any] = self.source.dtype
        return dtype


@dataclass(frozen=True, eq=False)
class Op:
    """A call of the namespace or of the device: ``name(*operands, out=out, **options)``."""

    name: str
    operands: tuple[Operand, ...]
    out: Array
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Bytes that the call reads and writes."""
        if self.name == "gather":
            return 2 * int(self.out.nbytes)
        return sum(int(part.nbytes) for part in (*self.operands, self.out) if hasattr(part, "nbytes"))

    @property
    def operations(self) -> int:
        """Floating-point operations of the call; a function of a number counts as one."""
        first = self.operands[0] if self.operands else self.out
        if self.name in ("matmul", "add_product"):
            return 2 * int(self.out.size) * int(first.shape[1])
        if self.name == "gather":
            return 0
        return max(int(part.size) for part in (*self.operands, self.out) if hasattr(part, "size"))

    def call(self, device: Device) -> Callable[[Numbers], object]:
        """Return a function of a micro-batch's numbers that makes the call on ``device``."""
        owner = device if self.name in DEVICE_CALLS else device.xp
        function = getattr(owner, self.name)
        if self.name == "copyto":
            function = _copy_to(function)
        make = partial(function, out=self.out, **self.options)
        operands = self.operands
        if not any(isinstance(operand, Scalar) for operand in operands):
            bound = partial(make, *operands)
            return lambda _: bound()
        return lambda numbers: make(*(o.of(numbers) if isinstance(o, Scalar) else o for o in operands))


def calculation_type(operands: Sequence[Operand], out: Array, options: Mapping[str, Any]) -> str:
    """Return the type in which an element-wise call computes, as NumPy chooses it.

    Operands are arrays or anything else that has a type ``dtype``, numbers, and scalars.
    """
    types = [operand.dtype for operand in operands if hasattr(operand, "dtype")]
    if not types:
        return str(out.dtype.name)
    numbers = [1.0 if isinstance(operand, Scalar) else operand for operand in operands if not hasattr(operand, "dtype")]
    return str(np.dtype(options.get("dtype") or np.result_type(*numbers, *types)).name)


def compilable(name: str, operands: Sequence[Operand], kind: str) -> Sequence[Operand]:
    """Return the operands of an element-wise call that computes in type ``kind``, in an order for generated code.

    Raises `NotRecordable` if the function, or one of the numbers among them, can't be compiled for that type.
    """
    if name in _OF_FLOATS and not kind.startswith("float"):
        raise NotRecordable(f"{name} of {kind} can't be compiled")
    for operand in operands:
        if isinstance(operand, int | float | np.generic) and not _fits(operand, kind):
            raise NotRecordable(f"{name} can't be compiled of {operand} and numbers of type {kind}")
    # Code for a constant on the right takes it for a number.
    swapped = name in BY_NUMBER and isinstance(operands[1], float | np.floating) and np.isnan(operands[1])
    return operands[::-1] if swapped else operands


def _fits(number: Operand, kind: str) -> bool:
    """Whether ``number`` is one of type ``kind``, by way of a float64 and, if that is an integer, an int64."""
    if kind.startswith("float"):
        return True
    limits = np.iinfo(kind)
    is_whole = number == float(number) and float(number).is_integer()
    return bool(is_whole and int(limits.min) <= number <= int(min(limits.max, np.iinfo(np.int64).max)))


def _copy_to(copyto: Callable[[Array, Operand], None]) -> Callable[..., None]:
    def copy(value: Operand, out: Array) -> None:
        copyto(out, value)

    return copy


class Recorder:
    """The namespace ``xp`` while formulas are recorded: passes each call to ``note``."""

    def __init__(self, xp: Any, note: Callable[[Op], None]) -> None:
        self._xp, self._note = xp, note

    def __getattr__(self, name: str) -> Any:
        if name in _MAKERS:
            return getattr(self._xp, name)
        if name not in ELEMENTWISE and name not in REDUCTIONS:
            raise NotRecordable(f"a step can't be recorded that calls xp.{name}")
        return partial(self._take, name)

    def _take(self, name: str, *operands: Operand, out: Array = None, **options: Any) -> None:
        if name == "copyto":
            out, *operands = operands  # type: ignore[assignment]
        if out is None:
            raise NotRecordable(f"a step can't be recorded that calls xp.{name} without out")
        if unknown := options.keys() - (_OPTIONS | ({"axis", "keepdims"} if name in REDUCTIONS else set())):
            raise NotRecordable(f"a step can't be recorded that calls xp.{name} with {', '.join(sorted(unknown))}")
        self._note(Op(name, tuple(operands), out, options))


class RecordingDevice:
    """A `Device` that makes real arrays but only notes calls; `take` returns them.

    Options of a call of the device are hints for what compiles it.
    """

    def __init__(self, device: Device) -> None:
        self._device, self._ops = device, list[Op]()
        self.xp: Any = Recorder(device.xp, self._ops.append)

    def __getattr__(self, name: str) -> Any:
        return partial(self._take_note, name) if name in DEVICE_CALLS else getattr(self._device, name)

    def _take_note(self, name: str, *operands: Operand, **hints: Any) -> None:
        *given, out = operands
        self._ops.append(Op(name, tuple(given), out, hints))

    def take(self) -> list[Op]:
        """Return the calls noted since the last `take`."""
        ops = self._ops.copy()
        self._ops.clear()
        return ops
