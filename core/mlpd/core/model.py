"""A trained model: its file, and the buffers that run it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mlpd.core.architecture import ModelSpec, parameter_count, statistic_count
from mlpd.core.arrays import Array, Device, HostArray
from mlpd.core.checkpoint import CheckpointError, pack, unpack
from mlpd.core.codec import from_fields, to_fields
from mlpd.core.files import FileDigest, write_atomic
from mlpd.core.losses import LOSSES
from mlpd.core.network import Pass
from mlpd.core.scaling import Move, Scaling
from mlpd.core.tasks import TASKS

_MOMENT = "moment."


@dataclass(frozen=True)
class Model:
    """A network with its weights: flat vectors of ``spec.dtype`` in host memory, and how its inputs are scaled.

    ``task`` and ``loss`` say what its outputs mean; ``huber_delta`` belongs to the loss.
    """

    spec: ModelSpec
    task: str
    loss: str
    parameters: Array
    statistics: Array
    scaling: Scaling
    huber_delta: float = 1.0

    @property
    def sha256(self) -> str:
        """Digest of the weights: little-endian parameters, then statistics."""
        digest = hashlib.sha256()
        for vector in (self.parameters, self.statistics):
            digest.update(vector.astype(vector.dtype.newbyteorder("<"), copy=False).tobytes())
        return digest.hexdigest()

    @np.errstate(all="ignore")  # as in a forward pass
    def predictions(self, outputs: HostArray) -> HostArray:
        """Return what ``outputs`` (rows, outputs) predict: probabilities, of both classes if binary, or numbers."""
        if self.task == "binary":
            outputs = np.concatenate([-outputs, outputs], axis=1)  # the log odds of either
        return LOSSES[self.loss].predict(outputs)


def save_model(
    path: Path, model: Model, moments: Mapping[str, HostArray], optimizer_step: int, provenance: Mapping[str, str]
) -> FileDigest:
    """Make ``model`` durable as ``path``, with the optimizer's moments, from which training can go on."""
    vectors = {"parameters": model.parameters} | {_MOMENT + name: vector for name, vector in moments.items()}
    if len(model.statistics):
        vectors["statistics"] = model.statistics
    if model.scaling.shift is not None:
        vectors |= {"input_shift": model.scaling.shift, "input_factor": np.asarray(model.scaling.factor)}
    if move := model.scaling.move:
        vectors |= {"input_origin": move.origin, "input_size": move.size}
    fields = {
        "model": to_fields(model.spec),
        "task": model.task,
        "loss": model.loss,
        "huber_delta": model.huber_delta,
        "optimizer_step": optimizer_step,
        "provenance": dict(provenance),
    }
    return write_atomic(path, pack(vectors, fields))


@dataclass(frozen=True)
class TrainedModel:
    """A model and the optimizer's state when it was trained."""

    model: Model
    moments: Mapping[str, HostArray]
    optimizer_step: int


def load_trained(path: Path, sha256: str) -> TrainedModel:
    """Return what is in ``path``, or raise `CheckpointError` unless its bytes have the digest ``sha256``."""
    vectors, fields = unpack(path, sha256)
    try:
        spec = from_fields(ModelSpec, fields["model"])
        task, loss = fields["task"], fields["loss"]
        if task not in TASKS or loss not in LOSSES:
            raise CheckpointError(f"{path.name} must be of a known task and loss, got {task} and {loss}")
        layers, dtype = spec.layers(), np.dtype(spec.dtype)
        statistics = vectors.get("statistics", np.zeros(0, dtype))
        move = Move(vectors["input_origin"], vectors["input_size"]) if "input_origin" in vectors else None
        scaling = Scaling(vectors.get("input_shift"), vectors.get("input_factor", spec.input_scale), move)
        delta = float(fields["huber_delta"])
        model = Model(spec, task, loss, vectors["parameters"], statistics, scaling, delta)
        moments = {name.removeprefix(_MOMENT): vector for name, vector in vectors.items() if name.startswith(_MOMENT)}
        trained = TrainedModel(model, moments, int(fields["optimizer_step"]))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path.name} must hold a model: {error}") from error
    for name, vector, count in (
        ("parameters", model.parameters, parameter_count(layers)),
        ("statistics", statistics, statistic_count(layers)),
    ):
        if vector.shape != (count,) or vector.dtype != dtype:
            raise CheckpointError(f"{path.name} must hold {count} {name} of {dtype}")
    return trained


def load_model(path: Path, sha256: str) -> Model:
    """Return the model in ``path``, or raise `CheckpointError` unless its bytes have the digest ``sha256``."""
    return load_trained(path, sha256).model


class Predictor:
    """Runs a model on rows in their own units; threads may share the model, never a Predictor."""

    def __init__(self, device: Device, model: Model, capacity: int) -> None:
        self.device, self.model, self.capacity = device, model, capacity
        self._scaling = model.scaling.on(device)
        vectors = device.from_host(model.parameters), device.from_host(model.statistics)
        input_size = model.spec.layer_sizes[0]
        self._pass = Pass(device, model.spec.layers(), input_size, *vectors, capacity, trains=False)

    @np.errstate(all="ignore")  # what overflows shows in the outputs; a BLAS may also raise flags for spare lanes
    def forward(self, inputs: HostArray) -> Array:
        """Return outputs (rows, outputs) on the device, in a buffer that the next call overwrites."""
        rows = len(inputs)
        raw = self.device.from_host(self._scaling.moved(inputs))
        self._scaling(self.device.xp, raw, self._pass.inputs(rows))
        return self._pass.forward(rows)

    def outputs(self, inputs: HostArray) -> HostArray:
        """Return outputs (rows, outputs), logits where there are classes, for any number of rows (rows, input_size)."""
        outputs = np.empty((len(inputs), self.model.spec.layer_sizes[-1]), self.model.spec.dtype)
        for start in range(0, len(inputs), self.capacity):
            block = inputs[start : start + self.capacity]
            outputs[start : start + len(block)] = self.device.to_host(self.forward(block))
        return outputs
