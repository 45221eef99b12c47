"""Random numbers as a pure function of (seed, purpose, epoch): nothing to store, nothing to resume.

Philox (Salmon et al. 2011) turns a counter into bits; the seed is its key, and purpose and epoch stand in
the counter's upper words. Everything is drawn on the host from raw bits, so that it depends neither on
the device nor on NumPy's choice of distributions; nor on the processor, for whose vector units NumPy has logarithms and
cosines of their own, which differ in the last bit.
"""

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

_BLOCK = 4096  # so many numbers and what is computed with them stay in the caches


class Purpose(IntEnum):
    """What numbers are for; no two purposes share any."""

    WEIGHTS = 1
    ORDER = 2
    AUGMENTATION = 3
    DROPOUT = 4
    SPLIT = 5
    MIXING = 6


def generator(seed: int, purpose: Purpose, index: int, position: int = 0) -> np.random.Philox:
    """Return the stream of words that begins four times ``position`` words after that of (seed, purpose, index)."""
    return np.random.Philox(key=seed, counter=np.array([position, 0, index, purpose], np.uint64))


def bits(seed: int, purpose: Purpose, index: int, count: int) -> NDArray[np.uint64]:
    """Return ``count`` uniform 64-bit words; ``index`` numbers the epochs, layers, ... of one purpose."""
    words: NDArray[np.uint64] = generator(seed, purpose, index).random_raw(count)
    return words


def uniform(seed: int, purpose: Purpose, index: int, count: int) -> NDArray[np.float64]:
    """Return ``count`` numbers, uniform in the open interval (0, 1)."""
    return (np.right_shift(bits(seed, purpose, index, count), 11).astype(np.float64) + 0.5) * 2.0**-53


def normal(seed: int, purpose: Purpose, index: int, count: int) -> NDArray[np.float64]:
    """Return ``count`` standard normal numbers (Box & Muller 1958)."""
    pairs = -(-count // 2)
    u = uniform(seed, purpose, index, 2 * pairs)
    numbers = np.empty(2 * pairs)
    for start in range(0, pairs, _BLOCK):
        own = slice(start, min(start + _BLOCK, pairs))
        radius = np.sqrt(-2.0 * _log(u[:pairs][own]))
        cosine, sine = _cosine_and_sine(2.0 * np.pi * u[pairs:][own])
        np.multiply(radius, cosine, out=numbers[:pairs][own])
        np.multiply(radius, sine, out=numbers[pairs:][own])
    return numbers[:count]


def permutation(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """Return the order in which an epoch visits ``count`` rows: that of their random words."""
    numbered = bits(seed, Purpose.ORDER, epoch, count)
    # To sort words whose last bits are the rows' numbers takes less time than an argsort.
    number_bits = np.uint64(max(count - 1, 1).bit_length())
    numbered >>= number_bits
    numbered <<= number_bits
    numbered |= np.arange(count, dtype=np.uint64)
    numbered.sort()
    if not ((numbered[1:] ^ numbered[:-1]) >> number_bits).all():  # the bits that were given up decide
        order: NDArray[np.int64] = np.argsort(bits(seed, Purpose.ORDER, epoch, count), kind="stable")
        return order
    numbered &= (np.uint64(1) << number_bits) - np.uint64(1)
    return numbered.view(np.int64)


# Sun's fdlibm, e_log.c, k_sin.c, k_cos.c and e_rem_pio2.c: within one unit in the last place, by sums and products
# alone, whose bits IEEE 754 fixes. Coefficients are of rising powers, ln 2 and pi/2 in parts, the first short enough to
# be exact times a small whole number.
_LN2 = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_LOG_EVEN = 3.999999999940941908e-01, 2.222219843214978396e-01, 1.531383769920937332e-01
_LOG_ODD = 6.666666666666735130e-01, 2.857142874366239149e-01, 1.818357216161805012e-01, 1.479819860511658591e-01
_HALF_PI = 1.57079632673412561417e00, 6.07710050630396597660e-11, 2.02226624879595063154e-21
_SINE = (
    *(-1.66666666666666324348e-01, 8.33333333332248946124e-03, -1.98412698298579493134e-04),
    *(2.75573137070700676789e-06, -2.50507602534068634195e-08, 1.58969099521155010221e-10),
)
_COSINE = (
    *(4.16666666666666019037e-02, -1.38888888888741095749e-03, 2.48015872894767294178e-05),
    *(-2.75573143513906633035e-07, 2.08757232129817482790e-09, -1.13596475577881948265e-11),
)


def _polynomial(x: NDArray[np.float64], coefficients: Sequence[float]) -> NDArray[np.float64]:
    total = np.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total *= x
        total += coefficient
    return total


def _log(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return natural logarithms of positive, normal numbers."""
    mantissa, exponent = np.frexp(x)
    small = mantissa < np.sqrt(0.5)
    f = np.where(small, 2.0 * mantissa, mantissa) - 1.0
    k = exponent - small.astype(np.float64)
    s = f / (2.0 + f)
    z = s * s
    w = z * z
    rest = z * _polynomial(w, _LOG_ODD) + w * _polynomial(w, _LOG_EVEN)
    half_square = 0.5 * f * f
    logarithm: NDArray[np.float64] = k * _LN2[0] - ((half_square - (s * (half_square + rest) + k * _LN2[1])) - f)
    return logarithm


def _cosine_and_sine(x: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return cosines and sines of angles from 0 to a few turns."""
    quarter = np.rint(x * (2.0 / np.pi))
    rest = x - quarter * _HALF_PI[0]
    part = quarter * _HALF_PI[1]
    near = rest - part
    tail = quarter * _HALF_PI[2] - ((rest - near) - part)
    y = near - tail
    tail = (near - y) - tail
    z = y * y
    cube = z * y
    sine = y - ((z * (0.5 * tail - cube * _polynomial(z, _SINE[1:])) - tail) - cube * _SINE[0])
    half_square = 0.5 * z
    one = 1.0 - half_square
    cosine = one + (((1.0 - one) - half_square) + (z * (z * _polynomial(z, _COSINE)) - y * tail))
    turns = quarter.astype(np.int64) % 4
    swapped, negative_cosine, negative_sine = turns % 2 == 1, (turns == 1) | (turns == 2), turns >= 2
    return (
        np.where(swapped, sine, cosine) * np.where(negative_cosine, -1.0, 1.0),
        np.where(swapped, cosine, sine) * np.where(negative_sine, -1.0, 1.0),
    )
