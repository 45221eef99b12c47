"""The messages of a spec, as its fields declare them."""

import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator

from mlpd.core.declaration import Declaration, Enumeration, Kind, OneOf, declarations, kinds_of
from mlpd.core.network.architecture import ModelSpec
from mlpd.core.spec.training import TrainingSpec
from spec_words import first_and_rest, lower, shown_default

NAMES = {ModelSpec: "ModelSpec", TrainingSpec: "TrainingSpec"}  # others leave out "Spec"
TYPES = {int: "int64", float: "double", bool: "bool", str: "string"}
WIDTH = 120
KEPT_SPACE = "\N{NO-BREAK SPACE}"


def messages() -> tuple[str, str]:
    """Return the message of the model, and those of the training spec and its other parts."""
    parts = [own.type for own in declarations(TrainingSpec).values() if own.form == "part"]
    own = [message(kind, nested_kinds(kind)) for kind in parts if kind is not ModelSpec]
    return message(ModelSpec), "\n".join([*own, message(TrainingSpec)])


def message(kind: type, nested: Iterable[type] = ()) -> str:
    """Return the message of a dataclass, with those ``nested`` in it."""
    lines = [f"message {name_of(kind)} {{"]
    for own in declarations(kind).values():
        if isinstance(own.wire, Enumeration) and own.wire.help:
            lines += indented(enumeration(own.wire))
    for inner in nested:
        lines += indented(message(inner))
    found = sorted(fields(kind))
    for _, text in found:
        lines += indented(text)
    if retired := getattr(kind, "retired", None):
        lines += indented(f"reserved {', '.join(map(str, retired))};")
        lines += indented("reserved {};".format(", ".join(f'"{name}"' for name in retired.values())))
    if len(lines) == 1:
        return f"{comment(doc(kind))}{lines[0]}}}\n"
    return comment(doc(kind)) + "\n".join([*lines, "}", ""])


def nested_kinds(kind: type) -> Iterator[type]:
    """Return what is nested in the message of ``kind``: kinds to choose from, and parts of theirs and its own."""
    for own in declarations(kind).values():
        if own.form == "part" and not issubclass(own.type, Kind):
            yield own.type
        elif own.form == "oneof":
            for choice in kinds_of(own.type).values():
                yield from nested_kinds(choice)
                yield choice


def fields(kind: type, prefix: str = "", of: str = "") -> Iterator[tuple[int, str]]:
    """Return the fields of a message by their numbers, those of a oneof by its first."""
    for own in declarations(kind).values():
        name = prefix + own.wire_name
        if own.form == "inline":
            yield from fields(own.type, own.prefix)
        elif own.form == "oneof":
            choices = kinds_of(own.type)
            lines = ["oneof kind {"]
            for choice in choices.values():
                lines += indented(field(name_of(choice), choice.name, choice.number, f"{name_of(choice)}."))
            yield min(choice.number for choice in choices.values()), comment(said(own)) + "\n".join([*lines, "}", ""])
        else:
            words = said(own)
            yield own.number, field(type_of(own), name, own.number, f"Of {of}: {lower(words)}" if of else words)
            if short := own.shorthand:
                yield short.number, field("bool", short.field, short.number, f"{short.help}.")
            if own.form == "named":
                for choice in kinds_of(own.type).values():
                    yield from fields(choice, f"{choice.name}_", choice.name)


def field(kind: str, name: str, number: int, words: str) -> str:
    """Return a field and what is said of it."""
    return f"{comment(words)}{kind} {name} = {number};\n"


def type_of(own: Declaration) -> str:
    """Return the type of a field."""
    if own.form == "named":
        return "string"
    if isinstance(own.wire, Enumeration):
        return own.wire.name
    kind = own.wire or TYPES.get(own.type) or name_of(own.type)
    return f"repeated {kind}" if own.is_list else f"optional {kind}" if own.optional else kind


def name_of(kind: type) -> str:
    """Return what the message of a dataclass is called."""
    return NAMES.get(kind) or kind.__name__.removesuffix("Spec")


def enumeration(enum: Enumeration) -> str:
    """Return an enum; its first value is what nobody chose."""
    prefix = next(iter(enum.values)).rpartition("_")[0]
    lines = [f"enum {enum.name} {{", *indented(f"// Rejected: say which.\n{prefix}_UNSPECIFIED = 0;\n")]
    for number, (name, (_, words)) in enumerate(enum.values.items(), 1):
        lines += indented(f"{comment(words)}{name} = {number};\n")
    return comment(enum.help) + "\n".join([*lines, "}", ""])


def said(own: Declaration) -> str:
    """Return all that is to be said of a field."""
    first, rest = first_and_rest(own.help)
    kinds = tuple(kinds_of(own.type)) if own.form == "named" else own.names
    names = f": {OneOf(kinds)}" if kinds else ""
    sentences = [f"{first}{names}.", *([rest] if rest else [])]
    limits = "" if own.limits is None or own.names else str(own.limits)
    limits = f"in {limits.replace(' ', KEPT_SPACE)}" if limits[:1] in ("(", "[") else limits
    ends = [limits, "required" if own.required else shown_default(own, "default ", "unset: ")]
    if ending := "; ".join(filter(None, ends)):
        sentences.append(f"{ending[0].upper()}{ending[1:]}.")
    return " ".join(sentences)


def doc(kind: type) -> str:
    """Return what a class says of itself, in plain text."""
    return re.sub("`", "", inspect.getdoc(kind) or "")


def comment(words: str) -> str:
    """Return ``words`` as lines of a comment."""
    paragraphs = words.split("\n\n")
    lines = [textwrap.wrap(" ".join(paragraph.split()), WIDTH - 9, break_on_hyphens=False) for paragraph in paragraphs]
    return "//\n".join("".join(f"// {line}\n" for line in paragraph) for paragraph in lines).replace(KEPT_SPACE, " ")


def indented(text: str) -> list[str]:
    """Return the lines of ``text``, two columns in."""
    return [f"  {line}" for line in text.splitlines()]
