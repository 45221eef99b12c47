"""What the calls of a recording make of numbers, by name."""

from collections.abc import Callable
from typing import Any

import numpy as np
from mlpd.core.arithmetic.elementary import exp, expm1, log, log1p, tanh
from mlpd.core.arithmetic.numbers import N, at_least, at_most, maximum, minimum, select

ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "absolute": lambda x: x.absolute(),
    "add": lambda x, y: x + y,
    "copyto": lambda x: x,
    "divide": lambda x, y: x / y,
    "equal": lambda x, y: x.equals(y),
    "exp": exp,
    "expm1": expm1,
    "greater": lambda x, y: x > y,
    "greater_equal": lambda x, y: x >= y,
    "less": lambda x, y: x < y,
    "log": log,
    "log1p": log1p,
    "maximum": maximum,
    "minimum": minimum,
    "multiply": lambda x, y: x * y,
    "negative": lambda x: -x,
    "sign": lambda x: select(x.is_nan(), x, (x > 0).to(x.kind) - (x < 0).to(x.kind)),
    "sqrt": lambda x: x.square_root(),
    "subtract": lambda x, y: x - y,
    "tanh": tanh,
}
# Where the second operand is a constant, which is not NaN.
BY_NUMBER: dict[str, Callable[..., Any]] = {"maximum": at_least, "minimum": at_most}
# How two results of a reduction become one.
COMBINE: dict[str, Callable[..., Any]] = {
    "sum": lambda x, y: x + y,
    "square_sum": lambda x, y: x + y,
    "max": maximum,
}

_MULTIPLIERS = 0xD2E7470EE14C6C93, 0xCA5A826395121157
_KEY_STEPS = 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B


def start_of(name: str, kind: str) -> float:
    """Return the result of a reduction of no numbers of type ``kind``; an argmax begins as a max does."""
    if name not in ("max", "argmax"):
        return 0
    return float("-inf") if kind.startswith("float") else int(np.iinfo(kind).min)


def philox(counter: list[N], seed: N) -> list[N]:
    """Return the four words of a counter, all uint64: Philox4x64-10, Salmon et al. 2011, section 3.3 and table 2."""
    a, b, c, d = counter
    keys = [seed, seed.like(0)]
    for _ in range(10):
        high, low = a.high_product(_MULTIPLIERS[0]), a * _MULTIPLIERS[0]
        other_high, other_low = c.high_product(_MULTIPLIERS[1]), c * _MULTIPLIERS[1]
        a, b = other_high ^ b ^ keys[0], other_low
        c, d = high ^ d ^ keys[1], low
        keys = [key + step for key, step in zip(keys, _KEY_STEPS, strict=True)]
    return [a, b, c, d]
