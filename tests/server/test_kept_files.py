"""Rows and files: whatever is created, deleted and trained, in whatever order, each row has its file and each file a row."""

import asyncio
import hashlib
import os
import random
import threading
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import sqlalchemy as sa
from mlpd.core.spec.training import WarmStartSpec
from mlpd.server.asynchronous import to_the_end
from mlpd.server.errors import ErrorKind, ServerError
from mlpd.server.jobs import lifecycle
from mlpd.server.names import version_name
from mlpd.server.records import Failed, Failure, Finished, Frame, JobState
from mlpd.server.storage import deletion, schema
from mlpd.server.storage.artifacts import DataDirectory
from mlpd.server.storage.contents import Contents
from mlpd.server.storage.database import Database
from mlpd.server.storage.datasets import Datasets
from mlpd.server.storage.housekeeping import Housekeeping
from mlpd.server.storage.store import Store
from mlpd.server.storage.stored_files import StoredFiles
from safetensors.numpy import save

from .test_lifecycle import JOB, QUEUED, SPEC

CONTENTS = [save({"inputs": np.full((2, 2), i, np.float32), "labels": np.array([0, 1])}) for i in range(3)]
DIGESTS = [hashlib.sha256(content).hexdigest() for content in CONTENTS]
BROKEN = Failure(ErrorKind.INTERNAL, "BROKEN", "it is")


class House:
    """The storage of a server, and what must be in it if each call is told the truth."""

    def __init__(self, root):
        self.directory = DataDirectory(root)
        self.database = Database(self.directory.database, schema.metadata, schema.VERSION)
        self.store = Store(self.database, lambda _job_id, _events: None)
        self.contents = Contents(self.database, self.directory)
        self.housekeeping = Housekeeping(self.database, self.directory, self.contents, lambda _job_id: None)
        files = StoredFiles(self.directory)
        self.datasets = Datasets(self.directory, self.store, files, self.contents, 10**6)

    def close(self):
        self.database.close()
        self.directory.close()

    async def upload(self, name, content):
        async def chunks():
            yield CONTENTS[content]

        await self.datasets.upload(name, DIGESTS[content], len(CONTENTS[content]), chunks())

    async def train(self, job_id, model_id, name, source=None):
        record = await self.store.dataset(name)
        spec = replace(SPEC, train_dataset=f"datasets/{name}", train_sha256=record.sha256)
        if source:
            model = await self.store.model(*source)
            spec = replace(spec, warm_start=WarmStartSpec(version_name(*source), full=False, sha256=model.file_sha256))
        job = replace(
            JOB,
            id=job_id,
            model_id=model_id,
            spec=spec,
            spec_digest=spec.digest,
            status=QUEUED,
        )
        await self.store.create_job(job, 100)

    async def end(self, job_id, how):
        """Run a queued job to an end, or cancel it."""
        if how is JobState.CANCELLED:
            await self.store.change_job(job_id, partial(lifecycle.cancel, job_id=job_id))
            return
        await self.store.change_job(job_id, lifecycle.start)
        (self.directory.job(job_id) / "checkpoint").write_bytes(b"1")
        frames: list[Frame] = [Failed(BROKEN)]
        if how is JobState.SUCCEEDED:
            content = f"model of {job_id}".encode()
            sha256 = hashlib.sha256(content).hexdigest()
            self.directory.model(sha256).write_bytes(content)
            frames = [Finished(sha256, "parameters", 6)]
        await self.store.change_job(job_id, partial(lifecycle.report, attempt=1, frames=frames))

    def rows(self, *columns):
        with sa.create_engine(f"sqlite:///{self.directory.database}").connect() as connection:
            return [tuple(row) for row in connection.execute(sa.select(*columns))]

    def check(self):
        """Every file has a row, every row its file, and every job that has not ended what it reads."""
        named = {sha256 for (sha256,) in self.rows(schema.datasets.c.sha256)}
        assert self.files("datasets") == {f"{sha256}.safetensors" for sha256 in named}
        models = {sha256 for (sha256,) in self.rows(schema.models.c.file_sha256)}
        assert self.files("models") == {f"{sha256}.safetensors" for sha256 in models}
        jobs = dict(self.rows(schema.jobs.c.number, schema.jobs.c.id))
        states = dict(self.rows(schema.job_statuses.c.number, schema.job_statuses.c.state))
        assert states.keys() == jobs.keys()
        inputs = self.rows(schema.job_inputs.c.number, schema.job_inputs.c.sha256)
        assert {number for number, _ in inputs} == jobs.keys()
        assert all(sha256 in named | models for number, sha256 in inputs if not JobState(states[number]).terminal)
        assert {job_id for (job_id,) in self.rows(schema.events.c.job_id)} == set(jobs.values())
        assert self.files("jobs") <= set(jobs.values())

    def files(self, folder):
        return {path.name for path in (self.directory.root / folder).iterdir()}


@contextmanager
def opened(root):
    house = House(root)
    try:
        yield house
    finally:
        house.close()


class Expected:
    """What a single user must be told, kept as plain dictionaries."""

    def __init__(self):
        self.datasets, self.jobs, self.versions = {}, {}, {}
        self.held, self.used_ids, self.newest = {}, set(), {}

    def users(self, content):
        return [job for job in self.jobs.values() if job["state"] == "queued" and content in job["reads"]]

    def upload(self, name, content):
        if self.held.setdefault(name, content) != content:
            return "DATASET_ID_TAKEN"
        self.datasets[name] = content
        return None

    def delete_dataset(self, name):
        if name not in self.datasets:
            return "DATASET_NOT_FOUND"
        if self.users(DIGESTS[self.datasets[name]]):
            return "DATASET_IN_USE"
        del self.datasets[name]
        return None

    def train(self, job_id, model_id, name, source):
        if name not in self.datasets:
            return "DATASET_NOT_FOUND"
        if source and source not in self.versions:
            return "MODEL_NOT_FOUND"
        if job_id in self.used_ids:
            return "JOB_ID_TAKEN"
        reads = {DIGESTS[self.datasets[name]]} | ({self.versions[source]} if source else set())
        self.jobs[job_id] = {"state": "queued", "reads": reads, "model": model_id}
        self.used_ids.add(job_id)
        return None

    def end(self, job_id, how):
        self.jobs[job_id]["state"] = "ended"
        if how is not JobState.SUCCEEDED:
            return
        model_id = self.jobs[job_id]["model"]
        self.newest[model_id] = self.newest.get(model_id, 0) + 1
        file = hashlib.sha256(f"model of {job_id}".encode()).hexdigest()
        self.versions[model_id, self.newest[model_id]] = file

    def delete_versions(self, model_id, version):
        chosen = [key for key in self.versions if key[0] == model_id and version in (None, key[1])]
        if not chosen:
            return "MODEL_NOT_FOUND"
        if any(self.users(self.versions[key]) for key in chosen):
            return "MODEL_IN_USE"
        for key in chosen:
            del self.versions[key]
        return None

    def delete_job(self, job_id):
        if job_id not in self.jobs:
            return "JOB_NOT_FOUND"
        if self.jobs[job_id]["state"] == "queued":
            return "JOB_NOT_ENDED"
        del self.jobs[job_id]
        return None


class Anything:
    """What is told to users who call at once, which depends on who comes first."""

    def __getattr__(self, _name):
        return lambda *_: None


async def told(call):
    """Return the reason that a call was refused with, None where it was not."""
    try:
        await call
    except ServerError as error:
        return error.reason
    return None


def drawn(draw, house, expected, queued):
    """Draw a call, and return it with what must be told of it; it ends one of the ``queued`` jobs, or is of any."""
    name, job_id, model_id, version = (
        draw.choice("abc"),
        f"job-{draw.randrange(6)}",
        draw.choice("mn"),
        draw.randint(1, 3),
    )
    content, source = draw.randrange(3), draw.choice([None, (model_id, version)])
    if queued and draw.random() < 0.3:
        job_id = queued.pop(draw.randrange(len(queued)))
        how = draw.choice([JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED])
        call, reason = to_the_end(house.end(job_id, how)), expected.end(job_id, how)
    else:
        housekeeping = house.housekeeping
        pairs = [
            lambda: (house.upload(name, content), expected.upload(name, content)),
            lambda: (housekeeping.delete_dataset(name), expected.delete_dataset(name)),
            lambda: (house.train(job_id, model_id, name, source), expected.train(job_id, model_id, name, source)),
            lambda: (housekeeping.delete_versions(model_id, version), expected.delete_versions(model_id, version)),
            lambda: (housekeeping.delete_versions(model_id, None), expected.delete_versions(model_id, None)),
            lambda: (housekeeping.delete_job(job_id), expected.delete_job(job_id)),
        ]
        call, reason = draw.choice(pairs)()
    return call, reason


@pytest.mark.parametrize("seed", range(3))
def test_one_user_is_always_told_the_truth(tmp_path, seed):
    draw, expected = random.Random(seed), Expected()

    async def use(house):
        for _ in range(80):
            queued = [own for own, job in expected.jobs.items() if job["state"] == "queued"]
            call, reason = drawn(draw, house, expected, queued)
            assert await told(call) == reason
            house.check()
        kept = {(row.id, row.sha256) for row in await house.store.read(_datasets)}
        assert kept == {(name, DIGESTS[content]) for name, content in expected.datasets.items()}

    with opened(tmp_path / "data") as house:
        asyncio.run(use(house))


def _datasets(connection):
    return list(connection.execute(sa.select(schema.datasets.c.id, schema.datasets.c.sha256)))


@pytest.mark.parametrize("seed", range(3))
def test_users_who_call_at_once_leave_no_row_without_its_file(tmp_path, seed):
    draw = random.Random(seed)

    async def use(house):
        for _ in range(12):
            queued = await house.store.next_queued(1, ())
            calls = [drawn(draw, house, Anything(), queued)[0] for _ in range(8)]
            waiting = [asyncio.ensure_future(told(call)) for call in calls]
            for one in waiting:
                if draw.random() < 0.2:
                    await asyncio.sleep(0)
                    one.cancel()  # its caller has gone
            await asyncio.gather(*waiting, return_exceptions=True)
            await house.database.write_nothing()  # what was cancelled has been written by now
            await asyncio.gather(*(house.contents.remove_dataset(sha256) for sha256 in DIGESTS))
            house.check()

    with opened(tmp_path / "data") as house:
        asyncio.run(use(house))


def test_a_file_that_is_read_stays_until_that_has_ended(tmp_path):
    async def use(house):
        await house.upload("a", 0)
        async with house.datasets.kept("a") as record:
            assert await house.housekeeping.delete_dataset("a") == 0
            assert house.directory.dataset(record.sha256).read_bytes() == CONTENTS[0]
            await house.upload("a", 0)
            await house.housekeeping.delete_dataset("a")
            assert await told(house.datasets.kept("a").__aenter__()) == "DATASET_NOT_FOUND"
        house.check()
        assert house.files("datasets") == set()

    with opened(tmp_path / "data") as house:
        asyncio.run(use(house))


def test_content_that_is_being_verified_keeps_its_file(tmp_path):
    """An upload finds its content there, under a name that is deleted while the file is read."""
    content = save({"inputs": np.zeros((4_000_000, 2), np.float32), "labels": np.arange(4_000_000) % 2})
    sha256 = hashlib.sha256(content).hexdigest()

    async def upload(house, name):
        async def chunks():
            yield content

        await house.datasets.upload(name, sha256, len(content), chunks())

    async def use(house):
        house.datasets.max_dataset_bytes = len(content)
        await upload(house, "a")
        os.utime(house.directory.dataset(sha256))  # so that it is read again
        again = asyncio.ensure_future(upload(house, "b"))
        await asyncio.sleep(0)
        await house.store.dataset("a")  # by now the upload has read its row, too
        await house.housekeeping.delete_dataset("a")
        await again
        house.check()
        assert house.files("datasets") == {f"{sha256}.safetensors"}

    with opened(tmp_path / "data") as house:
        asyncio.run(use(house))


def test_a_row_that_is_on_its_way_keeps_its_file(tmp_path):
    """The caller of an upload goes, and the file's last name is deleted, before the row is written."""

    async def use(house):
        await house.upload("a", 0)
        gates, begun = [threading.Event() for _ in range(3)], threading.Event()

        def held_up(gate):
            def wait(_connection):
                begun.set()
                gate.wait(60)

            return asyncio.ensure_future(house.database.write(wait))

        first = held_up(gates[0])
        await until(begun.is_set)
        deleting = asyncio.ensure_future(house.housekeeping.delete_dataset("a"))
        await until(lambda: house.database._requests.qsize() == 1)
        second = held_up(gates[1])
        await until(lambda: house.database._requests.qsize() == 2)
        gates[0].set()
        await first
        third = held_up(gates[2])
        uploading = asyncio.ensure_future(house.upload("b", 0))
        await until(lambda: house.database._requests.qsize() == 2)
        uploading.cancel()
        gates[1].set()
        await second
        for _ in range(20):  # what would remove the file now gets its turns
            await house.store.read(lambda _connection: None)
            await asyncio.to_thread(int)
        gates[2].set()
        await asyncio.gather(third, deleting)
        assert [name for (name,) in house.rows(schema.datasets.c.id)] == ["b"]
        house.check()

    with opened(tmp_path / "data") as house:
        asyncio.run(use(house))


async def until(condition):
    while not condition():  # noqa: ASYNC110 - it lies in another thread
        await asyncio.sleep(0)


def test_what_is_left_of_a_deleted_log_goes_at_the_next_start(tmp_path):
    async def use(house):
        await house.upload("a", 0)
        await house.train("job-0", "m", "a")
        await house.end("job-0", JobState.CANCELLED)
        await house.database.write(partial(deletion.delete_job, job_id="job-0"))  # and then the power goes
        assert await told(house.store.events("job-0", 0, 10)) == "JOB_NOT_FOUND"
        await house.housekeeping.collect()
        house.check()

    with opened(tmp_path / "data") as house:
        asyncio.run(use(house))


def test_what_nothing_names_is_removed_at_the_start_and_other_files_are_not(tmp_path):
    async def use(house):
        await house.upload("a", 0)
        for how in (JobState.SUCCEEDED, JobState.FAILED):
            await house.train(f"job-{how.lower()}", "m", "a")
            await house.end(f"job-{how.lower()}", how)
        kept = {folder: house.files(folder) for folder in ("datasets", "models", "jobs")}
        for folder in ("datasets", "models"):
            (house.directory.root / folder / f"{'0' * 64}.safetensors").write_bytes(b"123")
            (house.directory.root / folder / "README").write_text("mine")
        (house.directory.root / "jobs" / "job-gone").mkdir()
        await house.housekeeping.collect()
        for folder in ("datasets", "models"):
            assert house.files(folder) == kept[folder] | {"README"}
        assert house.files("jobs") == {"job-failed"}

    with opened(tmp_path / "data") as house:
        asyncio.run(use(house))
