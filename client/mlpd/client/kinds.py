"""What the value of a setting must be."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from mlpd.client.errors import InvalidRequest

TEXT, WHOLE, NUMBER = "text", "a whole number of 64 bits", "a number"
SMALL_WHOLE = "a whole number of 32 bits"
FLAG, WHOLES = "true or false", "a list of whole numbers"
TEXTS, NUMBERS = "text or a list of texts", "a number or a list of numbers"
WEIGHTS, SCHEDULE = "balanced or a list of numbers", "text or a list of tables"
LABELS = "a table of texts"


@dataclass(frozen=True)
class Setting:
    """What a value must be, where it goes in a `TrainingSpec`, and what it means; its limits are for the server.

    ``path`` is empty where it belongs to what is chosen, see `Choice`. ``rule`` is what a number must that the message
    may not be able to hold, and ``words`` are the names of an enum by what the setting calls them.
    """

    kind: str
    path: str
    help: str
    rule: str = ""
    words: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Choice:
    """A ``kind`` to choose, as the oneof calls it: the settings that it has of its own, and defaults of others."""

    kind: str
    settings: tuple[str, ...]
    defaults: Mapping[str, float] = field(default_factory=dict)


def check_kind(name: str, value: Any, kind: str = TEXT) -> None:
    """Raise `InvalidRequest` unless ``value`` is of ``kind``."""
    if not _KINDS[kind](value):
        raise InvalidRequest(f"{name} must be {kind}, got {value!r}")


def check_unset(settings: Mapping[str, Any], rule: str) -> None:
    """Raise `InvalidRequest` with ``rule``, what a name must, for the first of ``settings`` that says something."""
    for name, value in settings.items():
        if value is None or (isinstance(value, str | tuple | list) and not value):
            continue
        # An array or a frame would fill the sentence.
        shown = ", ".join(map(str, value)) if isinstance(value, tuple | list) else value
        got = f", got {shown}" if isinstance(value, str | tuple | list | Real | Path) else ""
        raise InvalidRequest(f"{name} must {rule}{got}")


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_whole(value: Any, bits: int = 64) -> bool:
    limit = 2 ** (bits - 1)
    return isinstance(value, Integral) and not isinstance(value, bool) and -limit <= int(value) < limit


def _is_number(value: Any) -> bool:
    return _is_whole(value) or (isinstance(value, Real) and not isinstance(value, Integral))


def _list_of(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, Collection) and not isinstance(value, str) and all(map(holds, value))


_KINDS: Mapping[str, Callable[[Any], bool]] = {
    TEXT: _is_text,
    WHOLE: _is_whole,
    SMALL_WHOLE: lambda value: _is_whole(value, 32),
    NUMBER: _is_number,
    FLAG: lambda value: isinstance(value, bool),
    WHOLES: _list_of(_is_whole),
    TEXTS: lambda value: _is_text(value) or _list_of(_is_text)(value),
    NUMBERS: lambda value: _is_number(value) or _list_of(_is_number)(value),
    WEIGHTS: lambda value: value == "balanced" if _is_text(value) else _list_of(_is_number)(value),
    LABELS: lambda value: isinstance(value, Mapping) and all(map(_is_text, value.values())),
    SCHEDULE: lambda value: _is_text(value) or _list_of(lambda item: isinstance(item, Mapping))(value),
}
