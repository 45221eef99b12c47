"""Random numbers as a pure function of (seed, purpose, epoch): nothing to store, nothing to resume.

Philox (Salmon et al. 2011) turns a counter into bits; the seed is its key, and purpose and epoch stand in
the counter's upper words. Everything is drawn on the host from raw bits, so that it depends neither on
the device nor on NumPy's choice of distributions.
"""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


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
    radius, angle = np.sqrt(-2.0 * np.log(u[:pairs])), 2.0 * np.pi * u[pairs:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]


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
