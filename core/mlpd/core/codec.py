"""Frozen dataclasses as JSON fields and back, so that what was saved can be read by its types.

Enums are said by value, paths as text, tuples as lists. A dataclass that is one of several kinds carries its ``name``.
Floats survive bit for bit.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache, partial
from pathlib import Path, PurePath
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints, overload

T = TypeVar("T")
Reader = Callable[[Any], Any]

_TAG = "@kind"
_PLAIN = frozenset({bool, int, float, str, NoneType})


def to_fields(value: Any) -> Any:
    """Return ``value`` as what JSON can say."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if is_dataclass(kind):
        names, tag = _written(kind)
        own = {name: to_fields(getattr(value, name)) for name in names}
        return own if tag is None else own | {_TAG: tag}
    if isinstance(value, tuple):
        return list(value) if _PLAIN.issuperset(map(type, value)) else [to_fields(item) for item in value]
    if isinstance(value, Mapping):
        return {key: to_fields(item) for key, item in value.items()}
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, PurePath) else value


@overload
def from_fields(kind: type[T], value: Any) -> T: ...
@overload
def from_fields(kind: UnionType, value: Any) -> Any: ...
def from_fields(kind: Any, value: Any) -> Any:
    """Return the ``kind``, a class or a union, that `to_fields` wrote as ``value``.

    Raises `TypeError`, `KeyError` or `ValueError` for anything else.
    """
    return _reader(kind)(value)


@cache
def _written(kind: Any) -> tuple[tuple[str, ...], str | None]:
    """Return the fields of a dataclass, and the name that it carries if it is one of several."""
    names = tuple(field.name for field in fields(kind))
    return names, None if "name" in names else getattr(kind, "name", None)


@cache
def _reader(hint: Any) -> Reader:
    """Return what reads values of a type; hints are looked up once, as that takes the longest."""
    origin = get_origin(hint) or hint
    if isinstance(hint, UnionType):
        return _union_reader(get_args(hint))
    if origin is tuple:
        return _tuple_reader(get_args(hint))
    if origin in (dict, Mapping):
        item = _reader(get_args(hint)[1])
        return lambda value: {key: item(one) for key, one in _checked(dict, value).items()}
    return _dataclass_reader(hint) if is_dataclass(hint) else _plain_reader(hint)


def _plain_reader(kind: Any) -> Reader:
    if kind is float:
        return lambda value: float(value) if type(value) is int else _checked(float, value)
    if kind is Path:
        return lambda value: Path(_checked(str, value))
    if issubclass(kind, Enum):
        return partial(kind)
    return partial(_checked, kind)


def _union_reader(options: tuple[Any, ...]) -> Reader:
    """Read None, or the one of several dataclasses whose name a value carries, or the only other option."""
    kinds = [option for option in options if option is not NoneType]
    by_name = {_written(kind)[1]: _reader(kind) for kind in kinds} if len(kinds) > 1 else {}
    only = None if by_name else _reader(kinds[0])

    def read(value: Any) -> Any:
        if value is None and NoneType in options:
            return None
        return only(value) if only else by_name[_checked(dict, value)[_TAG]](value)

    return read


def _tuple_reader(items: tuple[Any, ...]) -> Reader:
    """Read ``tuple[T, ...]`` or ``tuple[S, T]``."""
    if len(items) == 2 and items[1] is Ellipsis:
        kind, item = items[0], _reader(items[0])

        def read_all(value: Any) -> Any:
            same = kind in _PLAIN and {kind}.issuperset(map(type, _checked(list, value)))
            return tuple(value) if same else tuple(map(item, value))

        return read_all
    readers = [_reader(item) for item in items]
    return lambda value: tuple(read(item) for read, item in zip(readers, _checked(list, value), strict=True))


def _dataclass_reader(kind: Any) -> Reader:
    hints = get_type_hints(kind)
    readers = {field.name: _reader(hints[field.name]) for field in fields(kind)}
    kinds = {tag: chosen for chosen in kind.__subclasses__() if (tag := _written(chosen)[1])}
    own_name = _written(kind)[1]

    def read(value: Any) -> Any:
        values = _checked(dict, value, kind)
        if kinds and own_name is None:
            return _reader(kinds[values[_TAG]])(values)
        if values.get(_TAG, own_name) != own_name:
            raise TypeError(f"{kind.__name__} must be read from what is named {own_name}, got {values[_TAG]!r:.80}")
        return kind(**{name: readers[name](item) for name, item in values.items() if name != _TAG})

    return read


def _checked(kind: type[T], value: Any, wanted: type[Any] | None = None) -> T:
    """Return ``value`` if it is of ``kind``, which JSON has; True is no number."""
    if type(value) is not kind:
        raise TypeError(f"{(wanted or kind).__name__} must be read from a {kind.__name__}, got {value!r:.80}")
    return value
