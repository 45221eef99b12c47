"""How a field of a spec is declared: once, in its dataclass, with all that is to be known of it.

`setting` takes the default, what the field means, its limits, and its number in the protocol's message:

    momentum: float = setting(0.0, "Share of the last step that goes on", FRACTION, number=1)

The rules read the limits, and the server's messages are filled by the declarations. tools/generate_spec.py writes from
them the messages themselves, the settings of Python, files and the command line, and the tables of docs/training.md.
"""

from collections.abc import Collection, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cache
from math import inf, isfinite
from types import NoneType
from typing import Any, ClassVar, Literal, Protocol, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")

REQUIRED: Any = MISSING
LARGEST_WHOLE = 2**63 - 1  # of the protocol
DURATION, INT32 = "google.protobuf.Duration", "int32"


class Limits(Protocol):
    """What a value may be; each entry, where it is a list."""

    @property
    def rule(self) -> str:
        """What it must: "be at least 0 and below 1"."""

    def holds(self, value: Any) -> bool:
        """Return whether ``value`` is within them."""


@dataclass(frozen=True)
class Range:
    """Finite numbers from ``low`` to ``high``: without ``low`` if ``above``, without ``high`` if ``below``."""

    low: float
    high: float = inf
    above: bool = False
    below: bool = False

    @property
    def rule(self) -> str:
        """What a number must."""
        lower = f"{'above' if self.above else 'at least'} {self.low:g}"
        upper = f"{'below' if self.below else 'at most'} {self.high:g}"
        return f"be finite and {lower}" if self.high == inf else f"be {lower} and {upper}"

    def holds(self, value: float) -> bool:
        """Return whether ``value`` is within."""
        over = value > self.low if self.above else value >= self.low
        return isfinite(value) and over and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        if self.high == inf:
            return f"{'above' if self.above else 'at least'} {self.low:g}"
        return f"{'(' if self.above else '['}{self.low:g}, {self.high:g}{')' if self.below else ']'}"


@dataclass(frozen=True)
class Count:
    """Whole numbers from ``low`` to ``high``."""

    low: int
    high: int | None = None
    each: bool = False  # said of the entries of a list

    @property
    def rule(self) -> str:
        """What a number must."""
        if self.high is None:
            return f"be at least {self.low}"
        high = "2**63 - 1" if self.high == LARGEST_WHOLE else self.high
        return f"be between {self.low} and {high}{' each' if self.each else ''}"

    def holds(self, value: int) -> bool:
        """Return whether ``value`` is within."""
        return self.low <= value <= (LARGEST_WHOLE if self.high is None else self.high)

    def __str__(self) -> str:
        return f"at least {self.low}" if self.high in (None, LARGEST_WHOLE) else f"{self.low:,} to {self.high:,}"


@dataclass(frozen=True)
class Nonzero:
    """Finite numbers but 0."""

    rule: str = "be finite and not 0"

    def holds(self, value: float) -> bool:
        """Return whether ``value`` is one."""
        return isfinite(value) and value != 0

    def __str__(self) -> str:
        return "not 0"


@dataclass(frozen=True)
class OneOf:
    """Names of something, as they are when they are asked for."""

    names: Collection[str]

    @property
    def rule(self) -> str:
        """What a name must."""
        return f"be one of {', '.join(self.names)}"

    def holds(self, value: str) -> bool:
        """Return whether ``value`` is one."""
        return value in self.names

    def __str__(self) -> str:
        *others, last = self.names
        return f"{', '.join(others)} or {last}"


FRACTION = Range(0, 1, below=True)
SHARE = Range(0, 1)
SOME_SHARE = Range(0, 1, above=True)
POSITIVE = Range(0, above=True)
NOT_NEGATIVE = Range(0)


@dataclass(frozen=True)
class Enumeration:
    """An enum of the protocol: what each of its values stands for in a spec, by its name there, and means."""

    name: str
    values: Mapping[str, tuple[Any, str]]
    help: str = ""  # given where a message holds the enum

    def words(self) -> dict[str, str]:
        """Return the names by what a setting calls them: the value, or the last word of the name."""
        return {
            value if isinstance(value, str) else name.rpartition("_")[2].lower(): name
            for name, (value, _) in self.values.items()
        }


@dataclass(frozen=True)
class Shorthand:
    """A word that a setting may be instead of numbers, and the flag that the protocol has for it."""

    word: str
    field: str
    number: int
    help: str


# How a field is told in a message: by a field with a value or a list, or by a message of its own; by fields of the same
# message whose names begin with its own; by a oneof of the kinds there are; or by the name of a kind, whose fields are
# in the same message, behind that name.
Form = Literal["value", "part", "inline", "oneof", "named"]


@dataclass(frozen=True)
class Declaration:
    """A field: what `setting`, `output`, `part`, `inline` and `choice` say of it, and its dataclass."""

    form: Form
    number: int
    help: str
    limits: Limits | None = None
    unit: str = ""
    unset: str = ""
    setting: str | None = ""
    wire_name: str = ""
    wire: str | Enumeration = ""
    optional: bool | None = None
    required: bool = False
    prefix: str = ""
    shorthand: Shorthand | None = None
    default: Any = None
    type: Any = None
    is_list: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """What it may be, where it is one of several names."""
        return tuple(self.limits.names) if isinstance(self.limits, OneOf) else ()


def setting(
    default: T,
    help: str,  # noqa: A002 - as typer calls it
    limits: Limits | None = None,
    *,
    number: int,
    unit: str = "",
    unset: str = "",
    setting: str = "",
    wire_name: str = "",
    wire: str | Enumeration = "",
    optional: bool | None = None,
    required: bool = False,
    shorthand: Shorthand | None = None,
) -> T:
    """Declare a number, a text, or a list of them that a run can be told.

    ``help`` says what it means: its first sentence to flags and tables, all of it to the protocol, where the field has
    the ``number``. ``unset`` says what a run does by itself, where only its data or the server can tell. ``setting``
    and ``wire_name`` are what settings and the message call the field, if not by its name; ``wire`` is the type in the
    message, where Python's does not say it. A number that is not 0 where nothing is given is ``optional`` in the
    message, unless it is ``required``.
    """
    declaration = Declaration(
        *("value", number, help, limits, unit, unset, setting, wire_name, wire, optional),
        required=required or (default is REQUIRED and not unset),
        shorthand=shorthand,
    )
    return _field(default, declaration)


def output(default: T, help: str, *, number: int) -> T:  # noqa: A002
    """Declare what the server says, and no run can be told."""
    return _field(default, Declaration("value", number, f"Output only: {help}", setting=None))


def part(default: T, help: str, *, number: int, prefix: str = "") -> T:  # noqa: A002
    """Declare a dataclass, or a list of them, that is a message of its own; its settings begin with ``prefix``."""
    return _field(default, Declaration("part", number, help, prefix=prefix))


def inline(default: T, prefix: str) -> T:
    """Declare a dataclass whose fields and settings are its owner's, and begin with ``prefix``."""
    return _field(default, Declaration("inline", 0, "", prefix=prefix))


def choice(default: T, setting: str, help: str, *, number: int = 0, unset: str = "") -> T:  # noqa: A002
    """Declare that ``setting`` chooses one of several kinds: in a oneof, or by name in the field with ``number``."""
    form: Form = "named" if number else "oneof"
    return _field(default, Declaration(form, number, help, unset=unset, setting=setting, required=not unset))


def _field(default: T, declaration: Declaration) -> T:
    declared: T = field(default=default, metadata={"declaration": declaration})
    return declared


class Kind:
    """What is one of several kinds: a dataclass that is found by its ``name``."""

    name: ClassVar[str]
    number: ClassVar[int] = 0  # of its field in the protocol's oneof
    called: ClassVar[Mapping[str, Mapping[str, float]]] = {}  # by settings, which have these defaults then


def kinds_of(base: type[Kind]) -> dict[str, type[Kind]]:
    """Return the kinds of ``base`` by name, in the protocol's order."""
    return {kind.name: kind for kind in sorted(base.__subclasses__(), key=lambda kind: kind.number)}


def declarations(kind: Any) -> Mapping[str, Declaration]:
    """Return what is declared of the fields of the dataclass ``kind``, with their defaults and types."""
    return _declarations(kind)


@cache
def _declarations(kind: Any) -> Mapping[str, Declaration]:
    hints = get_type_hints(kind)
    return {own.name: _complete(own, hints[own.name]) for own in fields(kind) if "declaration" in own.metadata}


def _complete(own: Any, hint: Any) -> Declaration:
    declared: Declaration = own.metadata["declaration"]
    options = [option for option in get_args(hint) if option not in (NoneType, Ellipsis)]
    declared = replace(
        declared,
        default=own.default,
        type=options[0] if options else hint,
        is_list=get_origin(hint) is tuple,
        wire_name=declared.wire_name or own.name,
    )
    return declared if declared.optional is not None else replace(declared, optional=_needs_presence(declared))


def _needs_presence(own: Declaration) -> bool:
    """Return whether 0 in a message is another thing than nothing."""
    is_number = own.type in (bool, int, float) and own.wire in ("", INT32)
    if own.is_list or own.required or not is_number:
        return False
    return bool(own.unset) or own.default not in (0, REQUIRED)
