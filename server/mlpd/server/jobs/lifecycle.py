"""A job's state machine: pure functions from a status, the time and what happened to the job, to a `Decision`.

QUEUED -> RUNNING -> SUCCEEDED | FAILED, RUNNING -> QUEUED when its worker is lost or the server drains or restarts,
QUEUED -> CANCELLED | FAILED, RUNNING -> CANCELLING -> CANCELLED; CANCELLING may still end SUCCEEDED or FAILED.
"""

from collections.abc import Sequence
from dataclasses import replace

from mlpd.server.errors import ErrorKind, PreconditionFailed
from mlpd.server.names import job_name
from mlpd.server.records import (
    CHECKPOINTS_KEPT,
    ENVIRONMENT_CHANGED,
    AttemptStarted,
    CheckpointSaved,
    Decision,
    Failed,
    Failure,
    Finished,
    Frame,
    JobState,
    JobStatus,
    MessageLogged,
    MetricsRecorded,
    Payload,
    Progress,
    StateChanged,
    Stopped,
    StopReason,
)

_CRASH_LIMIT = 3


def start(status: JobStatus, now: int) -> Decision:
    """Give a queued job its next attempt; a job that is no longer queued stays as it is."""
    if status.state is not JobState.QUEUED:
        return Decision(status)
    return _move(
        replace(status, attempt=status.attempt + 1, start_time=status.start_time or now), now, JobState.RUNNING
    )


def refuse(status: JobStatus, now: int, failure: Failure) -> Decision:
    """End a queued job that can't be started; a job that is no longer queued stays as it is."""
    return _move(status, now, JobState.FAILED, failure) if status.state is JobState.QUEUED else Decision(status)


def end_damaged(status: JobStatus, now: int, failure: Failure) -> Decision:
    """End a job of whose status something can't be read, unless it has ended; ``status`` is what is left."""
    if status.state.terminal:
        return Decision(status)
    return _move(status, now, JobState.FAILED, failure)


def cancel(status: JobStatus, now: int, job_id: str) -> Decision:
    """Cancel a queued job, or mark a running one CANCELLING. Raises `PreconditionFailed` if it succeeded or failed."""
    if status.state is JobState.QUEUED:
        return _move(status, now, JobState.CANCELLED)
    if status.state is JobState.RUNNING:
        return _move(status, now, JobState.CANCELLING)
    if status.state in (JobState.CANCELLING, JobState.CANCELLED):
        return Decision(status)
    raise PreconditionFailed(
        "ILLEGAL_STATE",
        f"{job_name(job_id)} must be queued or running to be cancelled, it is {status.state}",
        training_job=job_name(job_id),
        state=status.state,
    )


def report(status: JobStatus, now: int, attempt: int, frames: Sequence[Frame]) -> Decision:
    """Take in what the worker of ``attempt`` reported, in order; dropped if that attempt is over."""
    if _over(status, attempt):
        return Decision(status)
    payloads: list[Payload] = []
    published = None
    for frame in frames:
        match frame:
            case Finished():
                published = frame
                status, change = _moved(status, now, JobState.SUCCEEDED)
                payloads.append(change)
            case Failed():
                status, change = _moved(status, now, JobState.FAILED, frame.failure)
                payloads.append(change)
            case Stopped(reason):
                # A job that is cancelled while its worker drains does not go back to the queue.
                cancelled = reason is StopReason.CANCEL or status.state is JobState.CANCELLING
                stopped = JobState.CANCELLED if cancelled else JobState.QUEUED
                status, change = _moved(replace(status, queue_reason="server_drain"), now, stopped)
                payloads.append(change)
            case _:
                status = _noted(status, frame)
                payloads.append(frame)
    return Decision(status, payloads, published)


def lose(status: JobStatus, now: int, attempt: int, how: str) -> Decision:
    """Take in that the worker of ``attempt`` ended without a last frame; ``how`` completes "the worker ..."."""
    if _over(status, attempt):
        return Decision(status)
    if status.state is JobState.CANCELLING:
        return _move(status, now, JobState.CANCELLED)
    message = f"the worker {how}"
    crashes = status.crash_count + 1
    if crashes >= _CRASH_LIMIT:
        text = f"{message}, {crashes} times without a new checkpoint between"
        return _move(status, now, JobState.FAILED, Failure(ErrorKind.INTERNAL, "CRASH_LOOP", text))
    decision = _move(replace(status, crash_count=crashes, queue_reason="worker_lost"), now, JobState.QUEUED)
    return replace(decision, payloads=[MessageLogged("WARNING", message), *decision.payloads])


def fail(status: JobStatus, now: int, attempt: int, failure: Failure) -> Decision:
    """End a job with a ``failure`` that the server, not the worker of ``attempt``, has met."""
    return Decision(status) if _over(status, attempt) else _move(status, now, JobState.FAILED, failure)


def recover(status: JobStatus, now: int) -> Decision:
    """Requeue a job that is RUNNING though nothing runs it any more; cancel one that is CANCELLING."""
    if status.state is JobState.RUNNING:
        return _move(replace(status, queue_reason="server_restart"), now, JobState.QUEUED)
    if status.state is JobState.CANCELLING:
        return _move(status, now, JobState.CANCELLED)
    return Decision(status)


def _over(status: JobStatus, attempt: int) -> bool:
    return status.attempt != attempt or status.state not in (JobState.RUNNING, JobState.CANCELLING)


def _noted(status: JobStatus, frame: AttemptStarted | MetricsRecorded | CheckpointSaved | MessageLogged) -> JobStatus:
    match frame:
        case AttemptStarted():
            started = replace(status, device_description=frame.device_description, environment=frame.environment)
            return _begun_again(started) if frame.reason == ENVIRONMENT_CHANGED else started
        case MetricsRecorded() if frame.progress.step >= status.progress.step:
            if frame.split == "train":
                return replace(status, progress=frame.progress, train_loss=frame.loss)
            return replace(status, progress=frame.progress, validation_loss=frame.loss)
        case CheckpointSaved():
            newest = (frame, *(saved for saved in status.checkpoints if saved.step < frame.step))
            return replace(status, checkpoints=newest[:CHECKPOINTS_KEPT], crash_count=0)
        case _:
            return status


def _begun_again(status: JobStatus) -> JobStatus:
    """Return the status at the start of the job's next run, without progress or checkpoints."""
    nothing = Progress(0, status.progress.step_count, 0, status.progress.epoch_count)
    return replace(status, run=status.run + 1, progress=nothing, train_loss=None, validation_loss=None, checkpoints=())


def _move(status: JobStatus, now: int, state: JobState, failure: Failure | None = None) -> Decision:
    status, change = _moved(status, now, state, failure)
    return Decision(status, [change])


def _moved(
    status: JobStatus, now: int, state: JobState, failure: Failure | None = None
) -> tuple[JobStatus, StateChanged]:
    change = StateChanged(status.state, state, failure)
    return replace(status, state=state, failure=failure, end_time=now if state.terminal else 0), change
