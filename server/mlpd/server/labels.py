"""Labels and notes that users put on jobs and model versions: what they may be, and how a field mask changes them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlpd.server.errors import FieldViolation, InvalidRequest
from mlpd.server.names import shown

_KEY_RULE = "^[a-z]([a-z0-9_-]{0,61}[a-z0-9])?$"
_KEY = re.compile(_KEY_RULE.removesuffix("$") + r"\Z")
_LABEL_LIMIT = 32
_VALUE_CHARACTERS = 128
_NOTE_CHARACTERS = 1000
_PATHS = "labels, labels.{key} or note"


def check_labels(field: str, labels: Mapping[str, str]) -> dict[str, str]:
    """Return ``labels`` in the order of their keys; raises `InvalidRequest` for ``field`` where they break a rule."""
    texts = [f"{field} must have at most {_LABEL_LIMIT} entries, got {len(labels)}"] * (len(labels) > _LABEL_LIMIT)
    for key, value in sorted(labels.items()):
        if not _KEY.match(key):
            texts.append(f"{field} must have keys that match {_KEY_RULE}, got {shown(key)}")
        elif len(value) > _VALUE_CHARACTERS:
            texts.append(f"{field}.{key} must have at most {_VALUE_CHARACTERS} characters, got {len(value)}")
        elif not value.isprintable():
            texts.append(f"{field}.{key} must have printable characters alone, got {shown(value)}")
    if texts:
        raise InvalidRequest([FieldViolation(field, text) for text in texts])
    return dict(sorted(labels.items()))


def check_note(field: str, note: str) -> str:
    """Return ``note``; raises `InvalidRequest` for ``field`` where it breaks a rule."""
    if len(note) > _NOTE_CHARACTERS:
        text = f"{field} must have at most {_NOTE_CHARACTERS:,} characters, got {len(note):,}"
        raise InvalidRequest.field(field, text)
    if not note.replace("\n", "").isprintable():
        raise InvalidRequest.field(field, f"{field} must have printable characters and line breaks, got {shown(note)}")
    return note


@dataclass(frozen=True)
class LabelChange:
    """What an update asks for: ``paths`` of ``field`` say what is to be as ``labels`` and ``note`` have it.

    "labels" are all of them, "labels.{key}" is one, which goes where ``labels`` lack it. Raises `InvalidRequest`.
    """

    field: str
    labels: Mapping[str, str]
    note: str
    paths: Sequence[str]

    def __post_init__(self) -> None:
        if not self.paths:
            raise InvalidRequest.field("update_mask", f"update_mask must name what to change: {_PATHS}; got nothing")
        for path in self.paths:
            if path not in ("labels", "note") and not _KEY.match(self._key(path)):
                raise InvalidRequest.field("update_mask", f"update_mask must name {_PATHS}, got {shown(path)}")
        check_labels(f"{self.field}.labels", self.labels)
        check_note(f"{self.field}.note", self.note)

    def applied(self, labels: Mapping[str, str], note: str) -> tuple[dict[str, str], str]:
        """Return what ``labels`` and ``note`` become; raises `InvalidRequest` for too many labels."""
        changed = dict(labels)
        for path in self.paths:
            if path == "note":
                note = self.note
            elif path == "labels":
                changed = dict(self.labels)
            elif (key := self._key(path)) in self.labels:
                changed[key] = self.labels[key]
            else:
                changed.pop(key, None)
        return check_labels(f"{self.field}.labels", changed), note

    @staticmethod
    def _key(path: str) -> str:
        collection, _, key = path.partition(".")
        return key if collection == "labels" else ""
