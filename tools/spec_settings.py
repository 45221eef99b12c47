"""The settings of a run, as the fields of its spec declare them: the client's table, and those of the guide."""

import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from mlpd.core.data_types import DATA_TYPES, LARGEST_LABEL
from mlpd.core.declaration import DURATION, INT32, Declaration, Enumeration, Kind, OneOf, declarations, kinds_of
from mlpd.core.spec.training import TrainingSpec
from spec_words import first_and_rest, listed, lower, shown, shown_default

KINDS = {int: "WHOLE", float: "NUMBER", bool: "FLAG", str: "TEXT"}
LIST_KINDS = {int: "WHOLES", float: "NUMBERS", str: "TEXTS"}
UNITS = ("steps", "epochs", "pixels", "degrees", "seconds")
RUN = "Run"
HEADING = "| setting | what it is | default | limits | unit |\n|---|---|---|---|---|"


@dataclass(frozen=True)
class Setting:
    """A setting: its ``path`` in the message, empty where the chosen kind has it; of several kinds, joined words."""

    name: str
    section: str
    kind: str
    path: str
    meaning: str
    default: str
    limits: str
    unit: str
    rule: str = ""
    words: dict[str, str] = field(default_factory=dict)
    names: tuple[str, ...] = ()

    @property
    def nothing(self) -> str:
        """What it is where there is no default to name."""
        return "false" if self.kind == "FLAG" else "none"

    @property
    def help(self) -> str:
        """What a flag says of it."""
        names = f": {self.limits}" if self.kind in ("TEXT", "TEXTS", "SCHEDULE") and self.limits else ""
        default = f"; default: {self.default}" if self.default not in ("", "required") else ""
        return f"{self.meaning}{names}{default}."


@dataclass(frozen=True)
class Choice:
    """What one name of a setting chooses: the kind, its settings, and defaults of others."""

    name: str
    kind: str
    settings: tuple[str, ...]
    defaults: dict[str, float]


def choices(base: type[Kind]) -> Iterator[Choice]:
    """Return what can be chosen of the kinds of ``base``, under all names."""
    for name, kind in kinds_of(base).items():
        own = tuple(own for own, declared in declarations(kind).items() if declared.form == "value")
        for called, defaults in (kind.called or {name: {}}).items():
            yield Choice(called, name, own, dict(defaults))


def settings(kind: type = TrainingSpec, section: str = RUN, prefix: str = "", path: str = "") -> Iterator[Setting]:
    """Return the settings of a dataclass, those of its choices behind them."""
    for name, own in declarations(kind).items():
        where = f"{path}{own.wire_name}"
        if own.form == "inline":
            yield from settings(own.type, section, own.prefix, f"{path}{own.prefix}")
        elif own.form == "part":
            heading = section if section != RUN else first_and_rest(own.help)[0]
            yield from settings(own.type, heading, own.prefix, f"{where}.")
        elif own.form in ("oneof", "named"):
            yield chosen(own, section, where)
            yield from of_choice(own, section, path)
        elif own.setting is not None:
            yield plain(own, section, own.setting or f"{prefix}{name}", where)


def plain(own: Declaration, section: str, name: str, where: str) -> Setting:
    """Return the setting of a single field."""
    words = own.wire.words() if isinstance(own.wire, Enumeration) else {}
    kind = "TEXT" if words else LIST_KINDS[own.type] if own.is_list else KINDS[own.type]
    if own.wire == INT32:
        kind = "SMALL_WHOLE"
    if own.shorthand:
        kind = "WEIGHTS"
    limits = str(OneOf(words)) if words else "" if own.limits is None else str(own.limits)
    return Setting(
        name=name,
        section=section,
        kind=kind,
        path=where,
        meaning=first_and_rest(own.help)[0] + (f"; or {own.shorthand.word}" if own.shorthand else ""),
        default="required" if own.required else shown_default(own),
        limits=limits,
        unit=own.unit or next((unit for unit in UNITS if name.endswith(unit)), ""),
        rule=own.limits.rule if own.limits and own.wire == DURATION else "",
        words=words,
        names=tuple(words) or own.names,
    )


def chosen(own: Declaration, section: str, where: str) -> Setting:
    """Return the setting that chooses between kinds."""
    kinds = kinds_of(own.type)
    lists = [name for name, kind in kinds.items() if any(part.form == "part" for part in declarations(kind).values())]
    names = list(kinds) if own.form == "named" else [choice.name for choice in choices(own.type)]
    return Setting(
        name=own.setting or "",
        section=section,
        kind="SCHEDULE" if lists else "TEXT",
        path=where if own.form == "named" else "",
        meaning=first_and_rest(own.help)[0],
        default="required" if own.required else shown_default(own),
        limits=str(OneOf([name for name in names if name not in lists])),
        unit="",
        names=tuple(name for name in names if name not in lists),
    )


def of_choice(own: Declaration, section: str, path: str) -> Iterator[Setting]:
    """Return the settings that kinds have of their own, one of each name."""
    if own.form == "named":
        for kind in kinds_of(own.type).values():
            for name, declared in declarations(kind).items():
                setting = plain(declared, section, f"{kind.name}_{name}", f"{path}{kind.name}_{name}")
                yield replace(setting, meaning=f"Of {kind.name}: {lower(setting.meaning)}")
        return
    found: dict[str, list[tuple[str, Setting]]] = {}
    for choice in choices(own.type):
        own_fields = declarations(kinds_of(own.type)[choice.kind])
        for name in choice.settings:
            found.setdefault(name, []).append((choice.name, plain(own_fields[name], section, name, "")))
    for same in found.values():
        meanings = grouped((of, lower(setting.meaning)) for of, setting in same)
        yield replace(
            same[0][1],
            meaning="; of ".join(f"{listed(of)}: {meaning}" for meaning, of in meanings.items()).join(("Of ", "")),
            default=by_kind((of, setting.default) for of, setting in same),
            limits=by_kind((of, setting.limits) for of, setting in same),
        )


def by_kind(pairs: Iterable[tuple[str, str]]) -> str:
    """Return what all have in common, or what each has."""
    groups = grouped(pairs)
    if len(groups) == 1:
        return next(iter(groups))
    return ", ".join(f"{text} with {listed(of)}" for text, of in groups.items())


def grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Return the names that come with each text."""
    groups: dict[str, list[str]] = {}
    for name, text in pairs:
        groups.setdefault(text, []).append(name)
    return groups


def all_settings() -> list[Setting]:
    """Return every setting, those of one section together, and what names of a choice change of them."""
    found = list(settings())
    names = [setting.name for setting in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"settings must have names of their own, got {', '.join(sorted(twice))} twice")
    sections = list(dict.fromkeys(setting.section for setting in found))
    changed = {
        name: f"{shown(number)} with {choice.name}"
        for base in chosen_bases()
        for choice in choices(base)
        for name, number in choice.defaults.items()
    }
    found = [
        replace(setting, default=f"{setting.default}, {changed[setting.name]}") if setting.name in changed else setting
        for setting in found
    ]
    return sorted(found, key=lambda setting: sections.index(setting.section))


def chosen_bases(kind: type = TrainingSpec) -> dict[type[Kind], str]:
    """Return what oneofs choose between, and the settings that choose."""
    found: dict[type[Kind], str] = {}
    for own in declarations(kind).values():
        if own.form == "oneof":
            found[own.type] = own.setting or ""
        elif own.form in ("part", "inline"):
            found |= chosen_bases(own.type)
    return found


def arguments_module() -> str:
    """Return client/mlpd/client/arguments.py."""
    lines = [
        '"""The settings of a training run as type checkers and editors know them: `TrainingSettings`.',
        "",
        "Generated by tools/generate_spec.py from the declarations in core; change those.",
        '"""',
        "",
        "from collections.abc import Mapping, Sequence",
        "from typing import Any, Literal, TypedDict",
        "",
        "import numpy as np",
        "from numpy.typing import NDArray",
        "",
        "Whole = int | np.integer[Any]",
        "Number = float | np.floating[Any] | np.integer[Any]",
        "",
        "class TrainingSettings(TypedDict, total=False):",
        '    """What `mlpd.client.training_spec` takes; None counts as not given."""',
        "",
    ]
    for setting in all_settings():
        text = literal_of(setting.names) if setting.names else "str"
        annotation = {
            "WHOLE": "Whole",
            "SMALL_WHOLE": "Whole",
            "NUMBER": "Number",
            "FLAG": "bool",
            "TEXT": text,
            "WHOLES": "Sequence[Whole] | NDArray[np.integer[Any]]",
            "NUMBERS": "Number | Sequence[Number]",
            "TEXTS": f"{text} | Sequence[{text}]",
            "WEIGHTS": 'Literal["balanced"] | Sequence[Number]',
            "SCHEDULE": f"{text} | Sequence[Mapping[str, Any]]",
        }[setting.kind]
        help_text = "\n    ".join(textwrap.wrap(setting.help.replace("\\", "\\\\"), 110))
        lines += [f"    {setting.name}: {annotation} | None", f'    """{help_text}"""']
    return "\n".join([*lines, ""])


def literal_of(names: Iterable[str]) -> str:
    """Return the type of one of some texts."""
    return f"Literal[{', '.join(map(repr, names))}]"


def settings_module() -> str:
    """Return client/mlpd/client/settings.py."""
    found = all_settings()
    data_types = {name: f"DATA_TYPE_{kind.protocol}" for name, kind in DATA_TYPES.items()}
    used = sorted({setting.kind for setting in found})
    lines = [
        '"""The vocabulary of a training run: one flat name each for Python, command-line flags and TOML files.',
        "",
        "Generated by tools/generate_spec.py from the declarations in core; change those.",
        '"""',
        "",
        "from collections.abc import Mapping",
        "",
        f"from mlpd.client.kinds import {', '.join([*used, 'Choice', 'Setting'])}",
        "",
        f"LARGEST_LABEL = {LARGEST_LABEL}",
        "# What the protocol calls each of NumPy's types of numbers.",
        f"DATA_TYPES: Mapping[str, str] = {data_types}",
        "SETTINGS: Mapping[str, Setting] = {",
    ]
    for setting in found:
        more = [f"rule={setting.rule!r}"] * bool(setting.rule)
        more += [f"words={setting.words!r}"] * bool(setting.words)
        parts = ", ".join([setting.kind, repr(setting.path), quoted(setting.help), *more])
        lines.append(f"{setting.name!r}: Setting({parts}),")
    lines += ["}", "CHOICES: Mapping[str, Mapping[str, Choice]] = {"]
    for base, name in chosen_bases().items():
        lines.append(f"{name!r}: {{")
        for choice in choices(base):
            parts = ", ".join(
                map(repr, [choice.kind, choice.settings, *([choice.defaults] if choice.defaults else [])])
            )
            lines.append(f"{choice.name!r}: Choice({parts}),")
        lines.append("},")
    return "\n".join([*lines, "}", ""])


def quoted(text: str) -> str:
    """Return a literal of ``text``, in pieces where it is longer than a line."""
    return " ".join(map(repr, textwrap.wrap(text, 96, drop_whitespace=False, break_on_hyphens=False)))


def settings_tables() -> str:
    """Return the tables of docs/training.md."""
    tables = []
    found = all_settings()
    for section in dict.fromkeys(setting.section for setting in found):
        rows = [
            f"| `{own.name}` | {own.meaning} | {own.default or own.nothing} | {own.limits} | {own.unit} |"
            for own in found
            if own.section == section
        ]
        tables.append("\n".join([f"### {section}", "", HEADING, *rows, ""]))
    return "\n".join(tables)
