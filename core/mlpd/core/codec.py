"""Frozen dataclasses as JSON fields and back, so that what was saved can be read by its types.

A dataclass that is one of several kinds carries its ``name``.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache, partial
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")

_TAG = "@kind"
_PLAIN = frozenset({bool, int, float, str})


def to_fields(value: Any) -> Any:
    """Return ``value`` as what JSON can say."""
    if is_dataclass(value) and not isinstance(value, type):
        own = {field.name: to_fields(getattr(value, field.name)) for field in fields(value)}
        tag = None if "name" in own else getattr(type(value), "name", None)
        return own if tag is None else own | {_TAG: tag}
    if not isinstance(value, tuple):
        return value
    return list(value) if _PLAIN.issuperset(map(type, value)) else [to_fields(item) for item in value]


def from_fields(kind: type[T], value: Any) -> T:
    """Return the ``kind`` that `to_fields` wrote as ``value``; raises `TypeError` or `KeyError` for anything else."""
    if not is_dataclass(kind):
        return kind(value)  # type: ignore[call-arg]
    if not isinstance(value, Mapping):
        raise TypeError(f"{kind.__name__} must be a mapping, got {value!r}")
    values = dict(value)
    if _TAG in values:
        kind = {chosen.__dict__["name"]: chosen for chosen in kind.__subclasses__()}[values.pop(_TAG)]
    readers = _readers(kind)
    return kind(**{name: readers[name](item) for name, item in values.items()})


@cache
def _readers(kind: type[Any]) -> dict[str, Callable[[Any], Any]]:
    """Return what reads each field of a dataclass; its hints are looked up once, as that takes the longest."""
    return {name: _reader(hint) for name, hint in get_type_hints(kind).items()}


def _reader(hint: Any) -> Callable[[Any], Any]:
    if isinstance(hint, UnionType):
        chosen = _reader(next(option for option in get_args(hint) if option is not NoneType))
        return lambda value: None if value is None else chosen(value)
    if get_origin(hint) is tuple:
        item = _reader(get_args(hint)[0])
        return lambda value: tuple(map(item, value))
    return partial(from_fields, hint) if isinstance(hint, type) and is_dataclass(hint) else hint
