"""A trained model: its file, and the buffers that run it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from mlpd.core.codec import from_fields, to_fields
from mlpd.core.data.columns import Schema
from mlpd.core.data.encoding import Encoder, takes_encoding
from mlpd.core.devices.arrays import Array, HostArray
from mlpd.core.files import FileDigest, write_atomic
from mlpd.core.network.architecture import ModelSpec, parameter_count, statistic_count
from mlpd.core.network.losses import Loss
from mlpd.core.network.network import Weights
from mlpd.core.network.scaling import Move, Scaling, TargetScaling
from mlpd.core.network.tasks import TASKS
from mlpd.core.optimization.state import StateVectors
from mlpd.core.state_file import StateFileError, pack, unpack


@dataclass(frozen=True)
class Model:
    """A network with its weights: flat vectors of ``spec.dtype`` in host memory, and how it reads rows.

    ``schema`` says what a row's numbers stand for and how they are encoded, ``scaling`` what is done to inputs then,
    and ``target_scaling`` what was done to targets; ``task`` and ``loss`` say what the network's outputs mean.
    """

    spec: ModelSpec
    task: str
    loss: Loss
    parameters: Array
    statistics: Array
    scaling: Scaling
    schema: Schema = field(default_factory=Schema)
    target_scaling: TargetScaling | None = None

    @property
    def weights(self) -> Weights:
        """The weights."""
        return Weights(self.parameters, self.statistics)

    @property
    def sha256(self) -> str:
        """Digest of the weights: little-endian parameters, then statistics."""
        digest = hashlib.sha256()
        for vector in (self.parameters, self.statistics):
            digest.update(vector.astype(vector.dtype.newbyteorder("<"), copy=False).tobytes())
        return digest.hexdigest()

    @property
    def prediction_count(self) -> int:
        """Numbers that a row's prediction has."""
        return TASKS[self.task].prediction_count(self.spec.layer_sizes[-1])

    @cached_property
    def encoder(self) -> Encoder:
        """What encodes rows whose columns have names."""
        return Encoder(self.schema.columns)

    def encoded(self, inputs: HostArray) -> HostArray:
        """Return rows as the network takes them."""
        return self.encoder(inputs) if takes_encoding(self.schema, inputs) else inputs

    def scaled(self, targets: HostArray) -> HostArray:
        """Return targets, of rows in their own units, as the network learned them."""
        return targets if self.target_scaling is None else self.target_scaling(targets)

    def predict(self, xp: Any, outputs: Array, predictions: Array, spare_row: Array) -> None:
        """Write what ``outputs`` (rows, outputs) predict: probabilities, of both classes if binary, or numbers learnt.

        ``predictions`` are (rows, prediction_count), ``spare_row`` (rows, 1).
        """
        logits = TASKS[self.task].logits(xp, outputs, predictions)
        self.loss.predict(xp, logits, predictions, spare_row)

    @np.errstate(all="ignore")  # as in a forward pass
    def predictions(self, outputs: HostArray) -> HostArray:
        """Return what ``outputs`` (rows, outputs) predict (rows, prediction_count)."""
        shape = len(outputs), self.prediction_count
        predictions, spare_row = np.empty(shape, outputs.dtype), np.empty((len(outputs), 1), outputs.dtype)
        self.predict(np, outputs, predictions, spare_row)
        return self.restored(predictions)

    def restored(self, predictions: HostArray) -> HostArray:
        """Return ``predictions`` as the network learned them in the units of the training data, float64 if other."""
        return predictions if self.target_scaling is None else self.target_scaling.restored(predictions)


def save_model(
    path: Path, model: Model, moments: Mapping[str, HostArray], optimizer_step: int, provenance: Mapping[str, str]
) -> FileDigest:
    """Make ``model`` durable as ``path``, with the optimizer's moments, from which training can go on."""
    vectors = StateVectors(model.weights, moments).named()
    if model.scaling.shift is not None:
        vectors |= {"input_shift": model.scaling.shift, "input_factor": np.asarray(model.scaling.factor)}
    if move := model.scaling.move:
        vectors |= {"input_origin": move.origin, "input_size": move.size}
    if targets := model.target_scaling:
        vectors |= {"target_mean": targets.mean, "target_deviation": targets.deviation}
    fields = {
        "model": to_fields(model.spec),
        "task": model.task,
        "loss": to_fields(model.loss),
        "schema": to_fields(model.schema),
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
    """Return what is in ``path``, or raise `StateFileError` unless its bytes have the digest ``sha256``."""
    vectors, fields = unpack(path, sha256)
    try:
        spec = from_fields(ModelSpec, fields["model"])
        task, loss = fields["task"], from_fields(Loss, fields["loss"])
        if task not in TASKS:
            raise StateFileError(f"{path.name} must be of a known task, got {task}")
        layers, dtype = spec.layers(), np.dtype(spec.dtype)
        state = StateVectors.from_named(vectors)
        move = Move(vectors["input_origin"], vectors["input_size"]) if "input_origin" in vectors else None
        scaling = Scaling(vectors.get("input_shift"), vectors.get("input_factor", spec.input_scale), move)
        targets = None
        if "target_mean" in vectors:
            targets = TargetScaling(vectors["target_mean"], vectors["target_deviation"])
        schema = from_fields(Schema, fields["schema"])
        model = Model(spec, task, loss, *state.current, scaling, schema, targets)
        trained = TrainedModel(model, state.moments, int(fields["optimizer_step"]))
    except (KeyError, TypeError, ValueError) as error:
        raise StateFileError(f"{path.name} must hold a model: {error}") from error
    for name, vector, count in (
        ("parameters", model.parameters, parameter_count(layers)),
        ("statistics", model.statistics, statistic_count(layers)),
    ):
        if vector.shape != (count,) or vector.dtype != dtype:
            raise StateFileError(f"{path.name} must hold {count} {name} of {dtype}")
    return trained


def load_model(path: Path, sha256: str) -> Model:
    """Return the model in ``path``, or raise `StateFileError` unless its bytes have the digest ``sha256``."""
    return load_trained(path, sha256).model
