"""Frozen dataclasses as JSON fields and back, so that what was saved can be read by its types.

A dataclass that is one of several kinds carries its ``name``.
"""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")

_TAG = "@kind"


def to_fields(value: Any) -> Any:
    """Return ``value`` as what JSON can say."""
    if is_dataclass(value) and not isinstance(value, type):
        own = {field.name: to_fields(getattr(value, field.name)) for field in fields(value)}
        tag = None if "name" in own else getattr(type(value), "name", None)
        return own if tag is None else own | {_TAG: tag}
    return [to_fields(item) for item in value] if isinstance(value, tuple) else value


def from_fields(kind: type[T], value: Any) -> T:
    """Return the ``kind`` that `to_fields` wrote as ``value``; raises `TypeError` or `KeyError` for anything else."""
    if not is_dataclass(kind):
        return kind(value)  # type: ignore[call-arg]
    if not isinstance(value, Mapping):
        raise TypeError(f"{kind.__name__} must be a mapping, got {value!r}")
    values = dict(value)
    if _TAG in values:
        kind = {chosen.__dict__["name"]: chosen for chosen in kind.__subclasses__()}[values.pop(_TAG)]
    hints = get_type_hints(kind)
    return kind(**{name: _from(hints[name], item) for name, item in values.items()})


def _from(hint: Any, value: Any) -> Any:
    if isinstance(hint, UnionType):
        chosen = next(option for option in get_args(hint) if option is not NoneType)
        return None if value is None else _from(chosen, value)
    if get_origin(hint) is tuple:
        return tuple(_from(get_args(hint)[0], item) for item in value)
    return from_fields(hint, value)
