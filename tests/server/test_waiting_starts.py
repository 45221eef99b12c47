"""A job that waits until a process can be started is stopped at once, not at its next try."""

import errno
import os
from contextlib import asynccontextmanager

import pytest
from mlpd.server.executors.process import ProcessExecutor
from mlpd.server.records import JobState

from .test_stopping import NEVER_SECONDS, running, until, with_jobs


class FullMachine(ProcessExecutor):
    """An executor on a machine that can start no process."""

    tries = 0

    @asynccontextmanager
    async def start(self, attempt):
        self.tries += 1
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        yield


@pytest.mark.parametrize(("how", "state"), [("cancel", JobState.CANCELLED), ("drain", JobState.QUEUED)])
def test_a_job_that_waits_for_a_process_is_stopped_at_once(tmp_path, monkeypatch, how, state):
    monkeypatch.setattr("mlpd.server.disk._FIRST_WAIT_SECONDS", NEVER_SECONDS)
    monkeypatch.setattr("mlpd.server.disk._LONGEST_WAIT_SECONDS", NEVER_SECONDS)
    executor = FullMachine()

    async def use(jobs, store, job_id):
        async def has_tried():
            return executor.tries

        async def is_stopped():
            return (await store.job(job_id)).status.state is state

        await running(store, job_id)
        await until(has_tried)
        await (jobs.cancel(job_id) if how == "cancel" else jobs.drain())
        await until(is_stopped)
        assert executor.tries == 1

    with_jobs(tmp_path, monkeypatch, use, lambda: executor)
