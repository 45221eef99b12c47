"""The store: a status and its events in one transaction, a log without duplicates, and specs read only when wanted."""

import asyncio
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import count

import pytest
import sqlalchemy as sa
from mlpd.server.errors import DataLoss
from mlpd.server.jobs import lifecycle
from mlpd.server.records import Finished, JobState, MetricsRecorded, Progress, Stopped, StopReason
from mlpd.server.storage import schema
from mlpd.server.storage.database import Database
from mlpd.server.storage.store import Store

from .test_lifecycle import DATASET, JOB


def with_store(tmp_path, use):
    """Run ``use`` with a store in which the job ``a`` runs, and whose clock ticks at every look."""

    async def run():
        database = Database(tmp_path / "store.sqlite3", schema.metadata, schema.VERSION)
        with closing(database):
            store = Store(database, lambda _job_id, _events: None, count(100).__next__)
            await store.create_dataset(DATASET)
            await store.create_job(JOB, 10)
            await store.change_job("a", lifecycle.start)
            return await use(store, database)

    return asyncio.run(run())


def metrics(step, loss=0.5, split="train", rows_per_second=0.0):
    return MetricsRecorded(split, Progress(step, 9, 1, 3, rows_per_second), loss, None, 0.1)


def report(store, *frames, attempt=1):
    return store.change_job("a", partial(lifecycle.report, attempt=attempt, frames=frames))


async def logged(store):
    """Return the steps and splits in the log, which must be numbered without a gap."""
    events = await store.events("a", 0, 100)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert (await store.log_state("a")).last_sequence == len(events)
    return [(e.payload.progress.step, e.payload.split) for e in events if isinstance(e.payload, MetricsRecorded)]


def test_steps_that_are_computed_again_are_logged_once(tmp_path):
    async def use(store, _):
        await report(store, *(metrics(step) for step in (1, 2, 3)), metrics(3, split="validation"))
        await report(store, Stopped(StopReason.DRAIN))
        await store.change_job("a", lifecycle.start)
        again = [metrics(step, rows_per_second=7.0) for step in (2, 3, 4)]
        await report(store, *again, metrics(4), metrics(4, split="validation"), attempt=2)
        return await logged(store)

    train, validation = "train", "validation"
    assert with_store(tmp_path, use) == [
        (1, train),
        (2, train),
        (3, train),
        (3, validation),
        (4, train),
        (4, validation),
    ]


@pytest.mark.parametrize("second", [(metrics(2), metrics(1, loss=0.25)), (metrics(2), metrics(2, loss=0.25))])
def test_another_result_of_a_step_is_refused_and_leaves_no_trace(tmp_path, second):
    async def use(store, _):
        status = await report(store, metrics(1))
        with pytest.raises(
            DataLoss, match=r"was computed again with another result: train loss 0.25, the log says 0.5"
        ):
            await report(store, *second)
        assert (await store.job("a")).status == status
        return await logged(store)

    assert with_store(tmp_path, use) == [(1, "train")]


def test_an_event_and_the_state_that_it_tells_of_have_one_time(tmp_path):
    async def use(store, _):
        await report(store, Finished("file", "parameters", 6))
        job = await store.job("a")
        times = [event.time for event in await store.events("a", 0, 100)]
        assert times == [job.create_time, job.status.start_time, job.status.end_time] == [100, 101, 102]
        model = await store.model("a", None)
        assert (model.create_time, model.spec, model.task) == (102, JOB.spec.model, JOB.spec.task)

    with_store(tmp_path, use)


def test_a_spec_is_read_when_a_model_is_published_and_not_before(tmp_path):
    async def use(store, database):
        await database.write(lambda connection: connection.execute(sa.update(schema.jobs).values(spec="{}")))
        assert (await report(store, metrics(1))).last_sequence == 3
        with pytest.raises(DataLoss, match=r"the spec of trainingJobs/a can't be read"):
            await report(store, Finished("file", "parameters", 6))
        assert (await store.change_job("a", lifecycle.recover)).state is JobState.QUEUED

    with_store(tmp_path, use)


def test_the_next_jobs_are_the_oldest_that_wait_but_for_those_left_out(tmp_path):
    async def use(store, _):
        for name in "bcde":
            await store.create_job(replace(JOB, id=name), 10)
        await store.change_job("c", partial(lifecycle.cancel, job_id="c"))
        return await store.next_queued(2, {"b"}), await store.next_queued(9, ())

    assert with_store(tmp_path, use) == (["d", "e"], ["b", "d", "e"])
