"""What generated code computes in its self-test: functions, products, quotients and sums of fixed numbers."""

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from mlpd.core.devices.arrays import HostArray

KINDS = ("float32", "float64")
FUNCTIONS = ("exp", "expm1", "log", "log1p", "sqrt", "tanh")
_COUNT = 1009  # values: no multiple of the lanes
_ROWS, _COLUMNS, _INNER = 7, 70, 400  # of a product: no multiples of a tile or a chunk


class Sample(NamedTuple):
    """Numbers of one type: ``values`` (count,), ``a`` (rows, inner), and ``b`` (columns, inner).

    Results are the `FUNCTIONS` of the values and the quotient of the first and the values (functions + 1, count), the
    sum of the values (1,), and the product of ``a`` and the transpose of ``b`` (rows, columns).
    """

    values: HostArray
    a: HostArray
    b: HostArray


def sample_of(kind: str) -> Sample:
    """Return the numbers of type ``kind``, computed without rounding."""
    sizes = np.ldexp(1.0, (np.arange(_COUNT) * 37) % 61 - 40)  # of values, of either sign: below 2**20
    a, b = (_fractions(lines * _INNER).astype(kind).reshape(lines, _INNER) for lines in (_ROWS, _COLUMNS))
    return Sample((_fractions(_COUNT) * sizes).astype(kind), a, b)


def digest_of(results: Iterable[HostArray]) -> str:
    """Return 64 bits (16 hex digits) of a digest of the results, of each of the `KINDS` in turn."""
    digest = hashlib.sha256()
    for array in results:
        digest.update(np.where(np.isnan(array), array.dtype.type(0), array).tobytes())  # a NaN's sign is not defined
    return digest.hexdigest()[:16]


def _fractions(count: int) -> HostArray:
    return (np.arange(count) * 7919 % 4001 - 2000) / 2048
