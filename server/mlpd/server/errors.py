"""What can go wrong, in the server's own words; only ``status`` knows which status code each kind becomes.

ServerError
├── InvalidRequest       a field breaks a rule
├── NotFound             no such job, model or data set
├── AlreadyExists        a name or request id is taken by something else
├── PreconditionFailed   the request is well-formed, the state does not allow it
├── CursorOutOfRange     a cursor points outside what is stored
├── ResourceExhausted    a limit is reached; trying again later may work
├── DataLoss             stored or sent bytes are not what they should be
├── Unavailable          the server is on its way down or up
└── StorageTrouble       the disk refuses; trying again later may work
    ├── StorageFull      it has no room
    └── StorageFailing   it can't be read or written
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar


class ErrorKind(StrEnum):
    """What a caller is to make of an error; also what is stored of one that has failed a job."""

    INVALID_REQUEST = "INVALID_REQUEST"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    PRECONDITION_FAILED = "PRECONDITION_FAILED"
    CURSOR_OUT_OF_RANGE = "CURSOR_OUT_OF_RANGE"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    DATA_LOSS = "DATA_LOSS"
    UNAVAILABLE = "UNAVAILABLE"
    INTERNAL = "INTERNAL"


@dataclass(frozen=True)
class FieldViolation:
    """One field of a request and the rule it breaks."""

    field: str
    description: str


class ServerError(Exception):
    """A failure that a caller may see: an UPPER_SNAKE ``reason``, one sentence, and public metadata."""

    kind: ClassVar[ErrorKind] = ErrorKind.INTERNAL

    def __init__(self, reason: str, message: str, **metadata: object) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata: Mapping[str, str] = {key: str(value) for key, value in metadata.items()}


class InvalidRequest(ServerError):
    """One or more fields break a rule; all of them are named at once."""

    kind = ErrorKind.INVALID_REQUEST

    def __init__(self, violations: Sequence[FieldViolation], reason: str = "FIELD_INVALID", **metadata: object) -> None:
        super().__init__(reason, "; ".join(violation.description for violation in violations), **metadata)
        self.violations = tuple(violations)

    @classmethod
    def field(cls, field: str, description: str, reason: str = "FIELD_INVALID", **metadata: object) -> "InvalidRequest":
        """Return the error for a single field; ``rows`` are the numbers of rows in its sentence, as written."""
        return cls([FieldViolation(field, description)], reason, **metadata)


class NotFound(ServerError):
    """No such job, model or data set."""

    kind = ErrorKind.NOT_FOUND


class AlreadyExists(ServerError):
    """A name or request id is taken by something else."""

    kind = ErrorKind.ALREADY_EXISTS


class PreconditionFailed(ServerError):
    """The request is well-formed, the state does not allow it."""

    kind = ErrorKind.PRECONDITION_FAILED


class CursorOutOfRange(ServerError):
    """A cursor points outside what is stored."""

    kind = ErrorKind.CURSOR_OUT_OF_RANGE


class ResourceExhausted(ServerError):
    """A limit is reached; trying again later may work."""

    kind = ErrorKind.RESOURCE_EXHAUSTED


class DataLoss(ServerError):
    """Stored or sent bytes are not what they should be."""

    kind = ErrorKind.DATA_LOSS


class Unavailable(ServerError):
    """The server is on its way down or up; try again."""

    kind = ErrorKind.UNAVAILABLE


class StorageTrouble(ServerError):
    """The disk refuses; trying again later may work."""

    kind = ErrorKind.UNAVAILABLE

    def __init__(self, message: str) -> None:
        super().__init__("STORAGE", message)


class StorageFull(StorageTrouble):
    """The disk has no room for what must be written."""

    kind = ErrorKind.RESOURCE_EXHAUSTED


class StorageFailing(StorageTrouble):
    """The disk can't be read or written, or another process holds what is there."""
