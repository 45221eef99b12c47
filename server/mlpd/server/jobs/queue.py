"""The queue: takes jobs in, runs them in their order, ends them when asked."""

import asyncio
import errno
import secrets
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog
from mlpd.server.asynchronous import to_the_end
from mlpd.server.disk import waits_seconds
from mlpd.server.errors import DataLoss, NotFound, ServerError, StorageTrouble, Unavailable
from mlpd.server.executors.attempt import Attempt
from mlpd.server.executors.executor import Executor, Worker
from mlpd.server.jobs import lifecycle
from mlpd.server.records import (
    CheckpointSaved,
    Failure,
    Job,
    JobState,
    JobStatus,
    Progress,
    Stopped,
    StopReason,
    Submission,
)
from mlpd.server.storage.artifacts import DataDirectory
from mlpd.server.storage.store import Decide, Store

_logger = structlog.get_logger()

# With these a process can't be started now, but perhaps a little later.
_TRANSIENT = frozenset({errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM})

T = TypeVar("T")


@dataclass(frozen=True)
class JobLimits:
    """How many jobs run and wait; and for each its threads, time between checkpoints and time to stop, in seconds."""

    running_jobs: int
    queued_jobs: int
    thread_count: int
    checkpoint_interval_seconds: float
    stop_seconds: float


class Jobs:
    """The jobs of one server, for its event loop."""

    def __init__(
        self, store: Store, directory: DataDirectory, kernels: Path, executor: Executor, limits: JobLimits
    ) -> None:
        self._store = store
        self._directory, self._kernels_directory = directory, kernels
        self._executor = executor
        self._limits = limits
        self._workers: dict[str, Worker] = {}
        self._attempts: dict[str, asyncio.Task[None]] = {}
        self._stops: dict[str, StopReason] = {}
        self._stop_told = asyncio.Event()
        self._abandoned: set[str] = set()
        self._work_waits = asyncio.Event()
        self._draining = asyncio.Event()

    @property
    def thread_count(self) -> int:
        """Threads that a job may keep busy."""
        return self._limits.thread_count

    def job_from(self, submission: Submission) -> Job:
        """Return a new job for ``submission``, not stored yet, so its ``create_time`` is 0."""
        spec = submission.spec
        job_id = submission.job_id or f"job-{secrets.token_hex(8)}"
        return Job(
            id=job_id,
            request_id=submission.request_id,
            request_digest=submission.digest,
            model_id=submission.model_id or job_id,
            log_id=secrets.token_hex(16),
            spec=spec,
            spec_digest=spec.digest,
            memory_bytes=submission.memory_bytes,
            create_time=0,
            status=JobStatus(JobState.QUEUED, Progress(0, spec.step_count(submission.row_count), 0, spec.epoch_count)),
            labels=submission.labels,
            note=submission.note,
        )

    async def submit(self, submission: Submission) -> tuple[Job, bool]:
        """Queue a job durably; return it, and whether an equal earlier request had made it already.

        Raises as `Store.create_job`, `StorageTrouble` or, while draining, `Unavailable`.
        """
        if self._draining.is_set():
            raise Unavailable("DRAINING", "the server is shutting down; send the job again when it is back")

        async def create() -> tuple[Job, bool]:
            answer = await self._store.create_job(self.job_from(submission), self._limits.queued_jobs)
            self._work_waits.set()
            return answer

        return await to_the_end(create())

    async def cancel(self, job_id: str) -> Job:
        """Cancel a job and return it; a running one is told to stop, and still CANCELLING when this returns.

        Raises as `lifecycle.cancel` and `Store.job`, or `StorageTrouble`.
        """

        async def mark_and_stop() -> JobStatus:
            try:
                status = await self._store.change_job(job_id, partial(lifecycle.cancel, job_id=job_id))
            except DataLoss as error:
                await self._end_damaged(job_id, error)
                if job_id in self._attempts:
                    self._stop(job_id, StopReason.CANCEL)
                raise
            if job_id in self._attempts and status.state is JobState.CANCELLING:
                self._stop(job_id, StopReason.CANCEL)
                return status
            if status.state is JobState.CANCELLING:  # no worker is left to stop
                status = await self._store.change_job(job_id, lifecycle.recover)
            await self._clean_up(job_id, status)
            return status

        status = await to_the_end(mark_and_stop())
        return replace(await self._store.job(job_id), status=status)

    async def recover(self) -> None:
        """Requeue or cancel the jobs that an earlier process left running; call it once, before `run`."""
        for job_id in await self._store.left_running():
            try:  # one damaged record must not keep a server from starting
                try:
                    recovered = await self._store.change_job(job_id, lifecycle.recover)
                except DataLoss as error:
                    recovered = await self._end_damaged(job_id, error)
            except NotFound as error:
                _logger.error("job not recovered", job=job_id, found=error.message)
                continue
            _logger.info("job recovered", job=job_id, state=recovered.state, step=recovered.progress.step)

    async def run(self) -> None:
        """Start queued jobs, oldest first, for as long as the server lives."""
        self._work_waits.set()
        while True:
            await self._work_waits.wait()
            self._work_waits.clear()
            free = self._limits.running_jobs - len(self._attempts)
            if free <= 0:
                continue
            busy = self._attempts.keys() | self._abandoned
            with suppress(StorageTrouble):  # raised only while draining, when nothing is started any more
                queued = await self._patiently(partial(self._store.next_queued, free, busy))
                for job_id in [] if self._draining.is_set() else queued:
                    task = asyncio.create_task(self._attempt(job_id))
                    self._attempts[job_id] = task
                    task.add_done_callback(partial(self._ended, job_id))

    async def drain(self) -> None:
        """Start nothing more; have running jobs save a checkpoint and go back to the queue, and wait for that."""
        self._draining.set()
        for job_id in self._attempts:
            self._stop(job_id, StopReason.DRAIN)
        await asyncio.gather(*self._attempts.values(), return_exceptions=True)

    def _ended(self, job_id: str, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()):
            _logger.error("attempt abandoned until the next start", job=job_id, exc_info=error)
            self._abandoned.add(job_id)
        del self._attempts[job_id]
        self._stops.pop(job_id, None)
        self._work_waits.set()

    def _stop(self, job_id: str, reason: StopReason) -> None:
        """Tell a job's worker to stop, now or as soon as it is started."""
        self._stops[job_id] = reason
        self._stop_told.set()
        self._stop_told = asyncio.Event()
        if worker := self._workers.get(job_id):
            worker.stop(reason, self._limits.stop_seconds)

    async def _attempt(self, job_id: str) -> None:
        try:
            await self._attempt_to_the_end(job_id)
        except NotFound:  # deleted as soon as it had ended, or its id is damaged, and the queue would tell it again
            self._abandoned.add(job_id)

    async def _attempt_to_the_end(self, job_id: str) -> None:
        job = await self._started(job_id)
        if job is None:
            return
        attempt = job.status.attempt
        log = _logger.bind(job=job_id, attempt=attempt)
        log.info("attempt started", reason=job.status.queue_reason)
        try:
            end = await self._run_worker(job)
        except StorageTrouble:
            raise  # only while draining; the next start of the server requeues the job
        except ServerError as error:
            end = partial(lifecycle.fail, attempt=attempt, failure=Failure.of(error))
        except Exception:
            log.exception("attempt broken off")
            end = partial(lifecycle.lose, attempt=attempt, how="could not be run")
        status = await self._end(job_id, end)
        reason = status.failure and status.failure.reason
        log.info("attempt ended", state=status.state, step=status.progress.step, failure=reason)
        await self._clean_up(job_id, status)

    async def _started(self, job_id: str) -> Job | None:
        """Give a queued job its next attempt; return the job, or None if it is no longer queued or can't be read."""
        try:
            job = await self._patiently(partial(self._store.sound_job, job_id))
        except DataLoss as error:
            _logger.error("job not started", job=job_id, found=error.message)
            await self._end(job_id, partial(lifecycle.refuse, failure=Failure.of(error)))
            return None
        status = await self._change(job_id, lifecycle.start)
        if status.state is JobState.RUNNING:
            return replace(job, status=status)
        await self._clean_up(job_id, status)
        return None

    async def _change(self, job_id: str, decide: Decide) -> JobStatus:
        """Change a job's status as soon as the disk takes it; raises as `Store.change_job` and `_patiently`."""
        return await self._patiently(partial(self._store.change_job, job_id, decide))

    async def _end(self, job_id: str, decide: Decide) -> JobStatus:
        """Change a job's status as `_change` does; where it can't be read, the job fails by that."""
        try:
            return await self._change(job_id, decide)
        except DataLoss as error:
            return await self._patiently(partial(self._end_damaged, job_id, error))

    async def _end_damaged(self, job_id: str, error: DataLoss) -> JobStatus:
        end = partial(lifecycle.end_damaged, failure=Failure.of(error))
        return await self._store.end_damaged(job_id, end)

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Return what ``ask`` returns once the disk no longer refuses; raises `StorageTrouble` only while draining."""
        waits = waits_seconds()
        told = False
        while True:
            try:
                return await ask()
            except StorageTrouble as error:
                if self._draining.is_set():
                    raise
                if not told:
                    _logger.warning("waiting for the disk", why=error.message)
                    told = True
            await self._pause(next(waits))

    async def _pause(self, seconds: float) -> None:
        """Wait, but no longer than until the server drains."""
        await _set_within(self._draining, seconds)

    async def _clean_up(self, job_id: str, status: JobStatus) -> None:
        """Remove the folder of a job that succeeded or was cancelled; a failed one keeps its last checkpoints."""
        if status.state in (JobState.SUCCEEDED, JobState.CANCELLED):
            await asyncio.to_thread(self._directory.remove_job, job_id)

    async def _run_worker(self, job: Job) -> Decide:
        """Run a worker to its end; return the decision for the case that its reports have not ended the attempt."""
        attempt = await self._patiently(partial(self._attempt_at, job))
        await asyncio.to_thread(_remove_unnamed, attempt)
        number, saved = job.status.attempt, {checkpoint.step for checkpoint in attempt.checkpoints}
        async with AsyncExitStack() as stack:
            worker = await self._worker(stack, attempt)
            if worker is None:
                return partial(lifecycle.report, attempt=number, frames=[Stopped(self._stops[job.id])])
            self._workers[job.id] = worker
            stack.callback(self._workers.pop, job.id)
            if reason := self._stops.get(job.id):
                self._stop(job.id, reason)
            async for frames in worker.reports():
                # While the disk refuses its reports, a worker goes on until its pipe is full.
                status = await self._change(job.id, partial(lifecycle.report, attempt=number, frames=frames))
                saved |= {frame.step for frame in frames if isinstance(frame, CheckpointSaved)}
                saved -= await self._remove_outdated(attempt, saved, status)
            how = await worker.ending()
        return partial(lifecycle.lose, attempt=number, how=how)

    async def _worker(self, stack: AsyncExitStack, attempt: Attempt) -> Worker | None:
        """Return a worker for ``attempt`` as soon as one can be started, or None if the job is told to stop before."""
        waits = waits_seconds()
        told = False
        while attempt.job_id not in self._stops:
            try:
                return await stack.enter_async_context(self._executor.start(attempt))
            except OSError as error:
                if error.errno not in _TRANSIENT:
                    raise
                if not told:
                    _logger.warning("waiting to start a worker", job=attempt.job_id, why=error.strerror)
                    told = True
            if attempt.job_id not in self._stops:
                await _set_within(self._stop_told, next(waits))
        return None

    async def _remove_outdated(self, attempt: Attempt, saved: set[int], status: JobStatus) -> set[int]:
        """Remove those of the ``saved`` checkpoints that ``status``, which is durable, no longer names; return these.

        One that can't be removed goes with the job's folder.
        """
        outdated = saved - {checkpoint.step for checkpoint in status.checkpoints}

        def remove() -> None:
            for step in outdated:
                with suppress(OSError):
                    attempt.checkpoint_path(step).unlink()

        if outdated:
            await asyncio.to_thread(remove)
        return outdated

    async def _attempt_at(self, job: Job) -> Attempt:
        validation, test = job.spec.validation.sha256, job.spec.test.sha256
        source, status = job.spec.warm_start, job.status
        with self._directory.storage.watched():
            folder = await asyncio.to_thread(self._directory.job, job.id)
        return Attempt(
            job_id=job.id,
            spec=job.spec,
            reason=status.queue_reason,
            environment=status.environment if status.progress.step or status.checkpoints else "",
            train_path=self._directory.dataset(job.spec.train_sha256),
            validation_path=self._directory.dataset(validation) if validation else None,
            test_path=self._directory.dataset(test) if test else None,
            source_path=self._directory.model(source.sha256) if source else None,
            job_directory=folder,
            models_directory=self._directory.models,
            kernels_directory=self._kernels_directory,
            checkpoints=status.checkpoints,
            checkpoint_interval_seconds=self._limits.checkpoint_interval_seconds,
            thread_count=self._limits.thread_count,
        )


async def _set_within(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)


def _remove_unnamed(attempt: Attempt) -> None:
    """Remove the checkpoints that an earlier attempt left and the log never named."""
    named = {attempt.checkpoint_path(checkpoint.step) for checkpoint in attempt.checkpoints}
    for path in set(attempt.checkpoint_files()) - named:
        with suppress(OSError):
            path.unlink()
