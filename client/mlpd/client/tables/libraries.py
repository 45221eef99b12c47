"""Libraries that the bare client can do without, imported where they are wanted."""

from importlib import import_module
from typing import Any

from mlpd.client.errors import InvalidRequest


def load(module: str, what: str) -> Any:
    """Return a module; raises `InvalidRequest` that names the extra which brings it, where it is not installed."""
    try:
        return import_module(module)
    except ImportError as error:
        library = module.partition(".")[0]
        raise InvalidRequest(
            f"{what} is read by {library}, which is not installed: pip install 'mlpd[tables]'"
        ) from error
