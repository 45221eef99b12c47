"""A server whose disk refuses for a while: honest answers, no zombie, and everything goes on without a restart."""

import os
import resource
import signal
import time
import uuid
from contextlib import contextmanager, suppress

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from mlpd.client import Client, JobFailed, training_spec
from mlpd.v1 import trainer_service_pb2 as pb
from mlpd.v1.dataset_service_pb2_grpc import DatasetServiceStub
from mlpd.v1.trainer_service_pb2_grpc import TrainerServiceStub
from safetensors.numpy import save

from ..conftest import Server
from ..server.conftest import rings_spec, upload_messages
from .processes import worker_of

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
DEADLINE_SECONDS = 60
OFTEN = ("--checkpoint-interval-seconds", "0.2")
LONG = {"epoch_count": 100_000, "batch_size": 1}
A_SECOND_OR_TWO = {"epoch_count": 60, "batch_size": 5}


@contextmanager
def refusing(*pids):
    """Let the kernel refuse all that these processes write to files: SQLite sees an I/O error, others EFBIG."""
    before = {pid: resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in pids}
    for pid, (_, hard) in before.items():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        for pid, limits in before.items():
            with suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)


def refusal(call, *arguments):
    """Return code and reason of a call that must be refused, and say so with a time to try again."""
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments)
    metadata: dict[str, bytes] = dict(caught.value.trailing_metadata())  # type: ignore[arg-type]
    status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() > 0
    assert "sqlite" not in status.message.lower()
    return caught.value.code().name, info.reason


class Caller:
    """One client, without retries, so that it sees each refusal."""

    def __init__(self, server, channel):
        self.server = server
        self.trainer, self.datasets = TrainerServiceStub(channel), DatasetServiceStub(channel)
        self.health = health_pb2_grpc.HealthStub(channel)

    def train(self, **settings):
        request = pb.TrainRequest(spec=rings_spec(**settings), request_id=str(uuid.uuid4()))
        return self.trainer.Train(request).training_job

    def job(self, name):
        return self.trainer.GetTrainingJob(pb.GetTrainingJobRequest(name=name)).training_job

    def cancel(self, name):
        return self.trainer.CancelTrainingJob(pb.CancelTrainingJobRequest(name=name)).training_job

    def events(self, name):
        items = self.trainer.StreamProgress(pb.StreamProgressRequest(name=name), timeout=DEADLINE_SECONDS)
        return [item.event for item in items if item.HasField("event")]

    def upload(self, name, x, y):
        return self.datasets.UploadDataset(upload_messages(name, save({"inputs": x, "labels": y})))

    def serving(self):
        return self.health.Check(health_pb2.HealthCheckRequest()).status

    def until(self, condition):
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.fixture(scope="module")
def caller(tmp_path_factory, rings):
    directory = tmp_path_factory.mktemp("refusing") / "data"
    with Server(directory, *OFTEN) as server, grpc.insecure_channel(server.address) as channel:
        caller = Caller(server, channel)
        caller.upload("rings", *rings)
        yield caller


def state_names(events):
    changes = [event.state_changed.to_state for event in events if event.HasField("state_changed")]
    return [pb.TrainingJob.State.Name(state).removeprefix("STATE_") for state in changes]


def test_every_call_is_refused_honestly_and_all_goes_on_when_the_disk_does(caller, rings):
    running = caller.train(**LONG)
    caller.until(lambda: caller.job(running.name).progress.step > 0)
    queued = caller.train(epoch_count=3)
    assert caller.serving() == SERVING
    with refusing(caller.server.process.pid):
        assert refusal(caller.train) == ("UNAVAILABLE", "STORAGE")
        assert refusal(caller.cancel, running.name) == ("UNAVAILABLE", "STORAGE")
        assert refusal(caller.cancel, queued.name) == ("UNAVAILABLE", "STORAGE")
        assert refusal(caller.upload, "more", np.eye(3, dtype="f4"), np.arange(3)) == ("RESOURCE_EXHAUSTED", "STORAGE")
        caller.until(lambda: caller.serving() == NOT_SERVING)
        os.kill(worker_of(caller.server), signal.SIGKILL)
        assert caller.job(running.name).state == pb.TrainingJob.STATE_RUNNING  # what is stored, while nothing can be
        assert refusal(caller.train) == ("UNAVAILABLE", "STORAGE")
        assert caller.serving() == NOT_SERVING
    caller.until(lambda: caller.serving() == SERVING)
    caller.until(lambda: caller.job(running.name).attempt == 2)
    caller.cancel(running.name)
    events = caller.events(running.name)
    assert state_names(events) == ["QUEUED", "RUNNING", "QUEUED", "RUNNING", "CANCELLING", "CANCELLED"]
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert state_names(caller.events(queued.name)) == ["QUEUED", "RUNNING", "SUCCEEDED"]
    caller.upload("more", np.eye(3, dtype="f4"), np.arange(3))
    assert state_names(caller.events(caller.train().name)) == ["QUEUED", "RUNNING", "SUCCEEDED"]


def test_reports_wait_for_the_disk_without_a_gap_or_a_duplicate(caller):
    job = caller.train(epoch_count=100, metrics_interval_steps=4)
    caller.until(lambda: caller.job(job.name).progress.step > 0)
    with refusing(caller.server.process.pid):
        caller.until(lambda: caller.serving() == NOT_SERVING)
    events = caller.events(job.name)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert [event.metrics_recorded.progress.step for event in events if event.HasField("metrics_recorded")] == list(
        range(4, 1201, 4)
    )
    assert state_names(events) == ["QUEUED", "RUNNING", "SUCCEEDED"]


def test_a_worker_without_a_disk_trains_on_and_publishes_when_it_has_one(caller):
    job = caller.train(**A_SECOND_OR_TWO)
    caller.until(lambda: caller.job(job.name).progress.step > 0)
    worker = worker_of(caller.server)
    with refusing(worker):
        caller.until(lambda: caller.job(job.name).progress.step == caller.job(job.name).progress.step_count)
        assert caller.job(job.name).state == pb.TrainingJob.STATE_RUNNING
        assert caller.serving() == SERVING
    events = caller.events(job.name)
    assert state_names(events) == ["QUEUED", "RUNNING", "SUCCEEDED"]
    (warning,) = (event.message_logged.message for event in events if event.HasField("message_logged"))
    assert "could not be written" in warning
    assert warning.endswith("File too large")


def test_a_run_that_waits_for_the_disk_to_publish_can_be_cancelled(caller):
    job = caller.train(**A_SECOND_OR_TWO)
    caller.until(lambda: caller.job(job.name).progress.step > 0)
    with refusing(worker_of(caller.server)):
        caller.until(lambda: caller.job(job.name).progress.step == caller.job(job.name).progress.step_count)
        caller.cancel(job.name)
        assert state_names(caller.events(job.name))[-2:] == ["CANCELLING", "CANCELLED"]


def test_a_server_can_be_stopped_while_its_disk_refuses_and_the_next_start_goes_on(caller):
    running = caller.train(**LONG)
    caller.until(lambda: caller.job(running.name).progress.step > 0)
    queued = caller.train(epoch_count=3)
    with refusing(caller.server.process.pid):
        os.kill(worker_of(caller.server), signal.SIGKILL)
        caller.until(lambda: caller.serving() == NOT_SERVING)
        started = time.monotonic()
        assert caller.server.drain() == 0
        print(f"stopped in {time.monotonic() - started:.1f} s")
    with Server(caller.server.data_directory) as server, grpc.insecure_channel(server.address) as channel:
        caller = Caller(server, channel)
        caller.until(lambda: caller.job(running.name).attempt == 2)
        caller.cancel(running.name)
        assert state_names(caller.events(queued.name)) == ["QUEUED", "RUNNING", "SUCCEEDED"]


def test_a_model_that_can_not_be_put_in_its_place_fails_its_job_by_name(start_server, rings):
    server = start_server("--checkpoint-interval-seconds", "3600")
    spec = training_spec(layer_sizes=[2, 8, 3], train_dataset="rings", batch_size=5, epoch_count=60, learning_rate=0.01)
    with Client(server.address) as client:
        client.upload("rings", *rings)
        (server.data_directory / "models").rmdir()  # before the run, which may be over any moment
        job = client.train(spec)
        with pytest.raises(JobFailed, match="a file could not be read or written") as caught:
            client.wait(job)
    assert caught.value.reason == "STORAGE"
