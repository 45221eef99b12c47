"""One word for a setting wherever its caller meets it: as an argument in Python, as a flag on the command line.

A server names fields of the message, spec.schedule.learning_rate; who called `training_spec` said learning_rate, and
whoever typed a command --learning-rate.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from mlpd.client.errors import InvalidRequest
from mlpd.client.settings import CHOICES, SETTINGS

_FIELD = re.compile(r"\bspec\.([a-z0-9_]+(?:\[\d+\])?(?:\.[a-z0-9_]+(?:\[\d+\])?)*)")
_BY_PATH = {setting.path: name for name, setting in SETTINGS.items() if setting.path}
_RULED = re.compile(r"\b(" + "|".join(sorted({*SETTINGS, *CHOICES}, key=len, reverse=True)) + r")(?= must\b)")


@contextmanager
def in_settings() -> Iterator[None]:
    """Name settings in what the block raises for fields of a spec."""
    try:
        yield
    except InvalidRequest as error:
        fields = {_setting_of(name): _renamed(sentence) for name, sentence in error.fields.items()}
        raise InvalidRequest(_renamed(error.message), error.reason, fields, error.metadata) from error.__cause__


@contextmanager
def in_flags() -> Iterator[None]:
    """Name flags in what the block raises for settings."""
    try:
        yield
    except InvalidRequest as error:
        text = _RULED.sub(lambda found: flag_of(found[1]), error.message)
        raise InvalidRequest(text, error.reason, error.fields, error.metadata) from error.__cause__


def flag_of(setting: str) -> str:
    """Return the flag that gives a setting."""
    return f"--{setting.replace('_', '-')}"


def _renamed(text: str) -> str:
    return _FIELD.sub(lambda found: _setting_of(found[0]), text)


def _setting_of(field: str) -> str:
    """Return the setting behind a field of a spec; another field stays as it is, without the spec's own name."""
    path = field.removeprefix("spec.")
    if path == field:
        return field
    last = path.rpartition(".")[2]
    return _BY_PATH.get(path) or (last if last in SETTINGS or last in CHOICES else path)
