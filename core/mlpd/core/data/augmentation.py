"""Images warped at random while they are read: shift, rotation, scale, shear and elastic deformation.

Where an output pixel comes from is linear in a few numbers per image: an affine map (three numbers for each
coordinate) and the amplitudes of smooth displacement fields. So one matrix product gives all coordinates of a
batch. The numbers are a pure function of (seed, epoch, position in the epoch's order), so of the row as well.
"""

from dataclasses import dataclass
from math import ceil, pi, prod, sqrt

import numpy as np
from mlpd.core.declaration import REQUIRED, Count, Range, setting
from mlpd.core.devices.arrays import HostArray
from mlpd.core.random import Purpose, generator
from numpy.typing import NDArray

_BLOCK_ROWS = 32  # so many images and what is computed with them stay in a second-level cache
_AFFINE_NUMBERS = 5
_BUMP_SPACING = 1.5  # in widths


@dataclass(frozen=True)
class AugmentationSpec:
    """Images (image_height, image_width) in rows, and how far each may be changed; 0 leaves a change out.

    Every image gets its own shift along each axis, uniform in +-``shift_pixels``; rotation, uniform in
    +-``rotation_degrees``; factor of size, uniform in 1 +- ``scale``; horizontal shear, uniform in +-``shear``;
    and a smooth displacement of ``elastic_pixels`` standard deviation whose bumps are about
    ``elastic_smoothness_pixels`` wide.
    """

    image_height: int = setting(
        REQUIRED, "Lines of an image", Count(2), number=1, unit="pixels", unset="images are square", optional=False
    )
    image_width: int = setting(
        REQUIRED, "Pixels of a line", Count(2), number=2, unit="pixels", unset="images are square", optional=False
    )
    shift_pixels: float = setting(0.0, "Largest random shift along each axis", Range(0, 1e4), number=3)
    rotation_degrees: float = setting(0.0, "Largest random rotation", Range(0, 180), number=4)
    scale: float = setting(0.0, "Largest random change of size, as a fraction", Range(0, 0.9), number=5)
    shear: float = setting(0.0, "Largest random horizontal shear, as a fraction", Range(0, 10), number=6)
    elastic_pixels: float = setting(0.0, "Random elastic deformation: standard deviation", Range(0, 1e4), number=7)
    elastic_smoothness_pixels: float = setting(4.0, "Width of its bumps", Range(1, 1e4), number=8)


class Augmenter:
    """Warps rows of one run; not for use by two threads."""

    def __init__(self, spec: AugmentationSpec, seed: int) -> None:
        height, width = spec.image_height, spec.image_width
        self._spec, self._seed = spec, seed
        fields = np.zeros((0, height * width))
        if spec.elastic_pixels:
            bumps = [_bumps(size, spec.elastic_smoothness_pixels) for size in (height, width)]
            fields = spec.elastic_pixels * np.einsum("yj,xk->jkyx", *bumps).reshape(-1, height * width)
        self._fields = len(fields)
        v, u = np.mgrid[:height, :width].reshape(2, -1) - [[(height - 1) / 2], [(width - 1) / 2]]
        self._basis = np.concatenate([np.ones((1, height * width)), u[None], v[None], fields]).astype(np.float32)
        # Philox gives four words of two numbers each at a time; a row's numbers begin with a fresh four.
        self._counters = ceil((_AFFINE_NUMBERS + 2 * self._fields) / 8)
        size = (_BLOCK_ROWS, height * width)
        self._image, self._top, self._bottom = (np.empty(size, np.float32) for _ in range(3))
        self._floor = np.empty((2, *size), np.float32)
        self._coordinates = np.empty((2, *size), np.float32)
        self._index = np.empty(size, np.intp)
        self._first = (np.arange(_BLOCK_ROWS, dtype=np.float32) * (height * width))[:, None]

    def __call__(self, rows: HostArray, epoch: int, position: int, out: NDArray[np.float32]) -> None:
        """Write ``rows`` (count, height * width), read at ``position`` and after it, to ``out`` as float32, warped."""
        end = position + len(rows)
        # An image's bits must not depend on what is warped with it, and a BLAS may multiply each row of a matrix in its
        # own way: so every image has its place among those of a block, however the rows are cut.
        for first in range(position - position % _BLOCK_ROWS, end, _BLOCK_ROWS):
            start, stop = max(first, position), min(first + _BLOCK_ROWS, end)
            own = slice(start - position, stop - position)
            self._sample(rows[own], self._coefficients(epoch, first, _BLOCK_ROWS), start - first, out[own])

    def _coefficients(self, epoch: int, position: int, count: int) -> NDArray[np.float32]:
        """Return the factors (2, count, basis) of the basis for x and y."""
        spec = self._spec
        words = generator(self._seed, Purpose.AUGMENTATION, epoch, position * self._counters)
        numbers = words.random_raw(count * self._counters * 4).view(np.uint32).reshape(count, -1)
        uniform = (numbers[:, : _AFFINE_NUMBERS + 2 * self._fields] + 0.5) * 2.0**-31 - 1.0  # in (-1, 1)
        shift_x, shift_y, rotation, scale, shear = uniform[:, :_AFFINE_NUMBERS].T
        angle, size = rotation * (spec.rotation_degrees * pi / 180), 1 / (1 + scale * spec.scale)
        cos, sin, slant = np.cos(angle) * size, np.sin(angle) * size, shear * spec.shear
        coefficients = np.empty((2, count, 3 + self._fields), np.float32)
        coefficients[0, :, 0] = (spec.image_width - 1) / 2 + shift_x * spec.shift_pixels
        coefficients[1, :, 0] = (spec.image_height - 1) / 2 + shift_y * spec.shift_pixels
        coefficients[0, :, 1], coefficients[0, :, 2] = cos, cos * slant - sin
        coefficients[1, :, 1], coefficients[1, :, 2] = sin, sin * slant + cos
        amplitudes = sqrt(3) * uniform[:, _AFFINE_NUMBERS:].reshape(count, 2, -1)  # of variance 1
        coefficients[:, :, 3:] = amplitudes.transpose(1, 0, 2)
        return coefficients

    def _sample(self, rows: HostArray, coefficients: NDArray[np.float32], first: int, out: NDArray[np.float32]) -> None:
        """Write to ``out`` what lies at the coordinates, between four pixels (bilinear), beyond an edge its pixel.

        ``rows`` are those of a block from number ``first`` on.
        """
        count = len(rows)
        places = slice(first, first + count)
        sizes = (self._spec.image_width, self._spec.image_height)
        image, top, bottom = (buffer[:count] for buffer in (self._image, self._top, self._bottom))
        index = self._index[:count]
        np.copyto(image, rows, casting="same_kind" if rows.dtype.kind == "f" else "unsafe")
        for axis, size in enumerate(sizes):
            np.matmul(coefficients[axis], self._basis, out=self._coordinates[axis])
            fraction, floor = self._coordinates[axis, places], self._floor[axis, places]
            np.clip(fraction, 0, size - 1, out=fraction)
            np.floor(fraction, out=floor)
            np.minimum(floor, size - 2, out=floor)
            np.subtract(fraction, floor, out=fraction)
        (x, y), (column, line) = self._coordinates[:, places], self._floor[:, places]
        # A block has fewer than 2**24 pixels, whose numbers float32 holds exactly.
        np.multiply(line, sizes[0], out=line)
        np.add(line, column, out=line)
        np.add(line, self._first[:count], out=line)
        np.copyto(index, line, casting="unsafe")
        pixels = image.reshape(-1)
        for edge in (top, bottom):
            np.take(pixels, index, out=edge, mode="clip")
            np.add(index, 1, out=index)
            np.take(pixels, index, out=column, mode="clip")
            np.subtract(column, edge, out=column)
            np.multiply(column, x, out=column)
            np.add(edge, column, out=edge)
            np.add(index, sizes[0] - 1, out=index)
        np.subtract(bottom, top, out=bottom)
        np.multiply(bottom, y, out=bottom)
        np.add(top, bottom, out=out)


def basis_size(spec: AugmentationSpec) -> int:
    """Return the values of the basis in which coordinates are linear."""
    sides = (spec.image_height, spec.image_width)
    fields = prod(_bump_count(side, spec.elastic_smoothness_pixels) for side in sides) if spec.elastic_pixels else 0
    return (3 + fields) * prod(sides)


def _bump_count(size: int, width: float) -> int:
    return ceil(size / (_BUMP_SPACING * width)) + 3


def _bumps(size: int, width: float) -> NDArray[np.float64]:
    """Return Gaussian bumps (size, count) one and a half ``width`` apart, whose squares sum to 1 at every pixel.

    White noise on their lattice gives a smooth field of variance 1: Simard, Steinkraus & Platt 2003, section 2,
    who convolve noise on every pixel with the same Gaussian.
    """
    spacing, count = _BUMP_SPACING * width, _bump_count(size, width)
    centres = (size - 1) / 2 + spacing * (np.arange(count) - (count - 1) / 2)
    bumps: NDArray[np.float64] = np.exp(-0.5 * ((np.arange(size)[:, None] - centres) / width) ** 2)
    bumps /= np.sqrt((bumps**2).sum(axis=1, keepdims=True))
    return bumps
