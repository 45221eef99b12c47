"""A job's state machine: pure functions from a job, and what happened to it, to a `Decision`.

QUEUED -> RUNNING -> SUCCEEDED | FAILED, RUNNING -> QUEUED when its worker is lost or the server drains,
QUEUED -> CANCELLED, RUNNING -> CANCELLING -> CANCELLED; CANCELLING may still end SUCCEEDED or FAILED.
"""

import time
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
    Job,
    JobState,
    MessageLogged,
    MetricsRecorded,
    Payload,
    Progress,
    Publication,
    StateChanged,
    Stopped,
    StopReason,
)

_CRASH_LIMIT = 3


def start(job: Job) -> Decision:
    """Give a queued job its next attempt; a job that is no longer queued stays as it is.

    A spec that is no longer what was queued fails the job.
    """
    if job.state is not JobState.QUEUED:
        return Decision(job)
    if job.spec.digest != job.spec_digest:
        text = f"the spec must be what was queued, of digest {job.spec_digest}; the database holds {job.spec.digest}"
        return _move(job, JobState.FAILED, Failure(ErrorKind.DATA_LOSS, "JOB_DAMAGED", f"{text}; train again"))
    started = replace(job, attempt=job.attempt + 1, start_time=job.start_time or time.time_ns())
    return _move(started, JobState.RUNNING)


def cancel(job: Job) -> Decision:
    """Ask for the end of a job; asking again changes nothing. Raises `PreconditionFailed` if it ended otherwise."""
    if job.state is JobState.QUEUED:
        return _move(job, JobState.CANCELLED)
    if job.state is JobState.RUNNING:
        return _move(job, JobState.CANCELLING)
    if job.state in (JobState.CANCELLING, JobState.CANCELLED):
        return Decision(job)
    raise PreconditionFailed(
        "ILLEGAL_STATE",
        f"{job_name(job.id)} must be queued or running to be cancelled, it is {job.state}",
        training_job=job_name(job.id),
        state=job.state,
    )


def report(job: Job, attempt: int, frames: Sequence[Frame]) -> Decision:
    """Take in what the worker of ``attempt`` reported, in order; too late, it is dropped."""
    if _over(job, attempt):
        return Decision(job)
    payloads: list[Payload] = []
    publication = None
    for frame in frames:
        match frame:
            case Finished():
                job, change = _moved(job, JobState.SUCCEEDED)
                payloads.append(change)
                publication = Publication(
                    file_sha256=frame.model_sha256,
                    parameters_sha256=frame.parameters_sha256,
                    spec=job.spec.model,
                    task=job.spec.task,
                    loss=job.spec.loss.name,
                    parameter_count=frame.parameter_count,
                )
            case Failed():
                job, change = _moved(job, JobState.FAILED, frame.failure)
                payloads.append(change)
            case Stopped(reason):
                # What is cancelled while its worker drains does not go back to the queue.
                cancelled = reason is StopReason.CANCEL or job.state is JobState.CANCELLING
                stopped = JobState.CANCELLED if cancelled else JobState.QUEUED
                job, change = _moved(replace(job, queue_reason="server_drain"), stopped)
                payloads.append(change)
            case _:
                job = _noted(job, frame)
                payloads.append(frame)
    return Decision(job, payloads, publication)


def lose(job: Job, attempt: int, how: str) -> Decision:
    """Take in that the worker of ``attempt`` ended without a last word; ``how`` completes "the worker ..."."""
    if _over(job, attempt):
        return Decision(job)
    if job.state is JobState.CANCELLING:
        return _move(job, JobState.CANCELLED)
    message = f"the worker {how}"
    crashes = job.crash_count + 1
    if crashes >= _CRASH_LIMIT:
        text = f"{message}, {crashes} times without a new checkpoint between"
        return _move(job, JobState.FAILED, Failure(ErrorKind.INTERNAL, "CRASH_LOOP", text))
    decision = _move(replace(job, crash_count=crashes, queue_reason="worker_lost"), JobState.QUEUED)
    return replace(decision, payloads=[MessageLogged("WARNING", message), *decision.payloads])


def fail(job: Job, attempt: int, failure: Failure) -> Decision:
    """End a job whose attempt the server itself found wrong."""
    return Decision(job) if _over(job, attempt) else _move(job, JobState.FAILED, failure)


def recover(job: Job) -> Decision:
    """Put a job that an earlier server process left running where it belongs."""
    if job.state is JobState.RUNNING:
        return _move(replace(job, queue_reason="server_restart"), JobState.QUEUED)
    if job.state is JobState.CANCELLING:
        return _move(job, JobState.CANCELLED)
    return Decision(job)


def _over(job: Job, attempt: int) -> bool:
    return job.attempt != attempt or job.state not in (JobState.RUNNING, JobState.CANCELLING)


def _noted(job: Job, frame: AttemptStarted | MetricsRecorded | CheckpointSaved | MessageLogged) -> Job:
    match frame:
        case AttemptStarted():
            started = replace(job, device_description=frame.device_description, environment=frame.environment)
            return _begun_again(started) if frame.reason == ENVIRONMENT_CHANGED else started
        case MetricsRecorded() if frame.progress.step >= job.progress.step:
            return replace(job, progress=frame.progress)
        case CheckpointSaved():
            newest = (frame, *(saved for saved in job.checkpoints if saved.step < frame.step))
            return replace(job, checkpoints=newest[:CHECKPOINTS_KEPT], crash_count=0)
        case _:
            return job


def _begun_again(job: Job) -> Job:
    """Forget what an earlier run of the job has come to."""
    nothing = Progress(0, job.progress.step_count, 0, job.progress.epoch_count)
    return replace(job, run=job.run + 1, progress=nothing, checkpoints=())


def _move(job: Job, state: JobState, failure: Failure | None = None) -> Decision:
    job, change = _moved(job, state, failure)
    return Decision(job, [change])


def _moved(job: Job, state: JobState, failure: Failure | None = None) -> tuple[Job, StateChanged]:
    end_time = time.time_ns() if state.terminal else 0
    change = StateChanged(job.state, state, failure)
    return replace(job, state=state, failure=failure, end_time=end_time), change
