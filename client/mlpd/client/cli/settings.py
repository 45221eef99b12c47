"""Command-line flags that several commands have: those for every setting of a training run, and others."""

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Annotated, Any

import typer
from mlpd.client.errors import InvalidRequest
from mlpd.client.kinds import FLAG, NUMBER, NUMBERS, SMALL_WHOLE, TEXTS, WEIGHTS, WHOLE, WHOLES
from mlpd.client.settings import SETTINGS

_TYPES: dict[str, type[Any]] = {WHOLE: int, SMALL_WHOLE: int, NUMBER: float, FLAG: bool}
SETTING_FLAGS: Mapping[str, Any] = {
    name: Annotated[_TYPES.get(setting.kind, str) | None, typer.Option(help=setting.help)]
    for name, setting in SETTINGS.items()
}


def with_flags(flags: Mapping[str, Any], command: Callable[..., None]) -> Callable[..., None]:
    """Return ``command`` with ``flags``, their annotations by name, in place of its last, catch-all parameter.

    They come after its first two parameters, and are None where they are not given.
    """

    @wraps(command)
    def run(**arguments: Any) -> None:
        command(**arguments)

    kind = inspect.Parameter.KEYWORD_ONLY
    *named, _ = inspect.signature(command).parameters.values()
    own = [parameter.replace(kind=kind) for parameter in named]
    given = [inspect.Parameter(name, kind, default=None, annotation=annotation) for name, annotation in flags.items()]
    parameters = [*own[:2], *given, *own[2:]]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    del run.__dict__["__wrapped__"]
    return run


def parsed(name: str, value: Any) -> Any:
    """Return what a flag's text says: lists have commas between their items."""
    kind = SETTINGS[name].kind
    if kind == WHOLES:
        return _items(name, value.replace("-", ","), int, "whole numbers with commas, like 784,532,10")
    if kind == NUMBERS or (kind == WEIGHTS and value != "balanced"):
        return _items(name, value, float, "numbers with commas, like 0.1,0.2")
    if kind == TEXTS:
        return value.split(",")
    return value


def _items(name: str, text: str, item: Callable[[str], Any], rule: str) -> list[Any]:
    try:
        return [item(part) for part in text.split(",")]
    except ValueError:
        raise InvalidRequest(f"{name} must be {rule}, got {text}") from None
