"""What is stored and what a worker reports: frozen values.

A worker's frames and the payloads of a job's event log share their types, so a report is logged as
it came. Nothing here knows SQL, protobuf or gRPC.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar

from mlpd.core.codec import from_fields, to_fields
from mlpd.core.data.columns import Schema
from mlpd.core.data.inspection import DatasetInfo
from mlpd.core.network.architecture import ModelSpec
from mlpd.core.optimization.optimizers import Optimizer
from mlpd.core.spec.training import TrainingSpec
from mlpd.server.errors import ErrorKind, ServerError


class JobState(StrEnum):
    """Life cycle of a job."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    CANCELLING = "CANCELLING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def terminal(self) -> bool:
        """Whether the job has ended; such a state never changes."""
        return self in _TERMINAL


_TERMINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})


@dataclass(frozen=True)
class Failure:
    """Why a job failed, in the terms of a `ServerError`."""

    kind: ErrorKind
    reason: str
    message: str

    @classmethod
    def of(cls, error: ServerError) -> "Failure":
        """Return ``error`` as the failure of a job."""
        return cls(error.kind, error.reason, error.message)


@dataclass(frozen=True)
class Progress:
    """Steps and epochs that a run has made, of how many; the last two fields are measurements, not results."""

    step: int
    step_count: int
    epoch: int
    epoch_count: int
    rows_per_second: float = 0.0
    remaining_seconds: float = 0.0


@dataclass(frozen=True)
class StateChanged:
    """A transition; ``from_state`` None = the job is new. ``model_version`` is set if the job has SUCCEEDED."""

    name: ClassVar[str] = "state_changed"
    from_state: JobState | None
    to_state: JobState
    failure: Failure | None = None
    model_version: str = ""


@dataclass(frozen=True)
class MetricsRecorded:
    """Mean loss, and accuracy if the task has one, at a step; logged once for each run, split and step of a job."""

    name: ClassVar[str] = "metrics_recorded"
    split: str
    progress: Progress
    loss: float
    accuracy: float | None
    learning_rate: float

    def repeats(self, other: "MetricsRecorded") -> bool:
        """Return whether both are the same result bit for bit, as a replay's must be; timings do not count."""
        return self.result == other.result

    @property
    def result(self) -> tuple[object, ...]:
        """Everything but the timings."""
        return self.split, self.progress.step, self.progress.epoch, self.loss, self.accuracy, self.learning_rate


@dataclass(frozen=True)
class CheckpointSaved:
    """A checkpoint file is durable."""

    name: ClassVar[str] = "checkpoint_saved"
    step: int
    sha256: str
    size_bytes: int


# If the newest turns out to be damaged, the one before it serves.
CHECKPOINTS_KEPT = 2

ENVIRONMENT_CHANGED = "environment_changed"


@dataclass(frozen=True)
class AttemptStarted:
    """A worker began at ``resume_step``, 0 = from scratch; ``environment`` is what the bits of its results depend on.

    With the reason `ENVIRONMENT_CHANGED` the job begins a new run, and the results of earlier ones no longer count.
    """

    name: ClassVar[str] = "attempt_started"
    resume_step: int
    reason: str
    device_description: str
    environment: str


@dataclass(frozen=True)
class MessageLogged:
    """A line for the job's reader; ``severity`` is INFO, WARNING or ERROR."""

    name: ClassVar[str] = "message_logged"
    severity: str
    message: str


@dataclass(frozen=True)
class Finished:
    """A worker's last frame: the run has ended as its spec says and the model file is durable."""

    name: ClassVar[str] = "finished"
    model_sha256: str
    parameters_sha256: str
    parameter_count: int
    schema: Schema = field(default_factory=Schema)


@dataclass(frozen=True)
class Failed:
    """A worker's last frame: the run cannot go on, and trying again would not help."""

    name: ClassVar[str] = "failed"
    failure: Failure


class StopReason(StrEnum):
    """Why a worker is told to stop: its job is cancelled, or its server drains and will go on with the job."""

    CANCEL = "cancel"
    DRAIN = "drain"


@dataclass(frozen=True)
class Stopped:
    """A worker's last frame: it was stopped as told, and its device is free."""

    name: ClassVar[str] = "stopped"
    reason: StopReason


Payload = StateChanged | MetricsRecorded | CheckpointSaved | AttemptStarted | MessageLogged
Frame = AttemptStarted | MetricsRecorded | CheckpointSaved | MessageLogged | Finished | Failed | Stopped


@dataclass(frozen=True)
class Event:
    """One numbered entry of a job's log; ``time`` in nanoseconds since 1970."""

    sequence: int
    time: int
    attempt: int
    payload: Payload

    @property
    def terminal(self) -> bool:
        """Whether this is the job's last event."""
        return isinstance(self.payload, StateChanged) and self.payload.to_state.terminal


@dataclass(frozen=True)
class JobStatus:
    """All of a job that changes. Times in nanoseconds since 1970, 0 = not yet.

    ``attempt`` is the number of the newest, 0 = none; ``run`` counts how often the job began again because its
    ``environment`` had changed; ``crash_count``, the workers lost since the newest checkpoint, the first of
    ``checkpoints``; ``queue_reason`` is why the job was queued last. Losses are the newest, None = not reported yet.
    """

    state: JobState
    progress: Progress
    train_loss: float | None = None
    validation_loss: float | None = None
    start_time: int = 0
    end_time: int = 0
    attempt: int = 0
    run: int = 0
    crash_count: int = 0
    queue_reason: str = "first"
    checkpoints: tuple[CheckpointSaved, ...] = ()
    failure: Failure | None = None
    last_sequence: int = 0
    device_description: str = ""
    environment: str = ""
    model_version: str = ""


@dataclass(frozen=True)
class Job:
    """A training job: what it was made with, which never changes, its labels and note, and its status.

    ``spec_digest`` was taken at ``create_time``, in nanoseconds since 1970, and tells whether ``spec`` was damaged
    since. ``request_id`` None = the request had none; ``memory_bytes`` is an estimate.
    """

    id: str
    request_id: str | None
    request_digest: str
    model_id: str
    log_id: str
    spec: TrainingSpec
    spec_digest: str
    memory_bytes: int
    create_time: int
    status: JobStatus
    labels: Mapping[str, str] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class DatasetRecord(DatasetInfo):
    """A stored data set; its file is named by ``sha256``.

    ``schema`` and the ``statistics`` of its columns are empty in lists. ``create_time`` in nanoseconds since 1970.
    """

    id: str
    create_time: int


@dataclass(frozen=True)
class ModelRecord:
    """A published model version; its file is named by ``file_sha256``. Schema and time as in `DatasetRecord`.

    ``input_size`` is that of a row to predict, which a network may see encoded as more values; ``optimizer`` is what it
    was trained with. The job ``job_id`` may be gone.
    """

    model_id: str
    version: int
    file_sha256: str
    parameters_sha256: str
    job_id: str
    spec: ModelSpec
    task: str
    loss: str
    optimizer: Optimizer
    parameter_count: int
    input_size: int
    create_time: int
    schema: Schema = field(default_factory=Schema)
    labels: Mapping[str, str] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Submission:
    """A checked request for a job; ``digest`` is the same for equal requests, an id is "" where none was chosen."""

    request_id: str | None
    digest: str
    job_id: str
    model_id: str
    spec: TrainingSpec
    row_count: int
    memory_bytes: int
    labels: Mapping[str, str] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Decision:
    """A job's new status, what to log of the change, and the finished run whose model is published with it, if any."""

    status: JobStatus
    payloads: Sequence[Payload] = ()
    published: Finished | None = None


def encode_frame(frame: Frame) -> bytes:
    """Return ``frame`` as one line."""
    return json.dumps(to_fields(frame), separators=(",", ":")).encode() + b"\n"


def decode_frame(line: bytes) -> Frame:
    """Return the frame that `encode_frame` wrote."""
    frame: Frame = from_fields(Frame, json.loads(line))
    return frame
