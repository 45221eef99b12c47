"""Looks through a request's bytes before they are parsed, and refuses what would be too much to take in.

Two bytes can say "one more message", for which a parser makes a hundred, and whoever checks it a sentence. So what
can be repeated, nested or long has a limit here, and nothing behind this module walks anything unlimited.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from mlpd.core.data_types import LARGEST_LABEL
from mlpd.core.spec.rules import LAYER_LIMIT, SEGMENT_LIMIT
from mlpd.server.errors import InvalidRequest

# How often a field may occur in a request, all its messages together; these are the exceptions.
_ENTRY_LIMIT = 64
_ENTRY_LIMITS = {
    "mlpd.v1.ModelSpec.layer_sizes": LAYER_LIMIT,
    "mlpd.v1.ModelSpec.activations": LAYER_LIMIT,
    "mlpd.v1.ModelSpec.dropout_rates": LAYER_LIMIT,
    "mlpd.v1.Schedule.Joined.segments": SEGMENT_LIMIT,
    "mlpd.v1.Loss.class_weights": LARGEST_LABEL + 1,
}
_DEPTH_LIMIT = 8
_TEXT_LIMIT_BYTES = 4096
_VARINT_LIMIT_BYTES = 10
_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5
_FIXED_BYTES = {
    FieldDescriptor.TYPE_DOUBLE: 8,
    FieldDescriptor.TYPE_FIXED64: 8,
    FieldDescriptor.TYPE_SFIXED64: 8,
    FieldDescriptor.TYPE_FLOAT: 4,
    FieldDescriptor.TYPE_FIXED32: 4,
    FieldDescriptor.TYPE_SFIXED32: 4,
}
_WHOLE = {FieldDescriptor.TYPE_MESSAGE, FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES}


def check_body(body: bytes, kind: Descriptor) -> None:
    """Raise `InvalidRequest` for the field that is beyond a limit, ``ValueError`` where ``body`` is no protobuf."""
    _Scan(body).message(kind, 0, len(body), "", 1)


@dataclass(frozen=True)
class _Field:
    """What is asked of a descriptor for every value; asking the descriptor itself takes too long for that."""

    name: str
    full_name: str
    entry_limit: int
    item_bytes: int | None  # where values can be packed: of each, 0 = as many as it takes
    is_text: bool
    message: Descriptor | None


@cache
def _fields(kind: Descriptor) -> Mapping[int, _Field]:
    return {
        field.number: _Field(
            name=field.name,
            full_name=field.full_name,
            entry_limit=_ENTRY_LIMITS.get(field.full_name, _ENTRY_LIMIT),
            item_bytes=None if field.type in _WHOLE else _FIXED_BYTES.get(field.type, 0),
            is_text=field.type == FieldDescriptor.TYPE_STRING,
            message=field.message_type,
        )
        for field in kind.fields
    }


class _Scan:
    def __init__(self, body: bytes) -> None:
        self._body = body
        self._entries: Counter[str] = Counter()

    def message(self, kind: Descriptor, at: int, stop: int, path: str, depth: int) -> None:
        """Look through the message of ``kind`` between ``at`` and ``stop``, whose fields are called ``path...``."""
        fields = _fields(kind)
        while at < stop:
            tag, at = self._varint(at, stop)
            number, wire_type = tag >> 3, tag & 7
            start, at = self._value(wire_type, at, stop)
            field = fields.get(number)
            if field is None:
                self._count(
                    "", 1, _ENTRY_LIMIT, f"{path}{number}", "be one of at most {} fields unknown to this server"
                )
                continue
            name = path + field.name
            packed = wire_type == _DELIMITED and field.item_bytes is not None
            count = self._packed_count(field, start, at) if packed else 1
            self._count(field.full_name, count, field.entry_limit, name, "have at most {} entries")
            if wire_type != _DELIMITED:
                continue
            if field.is_text and at - start > _TEXT_LIMIT_BYTES:
                raise _beyond(name, f"have at most {_TEXT_LIMIT_BYTES} bytes, got {at - start}")
            if field.message:
                if depth == _DEPTH_LIMIT:
                    raise _beyond(name, f"be nested at most {_DEPTH_LIMIT} deep, got more")
                self.message(field.message, start, at, f"{name}.", depth + 1)

    def _count(self, key: str, count: int, limit: int, name: str, rule: str) -> None:
        self._entries[key] += count
        if self._entries[key] > limit:
            raise _beyond(name, f"{rule.format(limit)}, got more")

    def _packed_count(self, field: _Field, start: int, stop: int) -> int:
        """Return how many entries are packed between ``start`` and ``stop``; none at all is looked at like one."""
        if field.item_bytes:
            return max(1, (stop - start) // field.item_bytes)
        if stop - start > field.entry_limit * _VARINT_LIMIT_BYTES:
            return field.entry_limit + 1
        return max(1, sum(byte < 0x80 for byte in self._body[start:stop]))

    def _value(self, wire_type: int, at: int, stop: int) -> tuple[int, int]:
        """Return where the value at ``at`` starts and stops."""
        start = at
        if wire_type == _VARINT:
            _, at = self._varint(at, stop)
        elif wire_type == _FIXED64:
            at += 8
        elif wire_type == _FIXED32:
            at += 4
        elif wire_type == _DELIMITED:
            length, start = self._varint(at, stop)
            at = start + length
        else:
            raise ValueError("groups are not part of proto3")
        if at > stop:
            raise ValueError("a value ends after its message")
        return start, at

    def _varint(self, at: int, stop: int) -> tuple[int, int]:
        value = shift = 0
        while at < stop and shift < 7 * _VARINT_LIMIT_BYTES:
            byte = self._body[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
            shift += 7
        raise ValueError("a number does not end")


def _beyond(field: str, rule: str) -> InvalidRequest:
    return InvalidRequest.field(field, f"{field} must {rule}")
