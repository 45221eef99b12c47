"""Stops of a job whose worker is still being started: it is ended at once, and has done nothing wrong."""

import asyncio
import os
import signal
from dataclasses import replace

import pytest
from mlpd.server.executors.process import ProcessExecutor
from mlpd.server.jobs.events import EventLog
from mlpd.server.jobs.queue import JobLimits, Jobs
from mlpd.server.records import AttemptStarted, JobState, MessageLogged, Submission
from mlpd.server.storage import schema
from mlpd.server.storage.artifacts import DataDirectory
from mlpd.server.storage.database import Database
from mlpd.server.storage.store import Store

from ..conftest import ENVIRONMENT
from ..system.processes import children_of, workers_among
from .test_lifecycle import SPEC

SECONDS = 60
NEVER_SECONDS = 3600.0  # a worker that is not ended at once makes its test too late


def with_jobs(tmp_path, monkeypatch, use):
    """Run ``use(jobs, store, job)`` with a job whose scheduler runs."""
    monkeypatch.setenv("PYTHONPATH", ENVIRONMENT["PYTHONPATH"])

    async def run():
        directory = DataDirectory(tmp_path / "data")
        database = Database(directory.database, schema.metadata, schema.VERSION)
        store = Store(database, EventLog().publish)
        limits = JobLimits(1, 10, 1, NEVER_SECONDS, stop_seconds=NEVER_SECONDS)
        jobs = Jobs(store, directory, directory.root / "kernels", ProcessExecutor(), limits)
        queue = asyncio.create_task(jobs.run())
        try:
            async with asyncio.timeout(SECONDS):
                spec = replace(SPEC, train_sha256="0" * 64)
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


def _gone(jobs):
    async def gone():
        return not jobs._attempts

    return gone
