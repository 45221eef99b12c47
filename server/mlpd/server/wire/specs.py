"""Specs as messages and back, field by field as core declares them."""

from typing import Any, TypeVar

from google.protobuf.message import Message
from mlpd.core.declaration import DURATION, REQUIRED, Declaration, Enumeration, Kind, declarations, kinds_of
from mlpd.core.network.architecture import ModelSpec
from mlpd.core.spec.training import TrainingSpec
from mlpd.server.wire.durations import duration, seconds_of
from mlpd.v1 import trainer_service_pb2 as trainer
from mlpd.v1 import types_pb2 as types

T = TypeVar("T")


def value_of(kind: type[T], message: Message, prefix: str = "", /, **others: object) -> T:
    """Return the ``kind`` that ``message`` tells, in fields that begin with ``prefix``, but for ``others``.

    What is unset has its default, and so has a choice or an enum that nobody knows.
    """
    values = dict(others)
    for name, own in declarations(kind).items():
        if name not in others and (found := _read(message, own, f"{prefix}{own.wire_name}")) is not None:
            values[name] = found
    return kind(**values)


def spec_message(spec: TrainingSpec) -> trainer.TrainingSpec:
    """Return a resolved spec, every default filled in."""
    message = trainer.TrainingSpec()
    _fill(message, spec)
    return message


def model_spec_message(spec: ModelSpec) -> types.ModelSpec:
    """Return what a network is."""
    message = types.ModelSpec()
    _fill(message, spec)
    return message


def _read(message: Any, own: Declaration, field: str) -> Any:
    """Return what ``message`` tells of a field, None where it leaves it unset."""
    match own.form:
        case "value":
            return _read_value(message, own, field)
        case "part":
            return _read_part(message, own, field)
        case "inline":
            return value_of(own.type, message, own.prefix)
        case "oneof":
            return _chosen(own.type, message)
        case "named":
            kind = kinds_of(own.type).get(getattr(message, field))
            return kind and value_of(kind, message, f"{kind.name}_")


def _read_part(message: Any, own: Declaration, field: str) -> Any:
    part = getattr(message, field)
    if own.is_list:
        return tuple(value_of(own.type, entry) for entry in part)
    if issubclass(own.type, Kind):
        return _chosen(own.type, part)
    return value_of(own.type, part) if own.default is REQUIRED or message.HasField(field) else None


def _read_value(message: Any, own: Declaration, field: str) -> Any:
    value = getattr(message, field)
    if own.is_list:
        return tuple(value)
    if own.wire == DURATION:
        return seconds_of(value)
    if isinstance(own.wire, Enumeration):
        return {number: known for known, number in _numbers(message, own.wire, field).items()}.get(value)
    is_unset = (own.optional and not message.HasField(field)) or (value == "" and own.default is not REQUIRED)
    return None if is_unset else value


def _chosen(base: type[Kind], message: Any) -> Kind | None:
    name = message.WhichOneof("kind")
    return value_of(kinds_of(base)[name], getattr(message, name)) if name else None


def _fill(message: Any, value: Any, prefix: str = "") -> None:
    """Set all fields of ``message`` that begin with ``prefix`` to those of ``value``."""
    message.SetInParent()
    for name, own in declarations(value.__class__).items():
        item, field = getattr(value, name), f"{prefix}{own.wire_name}"
        match own.form:
            case "value":
                _fill_value(message, own, field, item)
            case "part" if item is not None:
                _fill_part(message, own, field, item)
            case "inline":
                _fill(message, item, own.prefix)
            case "oneof":
                _fill(getattr(message, item.name), item)
            case "named":
                setattr(message, field, item.name)
                _fill(message, item, f"{item.name}_")


def _fill_part(message: Any, own: Declaration, field: str, value: Any) -> None:
    part = getattr(message, field)
    if own.is_list:
        for entry in value:
            _fill(part.add(), entry)
    else:
        _fill(getattr(part, value.name) if isinstance(value, Kind) else part, value)


def _fill_value(message: Any, own: Declaration, field: str, value: Any) -> None:
    if own.is_list:
        getattr(message, field).extend(value)
    elif own.wire == DURATION:
        if value:
            getattr(message, field).CopyFrom(duration(value))
    elif isinstance(own.wire, Enumeration):
        setattr(message, field, _numbers(message, own.wire, field)[value])
    else:
        setattr(message, field, value)


def _numbers(message: Message, enum: Enumeration, field: str) -> dict[Any, int]:
    """Return the numbers that an enum has in the protocol, by what they stand for in a spec."""
    known: Any = message.DESCRIPTOR.fields_by_name[field].enum_type
    return {value: known.values_by_name[name].number for name, (value, _) in enum.values.items()}
