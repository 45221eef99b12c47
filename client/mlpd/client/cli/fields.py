"""Messages as JSON: fields by their names in the protocol, numbers as numbers, enums by name, nothing left out."""

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

# What protobuf's own JSON has a word for: moments, lengths of time, messages of any type.
_WELL_KNOWN = ("google.protobuf.Timestamp", "google.protobuf.Duration", "google.protobuf.Any")


def fields_of(message: Message) -> dict[str, Any]:
    """Return a message as JSON fields.

    What is unset has its default, or is null where it has none; of a oneof, only the field that is set is there. What
    is not finite stays so, for whoever prints it.
    """
    return dict(_fields(message))


def _fields(message: Message) -> Iterator[tuple[str, Any]]:
    field: FieldDescriptor
    for field in message.DESCRIPTOR.fields:  # type: ignore[assignment]  # protobuf's own kind of it
        chosen = field.containing_oneof
        # An optional field is the only one of a oneof of its own.
        is_alternative = chosen is not None and len(chosen.fields) > 1
        if field.has_presence and not message.HasField(field.name):
            if not is_alternative:
                yield field.name, None
            continue
        yield field.name, _value(field, getattr(message, field.name))


def _value(field: FieldDescriptor, value: Any) -> Any:
    if not field.is_repeated:
        return _single(field, value)
    if field.message_type and field.message_type.GetOptions().map_entry:
        item = field.message_type.fields_by_name["value"]
        return {str(key): _single(item, value[key]) for key in sorted(value)}
    return [_single(field, entry) for entry in value]


def _single(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type:
        is_known = field.message_type.full_name in _WELL_KNOWN
        return MessageToDict(value, preserving_proto_field_name=True) if is_known else fields_of(value)
    if field.enum_type:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known else value
    return value.hex() if isinstance(value, bytes) else value
