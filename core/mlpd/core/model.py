"""A trained model: its file, and the buffers that run it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mlpd.core.arrays import Array, Device, HostArray
from mlpd.core.checkpoint import CheckpointError, pack, unpack
from mlpd.core.files import FileDigest, write_atomic
from mlpd.core.network import Pass, multilayer_perceptron, parameter_count


@dataclass(frozen=True)
class Model:
    """Layer sizes, input first; the factor of every input value; the flat float32 parameters."""

    layer_sizes: tuple[int, ...]
    input_scale: float
    parameters: Array


def parameters_sha256(parameters: HostArray) -> str:
    """Return the digest that names a parameter vector: of its little-endian float32 bytes."""
    return hashlib.sha256(parameters.astype("<f4", copy=False).tobytes()).hexdigest()


def save_model(path: Path, model: Model, provenance: Mapping[str, str]) -> FileDigest:
    """Make ``model`` durable as ``path``."""
    fields = {"layer_sizes": model.layer_sizes, "input_scale": model.input_scale, "provenance": dict(provenance)}
    return write_atomic(path, pack({"parameters": model.parameters}, fields))


def load_model(path: Path, sha256: str) -> Model:
    """Return the model in ``path``, or raise `CheckpointError` unless its bytes have the digest ``sha256``."""
    vectors, fields = unpack(path, sha256)
    try:
        model = Model(tuple(fields["layer_sizes"]), float(fields["input_scale"]), vectors["parameters"])
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path.name} must hold a model: {error}") from error
    if model.parameters.shape != (parameter_count(model.layer_sizes),):
        raise CheckpointError(f"{path.name} must hold {parameter_count(model.layer_sizes)} parameters")
    return model


class Classifier:
    """Runs a model on rows in their own units; threads may share the model, never a Classifier."""

    def __init__(self, device: Device, model: Model, capacity: int) -> None:
        self.device, self.capacity, self.classes = device, capacity, model.layer_sizes[-1]
        self._scale = model.input_scale
        layers = multilayer_perceptron(model.layer_sizes)
        parameters = device.from_host(model.parameters)
        self._pass = Pass(device, layers, model.layer_sizes[0], parameters, capacity, trains=False)

    def forward(self, inputs: HostArray) -> Array:
        """Return logits (rows, classes) on the device, in a buffer that the next call overwrites."""
        rows = len(inputs)
        xp = self.device.xp
        xp.multiply(self.device.from_host(inputs), self._scale, out=self._pass.inputs(rows), dtype=xp.float32)
        return self._pass.forward(rows)

    def logits(self, inputs: HostArray) -> HostArray:
        """Return logits (rows, classes) float32 for any number of rows (rows, input_size)."""
        logits = np.empty((len(inputs), self.classes), np.float32)
        for start in range(0, len(inputs), self.capacity):
            block = inputs[start : start + self.capacity]
            logits[start : start + len(block)] = self.device.to_host(self.forward(block))
        return logits


def probabilities(logits: HostArray) -> HostArray:
    """Return the softmax of each row."""
    shares: HostArray = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    return shares
