"""The limits of single values, as their fields declare them; a broken one is a field, the rule, and what was given."""

from collections.abc import Iterator
from typing import Any

from mlpd.core.declaration import Kind, declarations

Broken = tuple[str, str, object]


def broken_limits(value: Any, prefix: str = "") -> Iterator[Broken]:
    """Look at every field of a declared dataclass, whose names begin with ``prefix``; of a list, name one entry."""
    for name, declared in declarations(value.__class__).items():
        own, field = getattr(value, name), f"{prefix}{declared.wire_name}"
        entries = own if declared.is_list else (own,)
        match declared.form:
            case "value" if limits := declared.limits:
                for wrong in [entry for entry in entries if not limits.holds(entry)][:1]:
                    yield field, limits.rule, wrong if wrong != "" else "nothing"
            case "inline":
                yield from broken_limits(own, f"{prefix}{declared.prefix}")
            case "named":
                yield from broken_limits(own, f"{prefix}{own.name}_")
            case "part" | "oneof":
                for i, entry in enumerate(entries):
                    where = prefix + entry.name if isinstance(entry, Kind) else field
                    if entry is not None:
                        yield from broken_limits(entry, f"{where}[{i}]." if declared.is_list else f"{where}.")
