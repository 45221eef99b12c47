"""Starts that fail for now, stops of what is only starting or takes too long, and what is left behind."""

import asyncio
import errno
import os
import signal
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from mlpd.server.executors.process import ProcessExecutor, WorkerProcess
from mlpd.server.jobs.events import EventLog
from mlpd.server.jobs.queue import JobLimits, Jobs
from mlpd.server.records import AttemptStarted, JobState, MessageLogged, Stopped, StopReason, Submission
from mlpd.server.storage import schema
from mlpd.server.storage.artifacts import DataDirectory
from mlpd.server.storage.contents import Contents
from mlpd.server.storage.database import Database
from mlpd.server.storage.store import Store

from ..conftest import ENVIRONMENT
from ..system.processes import children_of, workers_among
from .test_lifecycle import DATASET, SPEC

SECONDS = 60
NEVER_SECONDS = 3600.0  # a worker that is not ended at once makes its test too late


def with_jobs(tmp_path, monkeypatch, use, executor=ProcessExecutor, *, runs=True):
    """Run ``use(jobs, store, job)`` with a job whose queue ``runs``, and its folder."""
    monkeypatch.setenv("PYTHONPATH", ENVIRONMENT["PYTHONPATH"])

    async def run():
        directory = DataDirectory(tmp_path / "data")
        database = Database(directory.database, schema.metadata, schema.VERSION)
        store = Store(database, EventLog().publish)
        limits = JobLimits(1, 10, 1, NEVER_SECONDS, stop_seconds=NEVER_SECONDS)
        jobs = Jobs(store, directory, directory.root / "kernels", executor(), limits)
        queue = asyncio.create_task(jobs.run() if runs else asyncio.sleep(0))
        try:
            async with asyncio.timeout(SECONDS):
                spec = replace(SPEC, train_sha256="0" * 64)
                await store.create_dataset(replace(DATASET, sha256=spec.train_sha256))
                job, _ = await jobs.submit(Submission(None, "", "a", "", spec, row_count=1, memory_bytes=1))
                await use(jobs, store, job.id)
        finally:
            queue.cancel()
            database.close()
            directory.close()

    asyncio.run(run())


async def until(condition):
    while not (found := await condition()):  # noqa: ASYNC110 - it lies in files and in the kernel
        await asyncio.sleep(0.001)
    return found


async def stopped_worker():
    """Return the worker, held before it can report."""
    pid = (await until(_workers))[0]
    os.kill(pid, signal.SIGSTOP)
    return pid


async def _workers():
    return workers_among(children_of(os.getpid()))


async def running(store, job_id):
    async def is_running():
        return (await store.job(job_id)).status.state is JobState.RUNNING

    await until(is_running)


@pytest.mark.parametrize("moment", ["as soon as it runs", "when its worker is there"])
def test_cancel_does_not_wait_for_a_worker_to_start(tmp_path, monkeypatch, moment):
    async def use(jobs, store, job_id):
        await running(store, job_id)
        if moment == "when its worker is there":
            await stopped_worker()
        await jobs.cancel(job_id)

        async def is_cancelled():
            return (await store.job(job_id)).status.state is JobState.CANCELLED

        await until(is_cancelled)
        payloads = [event.payload for event in await store.events(job_id, 0, 100)]
        assert not any(isinstance(payload, AttemptStarted | MessageLogged) for payload in payloads)

    with_jobs(tmp_path, monkeypatch, use)


@pytest.mark.parametrize("moment", ["as soon as it runs", "when its worker is there"])
def test_a_drain_requeues_a_job_whose_worker_is_starting_and_counts_no_crash(tmp_path, monkeypatch, moment):
    async def use(jobs, store, job_id):
        await running(store, job_id)
        if moment == "when its worker is there":
            await stopped_worker()
        await jobs.drain()
        job = (await store.job(job_id)).status
        assert (job.state, job.queue_reason, job.crash_count) == (JobState.QUEUED, "server_drain", 0)
        payloads = [event.payload for event in await store.events(job_id, 0, 100)]
        assert not any(isinstance(payload, AttemptStarted | MessageLogged) for payload in payloads)

    with_jobs(tmp_path, monkeypatch, use)


def test_cancel_of_a_job_that_no_worker_runs_ends_it(tmp_path, monkeypatch):
    async def use(jobs, store, job_id):
        await running(store, job_id)
        await stopped_worker()
        (attempt,) = jobs._attempts.values()
        attempt.cancel()
        await until(_gone(jobs))
        assert (await store.job(job_id)).status.state is JobState.RUNNING
        assert (await jobs.cancel(job_id)).status.state is JobState.CANCELLED

    with_jobs(tmp_path, monkeypatch, use)


class FullMachine(ProcessExecutor):
    """An executor on a machine that can't start a process at first."""

    refusals = 3

    @asynccontextmanager
    async def start(self, attempt):
        if self.refusals:
            self.refusals -= 1
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        async with super().start(attempt) as worker:
            yield worker


def test_a_job_waits_where_no_process_can_be_started_and_counts_no_crash(tmp_path, monkeypatch):
    async def use(jobs, store, job_id):
        async def is_over():
            status = (await store.job(job_id)).status
            return status.state.terminal and status

        status = await until(is_over)
        assert (status.attempt, status.crash_count, status.failure.reason) == (1, 0, "DATASET_DAMAGED")
        assert jobs._executor.refusals == 0

    with_jobs(tmp_path, monkeypatch, use, FullMachine)


def test_a_job_that_waits_for_a_process_can_be_cancelled(tmp_path, monkeypatch):
    class Full(FullMachine):
        refusals = 10**9

    async def use(jobs, store, job_id):
        await running(store, job_id)
        await jobs.cancel(job_id)

        async def is_cancelled():
            return (await store.job(job_id)).status.state is JobState.CANCELLED

        await until(is_cancelled)

    with_jobs(tmp_path, monkeypatch, use, Full)


def test_a_worker_that_takes_too_long_to_stop_is_no_crash():
    """It has reported, and is held before it can obey."""

    async def use():
        worker = await WorkerProcess.started()
        worker._has_reported = True
        os.kill(worker._process.pid, signal.SIGSTOP)
        worker.stop(StopReason.DRAIN, patience_seconds=0.01)
        assert [frames async for frames in worker.reports()] == [[Stopped(StopReason.DRAIN)]]
        assert await worker.ending() == "was killed by SIGKILL"

    asyncio.run(asyncio.wait_for(use(), SECONDS))


def test_a_queued_job_that_is_cancelled_leaves_no_folder(tmp_path, monkeypatch):
    """One that ran before, and went back to the queue."""

    async def use(jobs, store, job_id):
        folder = jobs._directory.job(job_id)
        (folder / "checkpoint-000000000001.safetensors").write_bytes(b"1")
        await jobs.cancel(job_id)
        assert not folder.exists()
        folder.mkdir()  # as a server leaves it that dies before it has removed it
        await Contents(store._database, jobs._directory).collect()
        assert not folder.exists()

    with_jobs(tmp_path, monkeypatch, use, runs=False)


def _gone(jobs):
    async def gone():
        return not jobs._attempts

    return gone
