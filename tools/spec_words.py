"""What is said of a declared field, in words that the protocol, the settings and the guide share."""

from mlpd.core.declaration import Declaration


def first_and_rest(words: str) -> tuple[str, str]:
    """Return the first sentence without its full stop, and what follows."""
    first, _, rest = words.partition(". ")
    return first.removesuffix("."), rest


def shown_default(own: Declaration, before: str = "", before_unset: str = "") -> str:
    """Return the default, behind ``before``, or what comes of an unset one; nothing where there is little to say."""
    if own.unset:
        return f"{before_unset}{own.unset}"
    if isinstance(own.default, bool) or not isinstance(own.default, int | float | str) or own.default == "":
        return ""
    return f"{before}{shown(own.default)}"


def shown(value: float | str) -> str:
    """Return a number without an end of zeros, or a name."""
    return value if isinstance(value, str) else f"{value:g}".replace("e-0", "e-")


def listed(words: list[str], last: str = "and") -> str:
    """Return "a, b and c"."""
    *others, end = words
    return f"{', '.join(others)} {last} {end}" if others else end


def lower(words: str) -> str:
    """Return words that stand within a sentence."""
    return words[0].lower() + words[1:]
