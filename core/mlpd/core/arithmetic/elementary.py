"""exp, expm1, log, log1p and tanh of `Number`, with the same bits on every processor.

They have no branches, are within 2 units in the last place over the whole range of float32 and float64, and consist of
operations that IEEE 754 rounds correctly. Unless a comment says otherwise, formulas and coefficients are those of
fdlibm (Sun Microsystems, 1993) and of its float32 versions in musl, for tanh those of Cephes (Moshier, 1989). Muller,
Elementary Functions (3rd edition, 2016), explains them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Generic

from mlpd.core.arithmetic.numbers import N, at_least, at_most, select


@dataclass(frozen=True)
class _Format:
    """Constants of the formulas for one type of float; coefficients begin with the lowest power."""

    fraction_bits: int
    bias: int  # of the exponent
    root_half: int  # the bits of sqrt(1/2)
    # ln 2 = high + low, where high has so few bits that its product with any exponent is exact (Cody and Waite,
    # Software Manual for the Elementary Functions, 1980); from musl's expf.c and fdlibm's e_exp.c.
    ln2_high: float
    ln2_low: float
    # Limits beyond which results are constant: exp is 0 below exp_least and infinite above exp_most, expm1 is -1 below
    # expm1_least, tanh is 1 above half of tanh_most.
    exp_least: float
    exp_most: float
    expm1_least: float
    tanh_most: float
    # (exp(r) - 1 - r) / r**2 for |r| <= 0.34675: ln(2) / 2, and a little more where n is rounded to the other integer.
    # From Remez's exchange (Muller, chapter 3); the relative error of expm1 is at most 1.8e-8 or, in float64, 3.3e-17.
    exp_coefficients: tuple[float, ...]
    # (log((1 + s) / (1 - s)) / s - 2) / s**2 in s**2: Lg1, Lg2 and so on of musl's logf.c and of fdlibm's e_log.c.
    log_coefficients: tuple[float, ...]
    # (tanh(x) / x - 1) / x**2 as a quotient of polynomials in x**2 for |x| < 0.625. In float32 from Lambert's continued
    # fraction x / (1 + x**2 / (3 + x**2 / (5 + x**2 / (7 + x**2 / 9)))), with a relative error of tanh of at most
    # 7.5e-10; in float64 from Cephes's tanh.c.
    tanh_numerator: tuple[float, ...]
    tanh_denominator: tuple[float, ...]


_FORMATS = {
    "float32": _Format(
        fraction_bits=23,
        bias=127,
        root_half=0x3F3504F3,
        ln2_high=6.9314575195e-01,
        ln2_low=1.4286067653e-06,
        exp_least=-104.0,
        exp_most=89.0,
        expm1_least=-18.0,
        tanh_most=20.0,
        exp_coefficients=(
            *(0.4999999701976776, 0.1666654348373413, 0.04166720062494278, 0.008366547524929047),
            0.0013882518978789449,
        ),
        log_coefficients=(0.66666662693, 0.40000972152, 0.28498786688, 0.24279078841),
        tanh_numerator=(-21.0, -14.0 / 15.0),
        tanh_denominator=(63.0, 28.0, 1.0),
    ),
    "float64": _Format(
        fraction_bits=52,
        bias=1023,
        root_half=0x3FE6A09E667F3BCD,
        ln2_high=6.93147180369123816490e-01,
        ln2_low=1.90821492927058770002e-10,
        exp_least=-746.0,
        exp_most=710.0,
        expm1_least=-40.0,
        tanh_most=40.0,
        exp_coefficients=(
            *(0.5000000000000006, 0.16666666666666588, 0.04166666666657646, 0.008333333333389733),
            *(0.0013888888931669209, 0.00019841269718713647, 2.4801505139998588e-05, 2.7557407680767177e-06),
            *(2.762609396840829e-07, 2.505377846504643e-08),
        ),
        log_coefficients=(
            *(6.666666666666735130e-01, 3.999999999940941908e-01, 2.857142874366239149e-01, 2.222219843214978396e-01),
            *(1.818357216161805012e-01, 1.531383769920937332e-01, 1.479819860511658591e-01),
        ),
        tanh_numerator=(-1.61468768441708447952e03, -9.92877231001918586564e01, -9.64399179425052238628e-01),
        tanh_denominator=(4.84406305325125486048e03, 2.23548839060100448583e03, 1.12811678491632931402e02, 1.0),
    ),
}


def exp(x: N) -> N:
    """Return e to the power of ``x``."""
    form = _FORMATS[x.kind]
    reduced = _reduce(at_most(at_least(x, form.exp_least), form.exp_most), 2 * form.bias)
    # 2**n can overflow or underflow. Two powers, of about half of n each, do not, and only the last product rounds.
    first = (reduced.integer >> 1) << form.fraction_bits
    second = (reduced.integer << form.fraction_bits) - first
    return (reduced.rest + reduced.curve + 1) * first.as_float() * second.as_float()


def expm1(x: N) -> N:
    """Return e to the power of ``x``, minus 1."""
    form = _FORMATS[x.kind]
    reduced = _reduce(at_most(at_least(x, form.expm1_least), form.exp_most), form.bias)
    power = (reduced.integer << form.fraction_bits).as_float()
    # For the largest results 2**n overflows. They are computed from half of it; beside them, 1 or 2 is rounded away.
    most = 2.0**form.bias
    halved = power > most
    power = select(halved, power.like(most), power)
    # Unlike fdlibm's, this sum has one order for all n: the large terms, each of them exact, come first. Terms that can
    # be 0 are subtracted, because -0 - 0 keeps the sign that -0 + 0 loses.
    result = (power * reduced.high - (1 - power)) - power * (reduced.low - reduced.curve)
    return select(halved, result + result, result)


def log(x: N) -> N:
    """Return the natural logarithm of ``x``: minus infinity for 0, NaN for less."""
    form = _FORMATS[x.kind]
    shift = form.fraction_bits + 2
    subnormal = x < 2.0 ** (1 - form.bias)
    exponent, significand = _split(select(subnormal, x * 2.0**shift, x))
    zero = _exponent_zero(form)
    minus_exponent = select(subnormal, x.like(zero + shift), zero) - exponent
    return _with_ends(x, 0, _log_of_split(minus_exponent, significand - 1))


def log1p(x: N) -> N:
    """Return the natural logarithm of 1 + ``x``: minus infinity for -1, NaN for less."""
    form = _FORMATS[x.kind]
    larger, smaller = at_least(x, 1), at_most(x, 1)
    total = larger + smaller
    lost = smaller - (total - larger)  # what rounding took (Dekker, A Floating-Point Technique, 1971)
    exponent, significand = _split(total)
    # fdlibm adds lost / total to the logarithm. Adding lost * 2**-n to the fraction instead costs no division, and for
    # small x makes the fraction x itself. Where 2**-n underflows, what was lost does not count.
    inverse_power = (significand.bits() - total.bits() + x.like(1).bits()).as_float()
    fraction = lost * at_least(inverse_power, 0) - (1 - significand)
    return _with_ends(x, -1, _log_of_split(_exponent_zero(form) - exponent, fraction))


def tanh(x: N) -> N:
    """Return the hyperbolic tangent of ``x``."""
    form = _FORMATS[x.kind]
    sign = x.bits() & x.like(-0.0).bits()
    size = (x.bits() ^ sign).as_float()
    square = size * size
    reduced = _reduce(at_most(size + size, form.tanh_most), form.bias)
    growth = (reduced.rest + reduced.curve + 1) * (reduced.integer << form.fraction_bits).as_float()
    # For small x, x + x**3 times a quotient; for others, 1 - 2 / (exp(2 x) + 1). One division serves both.
    small = size < 0.625
    numerator = select(small, size * square * _polynomial(form.tanh_numerator, square), -2)
    denominator = select(small, _polynomial(form.tanh_denominator, square), growth + 1)
    result = select(small, size, 1) + numerator / denominator
    return (result.bits() | sign).as_float()


@dataclass(frozen=True)
class _Reduced(Generic[N]):
    """A number as n ln(2) + rest, where rest = high - low, and exp(rest) = 1 + rest + curve."""

    integer: N  # its lowest bits are those of n + added
    high: N
    low: N
    rest: N
    curve: N


def _reduce(x: N, added: int) -> _Reduced[N]:
    """Take n ln 2 from ``x``, where the factor n is the integer closest to x / ln 2; ``integer`` has n + ``added``."""
    form = _FORMATS[x.kind]
    # A float as large as this has no fraction: adding it rounds x / ln 2, and leaves n + added in the lowest bits.
    rounder = 2.0**form.fraction_bits + added
    rounded = x * (1 / math.log(2)) + rounder
    multiple = rounded - rounder
    high = x - multiple * form.ln2_high
    low = multiple * form.ln2_low
    rest = high - low
    return _Reduced(rounded.bits(), high, low, rest, rest * rest * _polynomial(form.exp_coefficients, rest))


def _split(x: N) -> tuple[N, N]:
    """Return the exponent of ``x``, positive and normal, and its significand, between sqrt(1/2) and sqrt(2).

    The exponent is a float, larger by `_exponent_zero`. A float that large is made by writing an integer to its lowest
    bits, without a conversion: few processors can convert vectors of 64-bit integers.
    """
    form = _FORMATS[x.kind]
    shifted = x.bits() + (x.like(1).bits() - form.root_half)
    exponent = (shifted >> form.fraction_bits) | x.like(2.0**form.fraction_bits).bits()
    significand = (shifted & (2**form.fraction_bits - 1)) + form.root_half
    return exponent.as_float(), significand.as_float()


def _exponent_zero(form: _Format) -> float:
    return 2.0**form.fraction_bits + form.bias


def _log_of_split(minus_exponent: N, fraction: N) -> N:
    """Return the logarithm of (1 + ``fraction``) / 2**``minus_exponent``.

    The sum is fdlibm's, but subtracts where adding would lose the sign of -0.
    """
    form = _FORMATS[fraction.kind]
    half_square = 0.5 * fraction * fraction
    ratio = fraction / (2 + fraction)
    square = ratio * ratio
    series = square * _polynomial(form.log_coefficients, square)
    small = ratio * (half_square + series) - minus_exponent * form.ln2_low
    return (fraction - (half_square - small)) - minus_exponent * form.ln2_high


def _with_ends(x: N, pole: float, result: N) -> N:
    """Return ``result`` for ``x`` between ``pole`` and infinity, else NaN below it, -infinity at it, ``x`` above."""
    elsewhere = select(x < pole, x.like(math.nan), -math.inf)
    return select(x < math.inf, select(x > pole, result, elsewhere), x)


def _polynomial(coefficients: tuple[float, ...], x: N) -> N:
    """Return a polynomial in ``x`` by Horner's rule, even and odd powers apart, so that neither waits for the other."""
    square = x * x
    return _horner(coefficients[::2], square) + x * _horner(coefficients[1::2], square)


def _horner(coefficients: tuple[float, ...], x: N) -> N:
    result = x.like(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = result * x + coefficient
    return result
