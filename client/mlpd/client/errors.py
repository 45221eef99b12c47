"""What can go wrong, for a caller who wants to tell cases apart.

MlpdError
├── InvalidRequest       a value breaks a rule; ``fields`` names them
├── NotFound             no such job, model or data set
├── AlreadyExists        a name or request id is taken by something else
├── PreconditionFailed   the state does not allow it, or the device can't be used
├── OutOfRange           a cursor points outside what is stored
├── ResourceExhausted    a limit, a full queue or a full disk
├── DataLoss             stored or sent bytes are not what they should be
├── DeadlineExceeded     no answer in time
├── Unavailable          no server answers at the address
├── ServerError          a fault of the server, or an answer that makes no sense
├── JobFailed            a job that was waited for failed; ``job`` has its error
└── JobCancelled         a job that was waited for was cancelled
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import grpc
from google.rpc import error_details_pb2, status_pb2

if TYPE_CHECKING:
    from mlpd.v1.trainer_service_pb2 import TrainingJob

_DETAILS_KEY = "grpc-status-details-bin"


class MlpdError(Exception):
    """Base of all; ``reason`` is the server's UPPER_SNAKE word for it, "" if it has none.

    ``retry_seconds`` is when the server says that another attempt may succeed; None if it does not say so.
    """

    retry_seconds: float | None = None

    def __init__(
        self,
        message: str,
        reason: str = "",
        fields: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.fields = dict(fields or {})
        self.metadata = dict(metadata or {})


class InvalidRequest(MlpdError, ValueError):
    """A value breaks a rule; ``fields`` maps each to the sentence about it."""


class NotFound(MlpdError, LookupError):
    """No such job, model or data set."""


class AlreadyExists(MlpdError):
    """A name or request id is taken by something else."""


class PreconditionFailed(MlpdError):
    """The state does not allow it, or the device can't be used."""


class OutOfRange(MlpdError):
    """A cursor points outside what is stored."""


class ResourceExhausted(MlpdError):
    """A limit, a full queue or a full disk."""


class DataLoss(MlpdError):
    """Stored or sent bytes are not what they should be."""


class DeadlineExceeded(MlpdError, TimeoutError):
    """No answer in time; what was asked for may have happened."""


class Unavailable(MlpdError, ConnectionError):
    """No server answers at the address."""


class ServerError(MlpdError):
    """A fault of the server, or an answer that makes no sense."""


class _JobEnded(MlpdError):
    def __init__(self, message: str, reason: str, job: "TrainingJob") -> None:
        super().__init__(message, reason)
        self.job = job


class JobFailed(_JobEnded):
    """A job that was waited for failed; ``job`` has its error."""


class JobCancelled(_JobEnded):
    """A job that was waited for was cancelled."""


_KINDS: dict[grpc.StatusCode, type[MlpdError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.FAILED_PRECONDITION: PreconditionFailed,
    grpc.StatusCode.OUT_OF_RANGE: OutOfRange,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
    grpc.StatusCode.DATA_LOSS: DataLoss,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
}


def error_from(error: grpc.RpcError, address: str, tried_seconds: float = 0.0) -> MlpdError:
    """Return the most specific of our errors for a call to the server at ``address`` that has failed for so long."""
    call: grpc.Call = error  # type: ignore[assignment]  # every RpcError of a stub is its call
    code, text = call.code(), call.details() or ""
    kind = _KINDS.get(code, ServerError)
    info, fields, retry = _details(call)
    if kind is Unavailable and not info.reason:
        tried = f"tried for {tried_seconds:.0f} s; " if tried_seconds >= 1 else ""
        text = f"no mlpd server answers at {address}; start one with: mlpd serve ({tried}{text})"
    elif kind is DeadlineExceeded and not info.reason:
        text = f"the server at {address} did not answer in time"
    elif code is grpc.StatusCode.UNIMPLEMENTED:
        text = f"the server at {address} does not speak mlpd.v1: {text}"
    failure = kind(text, info.reason, fields, info.metadata)
    if retry is not None:
        failure.retry_seconds = retry.retry_delay.ToMilliseconds() / 1000
    return failure


def _details(
    call: grpc.Call,
) -> tuple[error_details_pb2.ErrorInfo, dict[str, str], error_details_pb2.RetryInfo | None]:
    info, bad, fields = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), {}
    found, retry = error_details_pb2.RetryInfo(), None
    for key, value in call.trailing_metadata() or ():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            for detail in status_pb2.Status.FromString(value).details:
                detail.Unpack(info)
                if detail.Unpack(bad):
                    fields = {violation.field: violation.description for violation in bad.field_violations}
                if detail.Unpack(found):
                    retry = found
    return info, fields, retry
