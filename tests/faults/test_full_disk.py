"""A full disk, 14 concurrent callers, large and small Trains: acknowledged and lost 0, hung 0, and on it goes."""

import asyncio
import os
import signal
import sqlite3
import threading
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from mlpd.server.jobs.events import EventLog
from mlpd.server.storage import schema
from mlpd.server.storage.database import Database
from mlpd.server.storage.store import Store
from mlpd.v1 import trainer_service_pb2 as pb
from mlpd.v1 import types_pb2 as types

from ..conftest import Server
from ..server.conftest import Stubs, rings_spec
from ..server.test_lifecycle import DATASET, JOB, SPEC
from ..system.processes import worker_of
from .old_group_commit import OldGroupCommit

pytestmark = pytest.mark.faults

CALLERS = 14
CALLS = 5  # of each caller in a round
ROUNDS_FREE_BYTES = (1_200_000, 1_700_000, 2_200_000, 2_600_000)
LARGE_BYTES = 300_000
PATIENCE_SECONDS = 30
OUTAGE_SECONDS = 7


@dataclass
class Tally:
    """What callers were told, and what became of it."""

    calls: int = 0
    acknowledged: list[str] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    hung: int = 0
    lost: int = 0
    accepts_again: list[bool] = field(default_factory=list)

    def report(self, name):
        print(
            f"{name}: {self.calls} calls, {len(self.acknowledged)} acknowledged, of those lost {self.lost}; "
            f"refused {dict(self.refused)}; "
            f"hung {self.hung}; accepts again after each round: {self.accepts_again}"
        )


async def storm(disk, kind):
    """Let callers store large and small jobs while the disk fills up, four times, and count."""
    tally = Tally()
    database = kind(disk.root / "mlpd.sqlite3", schema.metadata, schema.VERSION)
    store = Store(database, EventLog().publish)
    await store.create_dataset(DATASET)

    async def create(size_bytes):
        tally.calls += 1
        name = uuid.uuid4().hex
        spec = replace(SPEC, train_dataset="x" * size_bytes)
        await store.create_job(replace(JOB, id=name, log_id=name, spec=spec), queue_limit=10**6)
        tally.acknowledged.append(name)

    async def call(caller):
        for number in range(CALLS):
            try:
                await create(LARGE_BYTES if (caller + number) % 2 else 100)
            except Exception as error:  # noqa: BLE001 - every refusal counts
                tally.refused[type(error).__name__] += 1

    for free_bytes in ROUNDS_FREE_BYTES:
        disk.leave(free_bytes)
        calls = [asyncio.ensure_future(call(caller)) for caller in range(CALLERS)]
        await asyncio.wait(calls, timeout=PATIENCE_SECONDS)
        disk.empty()
        again = asyncio.ensure_future(create(100))
        _, pending = await asyncio.wait([*calls, again], timeout=PATIENCE_SECONDS / 4)
        tally.accepts_again.append(again not in pending and again.exception() is None)
        tally.hung += len(pending)
        if pending:  # nobody will answer any more
            break
    else:
        database.close()
    tally.lost = len(set(tally.acknowledged) - stored_jobs(disk))
    tally.report(kind.__name__)
    return tally


def stored_jobs(disk):
    """Return the jobs on the disk, as a process that comes later finds them."""
    connection = sqlite3.connect(disk.root / "mlpd.sqlite3")
    try:
        return {name for (name,) in connection.execute("SELECT id FROM jobs")}
    finally:
        connection.close()


def test_nothing_acknowledged_is_lost_and_nobody_hangs(disk):
    tally = asyncio.run(storm(disk, Database))
    assert (tally.lost, tally.hung) == (0, 0)
    assert set(tally.refused) == {"StorageFull"}
    assert tally.accepts_again == [True] * len(ROUNDS_FREE_BYTES)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_the_old_group_commit_is_caught(disk):
    tally = asyncio.run(storm(disk, OldGroupCommit))
    assert tally.lost > 0 or tally.hung > 0 or not all(tally.accepts_again)


class Health:
    """Asks for the server's health all the time, and remembers the answers."""

    def __init__(self, channel):
        self._stub = health_pb2_grpc.HealthStub(channel)
        self._samples: list[tuple[float, bool]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def _ask(self):
        while not self._ended.wait(0.005):
            before = time.monotonic()
            serving = self._stub.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_SECONDS).status
            self._samples.append((before, serving == health_pb2.HealthCheckResponse.SERVING))

    def since(self, moment):
        return [serving for at, serving in self._samples if at >= moment]

    def until(self, serving):
        deadline = time.monotonic() + PATIENCE_SECONDS
        moment = time.monotonic()
        while serving not in self.since(moment):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()


def reason_of(error):
    """Return code and reason of a refusal."""
    metadata = dict(error.trailing_metadata())
    if "grpc-status-details-bin" not in metadata:
        return error.code().name
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    details = status_pb2.Status.FromString(metadata["grpc-status-details-bin"]).details
    assert details[0].Unpack(info)
    assert details[1].Unpack(retry)
    return f"{error.code().name}/{info.reason}"


def request(size):
    """A Train whose stored spec has ``size`` class weights."""
    spec = rings_spec(
        model=types.ModelSpec(layer_sizes=[2, max(size, 3)]),
        loss=pb.Loss(class_weights=[0.1 + n / 7 for n in range(size)]),
    )
    return pb.TrainRequest(spec=spec, request_id=str(uuid.uuid4()))


def test_a_server_on_a_full_disk_tells_the_truth_and_goes_on(disk, tmp_path, rings):
    """Data sets and models are on a larger disk, which holds MNIST; the database is on the small one."""
    data_directory = tmp_path / "data"
    data_directory.mkdir()
    (data_directory / "mlpd.sqlite3").symlink_to(disk.root / "mlpd.sqlite3")
    tally = Tally()
    with Server(data_directory) as server, grpc.insecure_channel(server.address) as channel:
        stubs = Stubs(channel)
        stubs.upload("rings", *rings)
        running = stubs.train(rings_spec(epoch_count=100_000, batch_size=1))

        def train(size):
            tally.calls += 1
            try:
                job = stubs.trainer.Train(request(size), timeout=PATIENCE_SECONDS).training_job
            except grpc.RpcError as error:
                reason = reason_of(error)
                tally.refused[reason] += 1
                tally.hung += reason == "DEADLINE_EXCEEDED"
                return False
            tally.acknowledged.append(job.name.removeprefix("trainingJobs/"))
            return True

        def small_ones_pass(count):
            return sum([train(0) for _ in range(count)])

        def call(caller):
            for number in range(CALLS):
                train(8000 if (caller + number) % 2 else 0)

        with Health(channel) as health, ThreadPoolExecutor(CALLERS) as callers:
            health.until(serving=True)
            for free_bytes in ROUNDS_FREE_BYTES:
                disk.leave(free_bytes)
                list(callers.map(call, range(CALLERS)))
                disk.fill()
                while small_ones_pass(3):
                    disk.fill()
                health.until(serving=False)
                moment = time.monotonic()
                assert small_ones_pass(10) == 0
                assert not any(health.since(moment))
                disk.empty()
                health.until(serving=True)
                tally.accepts_again.append(train(0))
            moment = time.monotonic()
            step = stubs.job(running.name).progress.step
            deadline = time.monotonic() + PATIENCE_SECONDS
            while stubs.job(running.name).progress.step == step:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert all(health.since(moment))
        stubs.trainer.CancelTrainingJob(pb.CancelTrainingJobRequest(name=running.name))
        events = stubs.events(running.name)
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        server.kill()
    tally.lost = len(set(tally.acknowledged) - stored_jobs(disk))
    tally.report("server")
    assert (tally.lost, tally.hung) == (0, 0)
    assert set(tally.refused) == {"RESOURCE_EXHAUSTED/STORAGE"}
    assert tally.accepts_again == [True] * len(ROUNDS_FREE_BYTES)


def test_a_job_that_can_not_end_or_start_costs_next_to_nothing(disk, tmp_path, rings, capfd):
    data_directory = tmp_path / "data"
    data_directory.mkdir()
    (data_directory / "mlpd.sqlite3").symlink_to(disk.root / "mlpd.sqlite3")
    with Server(data_directory) as server, grpc.insecure_channel(server.address) as channel:
        stubs = Stubs(channel)
        stubs.upload("rings", *rings)
        running = stubs.train(rings_spec(epoch_count=100_000, batch_size=1))
        queued = stubs.train(rings_spec())
        with Health(channel) as health:
            disk.fill()
            health.until(serving=False)
            os.kill(worker_of(server), signal.SIGKILL)
        capfd.readouterr()
        before = processor_seconds(server)
        threading.Event().wait(OUTAGE_SECONDS)
        cost = processor_seconds(server) - before
        log = capfd.readouterr().err
        disk.empty()
        with Health(channel) as health:
            health.until(serving=True)
        stubs.trainer.CancelTrainingJob(pb.CancelTrainingJobRequest(name=running.name))
        assert stubs.events(running.name)[-1].state_changed.to_state == pb.TrainingJob.STATE_CANCELLED
        assert stubs.events(queued.name)[-1].state_changed.to_state == pb.TrainingJob.STATE_SUCCEEDED
    with capfd.disabled():
        print(f"{OUTAGE_SECONDS} s without a disk: {cost / OUTAGE_SECONDS:.1%} of a core, {len(log)} bytes of log")
    assert cost < 0.1 * OUTAGE_SECONDS
    assert len(log) < 2000


def processor_seconds(server):
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
