"""The MNIST database of handwritten digits: all 70,000 images, as LeCun, Cortes and Burges published them."""

import gzip
import hashlib
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

_PREFIXES = {"train": "train", "test": "t10k"}
_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
_IMAGE_HEADER_BYTES, _LABEL_HEADER_BYTES = 16, 8
_IMAGE_VALUES = 28 * 28


def load(split: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return images (rows, 784) and labels (rows,) of "train", 60,000 rows, or "test", 10,000.

    Raises `ValueError` when the installed files are not the published ones.
    """
    prefix = _PREFIXES[split]
    images = _read(f"{prefix}-images-idx3-ubyte", _IMAGE_HEADER_BYTES)
    return images.reshape(-1, _IMAGE_VALUES), _read(f"{prefix}-labels-idx1-ubyte", _LABEL_HEADER_BYTES)


def _read(name: str, header_bytes: int) -> NDArray[np.uint8]:
    content = gzip.decompress((files("mlpd.core.data") / "mnist_files" / f"{name}.gz").read_bytes())
    found = hashlib.sha256(content).hexdigest()
    if found != _SHA256[name]:
        raise ValueError(f"{name} must have the SHA-256 {_SHA256[name]}, got {found}; install mlpd again")
    return np.frombuffer(content, np.uint8, offset=header_bytes)
