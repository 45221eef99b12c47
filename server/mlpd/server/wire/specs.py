"""Specs as messages and back; a dataclass and its message share the names of their fields."""

from dataclasses import fields
from functools import cache
from math import isqrt
from typing import Any, TypeVar

from google.protobuf.message import Message
from mlpd.core.data.augmentation import AugmentationSpec
from mlpd.core.network.architecture import ModelSpec
from mlpd.core.network.losses import LOSSES, Loss
from mlpd.core.optimization.optimizers import OPTIMIZERS, Optimizer, Sgd
from mlpd.core.optimization.schedules import SCHEDULES, Constant, Joined, Schedule, Segment
from mlpd.core.spec.training import (
    EarlyStoppingSpec,
    LossSpec,
    OptimizerSpec,
    PlateauSpec,
    ScheduleSpec,
    TrainingSpec,
    ValidationSpec,
    WarmStartSpec,
)
from mlpd.server.wire.durations import duration
from mlpd.server.wire.tensors import data_type_of
from mlpd.v1 import trainer_service_pb2 as trainer
from mlpd.v1 import types_pb2 as types

T = TypeVar("T")

DEVICES = {"cpu": types.DEVICE_CPU, "cuda": types.DEVICE_CUDA}


def value_of(kind: type[T], message: Message, /, **others: object) -> T:
    """Return the ``kind`` whose numbers and texts ``message`` gives; what it leaves unset has its default."""
    values: dict[str, Any] = {}
    descriptors = message.DESCRIPTOR.fields_by_name
    for field in fields(kind):  # type: ignore[arg-type]
        if field.name in others or field.name not in descriptors:
            continue
        if not descriptors[field.name].has_presence or message.HasField(field.name):
            values[field.name] = getattr(message, field.name)
    return kind(**values | others)


def optimizer_of(message: trainer.Optimizer) -> OptimizerSpec:
    """Return an optimizer; SGD where none is chosen."""
    name = message.WhichOneof("kind")
    kind: Optimizer = value_of(OPTIMIZERS[name], getattr(message, name)) if name else Sgd()
    return value_of(OptimizerSpec, message, kind=kind)


def schedule_of(message: trainer.Schedule) -> ScheduleSpec:
    """Return a learning rate and its form."""
    plateau = value_of(PlateauSpec, message.plateau) if message.HasField("plateau") else None
    return ScheduleSpec(message.learning_rate, _shape_of(message), plateau)


def _shape_of(message: trainer.Schedule) -> Schedule:
    name = message.WhichOneof("kind")
    if name is None:
        return Constant()
    if name == "joined":
        segments = message.joined.segments
        return Joined(tuple(Segment(_shape_of(segment.schedule), segment.step_count) for segment in segments))
    return value_of(SCHEDULES[name], getattr(message, name))


def augmentation_of(message: trainer.Augmentation, input_size: int) -> AugmentationSpec:
    """Return how images are changed; they are square where nothing else is said."""
    side = isqrt(max(input_size, 0))
    height, width = message.image_height or side, message.image_width or side
    return value_of(AugmentationSpec, message, image_height=height, image_width=width)


def early_stopping_of(message: trainer.EarlyStopping) -> EarlyStoppingSpec:
    """Return when to stop; by the loss where nothing else is said."""
    return value_of(EarlyStoppingSpec, message, metric=message.metric or "loss")


def spec_message(spec: TrainingSpec) -> trainer.TrainingSpec:
    """Return a resolved spec, every default filled in."""
    message = trainer.TrainingSpec(
        model=model_spec_message(spec.model),
        loss=trainer.Loss(kind=spec.loss.kind.name),
        validation_dataset=spec.validation.dataset,
        validation_sha256=spec.validation.sha256,
        validation_fraction=spec.validation.fraction,
        validation_interval_epochs=spec.validation.interval_epochs,
        device=DEVICES[spec.device],
    )
    _fill(message, spec, leave={"model", "loss", "device"})
    _fill(message.loss, spec.loss, leave={"kind"})
    for field, name in loss_fields(type(spec.loss.kind)).items():
        setattr(message.loss, field, getattr(spec.loss.kind, name))
    _fill(message.optimizer, spec.optimizer)
    _fill(getattr(message.optimizer, spec.optimizer.kind.name), spec.optimizer.kind)
    _fill_schedule(message.schedule, spec.schedule.shape)
    message.schedule.learning_rate = spec.schedule.learning_rate
    for target, value in (
        (message.schedule.plateau, spec.schedule.plateau),
        (message.augmentation, spec.augmentation),
        (message.early_stopping, spec.early_stopping),
        (message.warm_start, spec.warm_start),
    ):
        if value is not None:
            _fill(target, value)
    if spec.time_limit_seconds:
        message.time_limit.CopyFrom(duration(spec.time_limit_seconds))
    if spec.warm_start:
        message.warm_start.scope = _scope_message(spec.warm_start)
    return message


def model_spec_message(spec: ModelSpec) -> types.ModelSpec:
    """Return what a network is."""
    message = types.ModelSpec(data_type=data_type_of(spec.dtype))
    _fill(message, spec)
    return message


def _scope_message(warm_start: WarmStartSpec) -> trainer.WarmStart.Scope.ValueType:
    return trainer.WarmStart.SCOPE_FULL if warm_start.full else trainer.WarmStart.SCOPE_WEIGHTS


def _fill_schedule(message: trainer.Schedule, shape: Schedule) -> None:
    own = getattr(message, shape.name)
    own.SetInParent()
    if isinstance(shape, Joined):
        for segment in shape.segments:
            part = own.segments.add(step_count=segment.step_count)
            _fill_schedule(part.schedule, segment.schedule)
    else:
        _fill(own, shape)


def _fill(message: Any, value: Any, leave: frozenset[str] | set[str] = frozenset()) -> None:
    """Set the fields of ``message`` that ``value`` has under the same name as numbers, texts or lists of them."""
    message.SetInParent()
    for name in _shared_names(message.__class__, value.__class__):
        if name in leave:
            continue
        item = getattr(value, name)
        if isinstance(item, tuple):
            getattr(message, name).extend(item)
        else:
            setattr(message, name, item)


@cache
def _shared_names(message: type[Message], kind: type[Any]) -> list[str]:
    """Return the fields of a message that a dataclass has under the same name, but for those that are messages."""
    known = message.DESCRIPTOR.fields_by_name
    return [field.name for field in fields(kind) if field.name in known and not known[field.name].message_type]


def loss_of(message: trainer.Loss, default: type[Loss]) -> LossSpec:
    """Return a loss; ``default`` where none is chosen, or one that nobody knows."""
    kind = LOSSES.get(message.kind, default)
    own = {name: field for field, name in loss_fields(kind).items() if message.HasField(field)}  # type: ignore[arg-type]
    chosen = kind(**{name: getattr(message, field) for name, field in own.items()})
    return value_of(LossSpec, message, kind=chosen, class_weights=tuple(message.class_weights))


def loss_fields(kind: type[Loss]) -> dict[str, str]:
    """Return the numbers of a loss: what the message calls each, and what it is called itself."""
    return {f"{kind.name}_{field.name}": field.name for field in fields(kind)}


def validation_of(message: trainer.TrainingSpec, sha256: str) -> ValidationSpec:
    """Return what is validated on, and how often."""
    interval = message.validation_interval_epochs if message.HasField("validation_interval_epochs") else 1
    return ValidationSpec(message.validation_dataset, sha256, message.validation_fraction, interval)
