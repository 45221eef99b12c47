"""From a Train request to the resolved spec: every default filled in, every rule checked, all at once."""

import hashlib
import secrets
from collections.abc import Callable
from typing import TypeVar

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet
from mlpd.core.spec import AdamSpec, ModelSpec, OptimizerSpec, ScheduleSpec, SgdSpec, TrainingSpec, find_violations
from mlpd.server.devices import Devices
from mlpd.server.errors import FieldViolation, InvalidRequest, PreconditionFailed
from mlpd.server.jobs import Submission
from mlpd.server.messages import INITIALIZERS
from mlpd.server.names import check_id, check_request_id, parse_dataset
from mlpd.server.records import DatasetRecord
from mlpd.server.store import Store
from mlpd.v1 import trainer_service_pb2 as trainer
from mlpd.v1 import types_pb2 as types

T = TypeVar("T")

_SEED_LIMIT = 2**32
_UINT8_SCALE = 1 / 255
_INITIALIZER_NAMES = {number: name for name, number in INITIALIZERS.items()} | {
    trainer.ModelSpec.INITIALIZER_UNSPECIFIED: "he_normal"
}
_DEVICES = (types.DEVICE_UNSPECIFIED, types.DEVICE_CPU, types.DEVICE_CUDA)


def digest_of(request: trainer.TrainRequest) -> str:
    """Return a digest that equal requests share; the request id does not count, nor do unknown fields."""
    same = trainer.TrainRequest()
    same.CopyFrom(request)
    same.DiscardUnknownFields()
    same.ClearField("request_id")
    return hashlib.sha256(same.SerializeToString(deterministic=True)).hexdigest()


async def resolve(request: trainer.TrainRequest, store: Store, devices: Devices) -> Submission:
    """Return what ``request`` asks for in full.

    Raises `InvalidRequest` with every field that breaks a rule, `NotFound` for a data set that is not there, and
    `PreconditionFailed` for a device that can't be used.
    """
    check = _Violations()
    check.unknown_fields("", request)
    request_id = check(lambda: check_request_id(request.request_id)) if request.request_id else None
    job_id = check(lambda: check_id("training_job_id", request.training_job_id)) if request.training_job_id else None
    model_id = check(lambda: check_id("model_id", request.model_id)) if request.model_id else None
    train_id = check(lambda: parse_dataset("spec.train_dataset", request.spec.train_dataset))
    validation = request.spec.validation_dataset
    validation_id = check(lambda: parse_dataset("spec.validation_dataset", validation)) if validation else None
    check.enumerations(request.spec)
    train_record = await store.dataset(train_id) if train_id else None
    validation_record = await store.dataset(validation_id) if validation_id else None
    spec = _spec(request.spec, train_record, validation_record, await _device(request.spec.device, devices))
    for violation in find_violations(spec, train_record, validation_record):
        check.add(f"spec.{violation.field}", f"spec.{violation.description}")
    check.finish()
    assert train_record is not None
    return Submission(request_id, digest_of(request), job_id or "", model_id or "", spec, train_record.row_count)


class _Violations:
    """Collects the fields that break a rule."""

    def __init__(self) -> None:
        self._violations: list[FieldViolation] = []

    def __call__(self, check: Callable[[], T]) -> T | None:
        try:
            return check()
        except InvalidRequest as error:
            self._violations.extend(error.violations)
            return None

    def add(self, field: str, description: str) -> None:
        self._violations.append(FieldViolation(field, description))

    def enumerations(self, spec: trainer.TrainingSpec) -> None:
        """Look for enum numbers that a newer client may know, and for a missing choice."""
        if spec.model.initializer not in _INITIALIZER_NAMES:
            self.add(
                "spec.model.initializer", f"spec.model.initializer must be a known one, got {spec.model.initializer}"
            )
        if spec.device not in _DEVICES:
            self.add("spec.device", f"spec.device must be a known one, got {spec.device}")
        if not spec.optimizer.WhichOneof("kind"):
            self.add("spec.optimizer", "spec.optimizer must say sgd or adam, got neither")

    def unknown_fields(self, path: str, message: Message) -> None:
        """Look for what a newer client asks for: to train without it would be to train something else."""
        for unknown in UnknownFieldSet(message):  # type: ignore[attr-defined]  # the stubs lack it
            where = path.rstrip(".") or "the request"
            text = f"{where} must have only fields this server knows, got number {unknown.field_number}"
            self.add(f"{path}{unknown.field_number}", text)
        for field, value in message.ListFields():
            if field.message_type:
                self.unknown_fields(f"{path}{field.name}.", value)

    def finish(self) -> None:
        if self._violations:
            raise InvalidRequest(self._violations)


def _spec(
    spec: trainer.TrainingSpec, train: DatasetRecord | None, validation: DatasetRecord | None, device: str
) -> TrainingSpec:
    row_count = train.row_count if train else 1
    batch_size = spec.batch_size if spec.HasField("batch_size") else row_count
    interval = spec.metrics_interval_steps if spec.HasField("metrics_interval_steps") else None
    default_scale = _UINT8_SCALE if train and train.dtype == "uint8" else 1.0
    cosine = spec.schedule.WhichOneof("kind") == "warmup_cosine"
    return TrainingSpec(
        model=ModelSpec(
            layer_sizes=tuple(spec.model.layer_sizes),
            initializer=_INITIALIZER_NAMES.get(spec.model.initializer, "he_normal"),
            input_scale=spec.model.input_scale if spec.model.HasField("input_scale") else default_scale,
        ),
        train_dataset=spec.train_dataset,
        train_sha256=train.sha256 if train else "",
        validation_dataset=spec.validation_dataset,
        validation_sha256=validation.sha256 if validation else "",
        batch_size=batch_size,
        epoch_count=spec.epoch_count,
        optimizer=OptimizerSpec(_optimizer(spec.optimizer), spec.optimizer.weight_decay),
        schedule=ScheduleSpec(
            learning_rate=spec.schedule.learning_rate,
            kind="warmup_cosine" if cosine else "constant",
            warmup_steps=spec.schedule.warmup_cosine.warmup_steps if cosine else 0,
        ),
        seed=spec.seed if spec.HasField("seed") else secrets.randbelow(_SEED_LIMIT),
        device=device,
        metrics_interval_steps=interval if interval is not None else -(-row_count // max(batch_size, 1)),
    )


def _optimizer(optimizer: trainer.Optimizer) -> SgdSpec | AdamSpec:
    if optimizer.WhichOneof("kind") == "adam":
        adam = optimizer.adam
        return AdamSpec(
            beta1=adam.beta1 if adam.HasField("beta1") else 0.9,
            beta2=adam.beta2 if adam.HasField("beta2") else 0.999,
            epsilon=adam.epsilon if adam.HasField("epsilon") else 1e-8,
        )
    return SgdSpec(momentum=optimizer.sgd.momentum, nesterov=optimizer.sgd.nesterov)


async def _device(device: types.Device.ValueType, devices: Devices) -> str:
    if device == types.DEVICE_CPU:
        return "cpu"
    cuda = await devices.cuda()
    if cuda.usable:
        return "cuda"
    if device == types.DEVICE_CUDA:
        raise PreconditionFailed(
            "DEVICE_UNAVAILABLE", f"spec.device must be usable on this server, CUDA is not: {cuda.description}"
        )
    return "cpu"
