"""Turns the server's errors into ``google.rpc.Status`` with machine-readable details."""

from collections.abc import Sequence

from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from mlpd.server.errors import ErrorKind, FieldViolation, InvalidRequest, ServerError, Unavailable
from mlpd.server.records import Failure

DOMAIN = "mlpd.dev"
_RETRY_SECONDS = 1
_PASSING_REASONS = {"QUEUE_FULL", "RESOLUTION_TIMEOUT", "STORAGE"}  # of what is exhausted, what time may mend
# An error travels in headers, of which clients take 8 KB, and its text is in them up to four times.
_TEXT_LIMIT_BYTES = 1200

_CODES: dict[ErrorKind, int] = {
    ErrorKind.INVALID_REQUEST: code_pb2.INVALID_ARGUMENT,
    ErrorKind.NOT_FOUND: code_pb2.NOT_FOUND,
    ErrorKind.ALREADY_EXISTS: code_pb2.ALREADY_EXISTS,
    ErrorKind.PRECONDITION_FAILED: code_pb2.FAILED_PRECONDITION,
    ErrorKind.CURSOR_OUT_OF_RANGE: code_pb2.OUT_OF_RANGE,
    ErrorKind.RESOURCE_EXHAUSTED: code_pb2.RESOURCE_EXHAUSTED,
    ErrorKind.DATA_LOSS: code_pb2.DATA_LOSS,
    ErrorKind.UNAVAILABLE: code_pb2.UNAVAILABLE,
    ErrorKind.INTERNAL: code_pb2.INTERNAL,
}


def status_of_error(error: ServerError) -> status_pb2.Status:
    """Return the status an RPC ends with."""
    code, message = _CODES[error.kind], error.message
    violations: list[error_details_pb2.BadRequest.FieldViolation] = []
    if isinstance(error, InvalidRequest):
        violations = _told(error.violations)
        left_out = len(error.violations) - len(violations)
        message = "; ".join(violation.description for violation in violations)
        message += f"; and {left_out} more" if left_out else ""
    status = _status(code, error.reason, message, dict(error.metadata))
    if violations:
        status.details.append(_packed(error_details_pb2.BadRequest(field_violations=violations)))
    if isinstance(error, Unavailable) or error.reason in _PASSING_REASONS:
        delay = duration_pb2.Duration(seconds=_RETRY_SECONDS)
        status.details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
    return status


def status_of_failure(failure: Failure) -> status_pb2.Status:
    """Return the status that a failed job carries."""
    return _status(_CODES[failure.kind], failure.reason, failure.message, {})


def internal_status(error_id: str) -> status_pb2.Status:
    """Return the status for a fault of ours; the log tells more under ``error_id``."""
    message = f"internal error {error_id}; the server's log has the details"
    return _status(code_pb2.INTERNAL, "INTERNAL", message, {"error_id": error_id})


def simple_status(code: int, reason: str, message: str) -> status_pb2.Status:
    """Return a status without metadata."""
    return _status(code, reason, message, {})


def _told(violations: Sequence[FieldViolation]) -> list[error_details_pb2.BadRequest.FieldViolation]:
    """Return the first violation, and as many more as fit."""
    told: list[error_details_pb2.BadRequest.FieldViolation] = []
    size = 0
    for violation in violations:
        own = error_details_pb2.BadRequest.FieldViolation(
            field=_plain(violation.field), description=_plain(violation.description)
        )
        size += own.ByteSize()
        if told and size > _TEXT_LIMIT_BYTES:
            break
        told.append(own)
    return told


def _plain(text: str) -> str:
    """Return ``text`` cut to what fits, and without what a terminal would obey, whoever it came from."""
    content = text.encode(errors="backslashreplace")
    if len(content) > _TEXT_LIMIT_BYTES:
        text = content[:_TEXT_LIMIT_BYTES].decode(errors="ignore") + "..."
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def _status(code: int, reason: str, message: str, metadata: dict[str, str]) -> status_pb2.Status:
    info = error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata)
    return status_pb2.Status(code=code, message=_plain(message), details=[_packed(info)])


def _packed(
    message: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo,
) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
