"""A long queue costs no more than a short one: what is read grows with what is asked for."""

import asyncio
import os
from dataclasses import replace

import pytest
import sqlalchemy as sa
from mlpd.core.network.architecture import ModelSpec
from mlpd.core.optimization.optimizers import Sgd
from mlpd.core.spec.training import OptimizerSpec, ScheduleSpec, TrainingSpec
from mlpd.server.executors.process import ProcessExecutor
from mlpd.server.jobs.queue import JobLimits, Jobs
from mlpd.server.records import JobState, Submission
from mlpd.server.storage import listing, schema
from mlpd.server.storage.artifacts import DataDirectory
from mlpd.server.storage.database import Database
from mlpd.server.storage.store import Store
from mlpd.v1 import trainer_service_pb2 as pb

from ..conftest import SOURCE_ROOTS
from .conftest import rings_spec
from .test_lifecycle import DATASET

SPEC = TrainingSpec(
    ModelSpec.plain((2, 3)), "datasets/gone", "0" * 64, 5, 1, OptimizerSpec(Sgd()), ScheduleSpec(0.1), 0, "cpu", 1
)
LENGTH = 200
_STEPS_AT_A_TIME = 100


class Reading:
    """Rows that came out of a database, and the steps that its machine took for them."""

    def __init__(self):
        self.rows = self.steps = 0

    def watch(self, connection, _record):
        connection.row_factory = self._row
        connection.set_progress_handler(self._steps, _STEPS_AT_A_TIME)

    def _row(self, _cursor, row):
        self.rows += 1
        return row

    def _steps(self):
        self.steps += _STEPS_AT_A_TIME


@pytest.fixture
def reading():
    reading = Reading()
    sa.event.listen(sa.Engine, "connect", reading.watch)
    yield reading
    sa.event.remove(sa.Engine, "connect", reading.watch)


def with_queue(tmp_path, length, use):
    """Run ``use`` with a store in which ``length`` jobs wait, its jobs, and the ids of those that end."""

    async def run():
        ends: asyncio.Queue[str] = asyncio.Queue()

        def publish(job_id, events):
            if events[-1].terminal:
                ends.put_nowait(job_id)

        directory = DataDirectory(tmp_path / str(length))
        database = Database(directory.database, schema.metadata, schema.VERSION)
        store = Store(database, publish)
        jobs = Jobs(store, directory, directory.root / "kernels", ProcessExecutor(), JobLimits(1, length, 1, 5.0, 10.0))
        specs = [replace(SPEC, seed=number) for number in range(length)]
        try:
            await store.create_dataset(replace(DATASET, sha256=SPEC.train_sha256))
            await asyncio.gather(
                *(jobs.submit(Submission(None, "", f"job-{spec.seed}", "", spec, 10, 0)) for spec in specs)
            )
            return await use(store, jobs, ends)
        finally:
            database.close()
            directory.close()

    return asyncio.run(run())


def test_starting_the_next_job_does_not_read_the_queue(tmp_path, reading, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(SOURCE_ROOTS))

    async def use(store, jobs, ends):
        running = asyncio.create_task(jobs.run())
        first = await asyncio.wait_for(ends.get(), 60)
        before = reading.rows, reading.steps
        second = await asyncio.wait_for(ends.get(), 60)  # both fail, as their data are not there
        after = reading.rows, reading.steps
        running.cancel()
        await jobs.drain()
        assert (first, second) == ("job-0", "job-1")
        return after[0] - before[0], after[1] - before[1]

    rows, steps = with_queue(tmp_path, LENGTH, use)
    print(f"a start reads {rows} rows in {steps} steps")
    assert rows < 10
    assert steps < 10 * LENGTH


def test_a_page_of_jobs_reads_itself_and_counts_the_queue_once(tmp_path, reading):
    async def use(store, _jobs, _ends):
        before = reading.rows
        page = await store.read(lambda connection: list(listing.jobs(connection, None, 100)))
        between = reading.rows
        await store.read(lambda connection: next(listing.jobs(connection, None, 100)))
        return page, between - before, reading.rows - between

    page, rows, rows_of_one = with_queue(tmp_path, LENGTH, use)
    assert [entry.read().spec.seed for entry in page] == [LENGTH - 1 - place for place in range(100)]
    assert [entry.queue_position for entry in page] == [LENGTH - 1 - place for place in range(100)]
    assert rows < 100 + 5
    assert rows_of_one < 5  # what nobody asks for is not read


def test_positions_skip_the_jobs_that_do_not_wait(tmp_path):
    async def use(store, jobs, _ends):
        for number in (3, 4, 7):
            await jobs.cancel(f"job-{number}")
        page = await store.read(lambda connection: list(listing.jobs(connection, None, 100)))
        ids = [entry.read().id for entry in page if entry.state is JobState.QUEUED]
        return [entry.queue_position for entry in page], [await store.queue_position(job_id) for job_id in ids]

    assert with_queue(tmp_path, 10, use) == ([6, 5, 0, 4, 3, 0, 0, 2, 1, 0], [6, 5, 4, 3, 2, 1, 0])


@pytest.fixture
def large_jobs(stubs):
    """Jobs that wait with half a megabyte of class weights each, oldest first; all are cancelled after the test."""
    blocking = stubs.train(rings_spec(epoch_count=100_000, batch_size=1))
    spec = rings_spec(loss=pb.Loss(class_weights=[1.0] * 65_536))
    spec.model.layer_sizes[-1] = 65_536
    jobs = [stubs.train(spec) for _ in range(8)]
    yield [job.name for job in jobs]
    for job in (*reversed(jobs), blocking):
        stubs.trainer.CancelTrainingJob(pb.CancelTrainingJobRequest(name=job.name))
    stubs.events(blocking.name)


def test_a_page_of_large_jobs_is_small_enough_for_any_client_and_the_next_one_goes_on(stubs, large_jobs):
    pages: list[list[pb.TrainingJob]] = []
    token = ""
    while len(names := [job.name for page in pages for job in page]) < 8:
        answer = stubs.trainer.ListTrainingJobs(pb.ListTrainingJobsRequest(page_size=1000, page_token=token))
        assert answer.ByteSize() < 4 * 1024 * 1024
        pages.append(list(answer.training_jobs))
        token = answer.next_page_token
    assert names[:8] == large_jobs[::-1]
    assert [job.queue_position for page in pages for job in page][:8] == list(range(7, -1, -1))
    assert len(pages[0]) < 8
