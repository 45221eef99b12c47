"""The rows that all systems are given."""

from collections.abc import Callable
from typing import Any

import numpy as np
from cases import Case

Epoch = Callable[[], object]


def data_of(case: Case) -> tuple[Any, Any]:
    """Return inputs, uint8 images or float32 noise, and labels; noise also where the images of MNIST are missing."""
    random = np.random.default_rng(0)
    if case.layer_sizes[0] == 784:
        from mlpd.core.data import mnist

        try:
            return mnist.load("train")
        except FileNotFoundError:
            images = random.integers(0, 256, (case.row_count, 784), np.uint8)
            return images, random.integers(0, case.layer_sizes[-1], case.row_count)
    inputs = random.normal(size=(case.row_count, case.layer_sizes[0])).astype(np.float32)
    return inputs, random.integers(0, case.layer_sizes[-1], case.row_count)


def floats_of(case: Case) -> tuple[Any, Any]:
    """Return inputs as float32, images in [0, 1], and labels as int64."""
    inputs, labels = data_of(case)
    scale = np.float32(1 / 255 if inputs.dtype == np.uint8 else 1)
    return inputs.astype(np.float32) * scale, labels.astype(np.int64)
