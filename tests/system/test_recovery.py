"""Real processes, killed: nothing acknowledged is lost, and a resumed run gives the same bits."""

import json
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from mlpd.client import Client, JobFailed, MlpdError, training_spec
from mlpd.v1 import trainer_service_pb2 as pb

from ..conftest import ENVIRONMENT, WITH_ANY_DEVICE, Server, open_cuda
from .processes import worker_of

OFTEN = ("--checkpoint-interval-seconds", "0.05")
SETTINGS: dict[str, Any] = {
    "layer_sizes": [2, 128, 128, 3],
    "activation": ["gelu", "relu"],
    "normalization": "batch",
    "dropout": 0.1,
    "average_decay": 0.99,
    "train_dataset": "rings",
    "validation_dataset": "rings",
    "batch_size": 10,
    "epoch_count": 20,
    "optimizer": "adamw",
    "learning_rate": 0.001,
    "schedule": "cosine",
    "seed": 3,
}
# What is quicker must still be at work at the last kill.
COMPILED: dict[str, Any] = {
    "device": "cpu",
    "runner": "compiled",
    "split": "units",
    "block_count": 2,
    "epoch_count": 100,
}
# On an emulated GPU a small step takes milliseconds. Steps of an epoch come again, so most are launched as graphs.
COMPILED_ON_CUDA: dict[str, Any] = {
    "device": "cuda",
    "runner": "compiled",
    "layer_sizes": [2, 16, 16, 3],
    "batch_size": 60,
    "epoch_count": 60,
}


@dataclass(frozen=True)
class DeviceUnderTest:
    """How a server and its jobs are given a device, and which files in the folder of kernels have its code."""

    environment: Mapping[str, str]
    settings: dict[str, Any]
    kernels: str


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request):
    if request.param == "cpu":
        return DeviceUnderTest(ENVIRONMENT, SETTINGS | COMPILED, "*/f*")
    open_cuda().free()
    return DeviceUnderTest(WITH_ANY_DEVICE, SETTINGS | COMPILED_ON_CUDA, "cuda/*.cubin")


@pytest.fixture
def start(start_server, device, undisturbed):
    """Start servers that have the device."""
    return partial(start_server, environment=device.environment)


def follow_until(events, kind, count=1):
    """Return the events up to the ``count``-th of a kind."""
    seen = []
    for event in events:
        seen.append(event)
        if event.WhichOneof("payload") == kind:
            count -= 1
            if count == 0:
                return seen
    raise AssertionError(f"the log ended before {kind} came so often")


def facts(events):
    """Return what must be equal in two runs of the same spec: every report, without its timings."""
    metrics = [event.metrics_recorded for event in events if event.HasField("metrics_recorded")]
    return [(m.split, m.progress.step, m.progress.epoch, m.loss, m.accuracy, m.learning_rate) for m in metrics]


@pytest.fixture(scope="module")
def undisturbed(device, rings, tmp_path_factory):
    """Reports and parameters of the run that nobody disturbs."""
    with (
        Server(tmp_path_factory.mktemp("undisturbed") / "data", environment=device.environment) as server,
        Client(server.address) as client,
    ):
        client.upload("rings", *rings)
        job = client.train(training_spec(**device.settings))
        events = list(client.progress(job))
        digest = client.model(client.wait(job).model_version).parameters_sha256
    return facts(events), digest


def test_a_job_survives_kill_9_of_the_server_and_its_follower_notices_nothing(start, device, rings, undisturbed):
    server = start(*OFTEN)
    with Client(server.address) as client:
        client.upload("rings", *rings)
        job = client.train(training_spec(**device.settings))
        log = client.progress(job)  # left running through every kill
        events = []
        for _ in range(3):
            events += follow_until(log, "checkpoint_saved")
            worker = worker_of(server)
            server.kill()
            assert not _alive(worker)
            server = start(*OFTEN, port=server.port)
        events += list(log)
        ended = client.wait(job)
        digest = client.model(ended.model_version).parameters_sha256
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert [e.attempt_started.reason for e in events if e.HasField("attempt_started")] == ["first"] + [
        "server_restart"
    ] * 3
    assert all(e.attempt_started.resume_step > 0 for e in events if e.attempt_started.reason == "server_restart")
    assert (facts(events), digest) == undisturbed


def test_a_job_survives_kill_9_of_its_worker(start, device, rings, undisturbed):
    server = start(*OFTEN)
    with Client(server.address) as client:
        client.upload("rings", *rings)
        job = client.train(training_spec(**device.settings))
        log = client.progress(job)
        events = follow_until(log, "checkpoint_saved")
        os.kill(worker_of(server), signal.SIGKILL)
        events += list(log)
        digest = client.model(client.wait(job).model_version).parameters_sha256
    warnings = [event.message_logged.message for event in events if event.HasField("message_logged")]
    assert warnings == ["the worker was killed by SIGKILL"]
    assert (facts(events), digest) == undisturbed


def test_compiled_code_that_was_damaged_or_cut_is_made_anew(start, device, rings, undisturbed, tmp_path):
    cached = {"environment": device.environment | {"XDG_CACHE_HOME": str(tmp_path / "cache")}}
    server = start(*OFTEN, **cached)
    with Client(server.address) as client:
        client.upload("rings", *rings)
        job = client.train(training_spec(**device.settings))
        log = client.progress(job)
        events = follow_until(log, "checkpoint_saved")
        server.kill()
        folder = tmp_path / "cache" / "mlpd" / "kernels"
        kernels = [path for path in folder.glob(device.kernels) if path.stat().st_size]
        for path, damaged in zip(kernels, cycle((lambda code: code[:-1], bytes, lambda _: b"")), strict=False):
            path.write_bytes(damaged(path.read_bytes()))
        start(*OFTEN, port=server.port, **cached)
        events += list(log)
        digest = client.model(client.wait(job).model_version).parameters_sha256
    assert len(kernels) > 3
    assert all(path.stat().st_size > 32 for path in kernels)
    assert (facts(events), digest) == undisturbed


def test_a_damaged_checkpoint_is_skipped_with_a_warning(start, device, rings, undisturbed):
    server = start(*OFTEN)
    with Client(server.address) as client:
        client.upload("rings", *rings)
        job = client.train(training_spec(**device.settings))
        log = client.progress(job)
        events = follow_until(log, "checkpoint_saved", 2)
        server.kill()
        newest = max((server.data_directory / "jobs").glob("*/checkpoint-*.safetensors"))
        newest.write_bytes(newest.read_bytes()[:-1])
        server = start(*OFTEN, port=server.port)
        events += list(log)
        digest = client.model(client.wait(job).model_version).parameters_sha256
    assert any("is unusable" in event.message_logged.message for event in events)
    assert (facts(events), digest) == undisturbed


def test_a_run_that_does_not_repeat_itself_is_found_out(start, device, rings):
    server = start()
    with Client(server.address) as client:
        client.upload("rings", *rings)
        job = client.train(training_spec(**device.settings | {"epoch_count": 100_000, "validation_dataset": None}))
        log = client.progress(job)
        follow_until(log, "metrics_recorded", 5)
        server.kill()
        _alter_logged_loss(server.data_directory, job.name.removeprefix("trainingJobs/"))
        start(port=server.port)
        with pytest.raises(JobFailed) as caught:
            client.wait(job)
    assert caught.value.reason == "REPLAY_MISMATCH"


def test_sigterm_saves_the_run_and_the_next_start_goes_on(start, device, rings, undisturbed):
    server = start("--checkpoint-interval-seconds", "3600")
    with Client(server.address) as client:
        client.upload("rings", *rings)
        job = client.train(training_spec(**device.settings))
        log = client.progress(job)
        events = follow_until(log, "metrics_recorded", 6)
        assert server.drain() == 0
        start(port=server.port)
        events += list(log)
        digest = client.model(client.wait(job).model_version).parameters_sha256
    starts = [event.attempt_started for event in events if event.HasField("attempt_started")]
    assert [start.reason for start in starts] == ["first", "server_drain"]
    assert starts[1].resume_step > 0
    assert (facts(events), digest) == undisturbed


def test_queued_jobs_and_data_sets_survive_kill_9_at_once(start_server, rings):
    server = start_server()
    with Client(server.address) as client:
        client.upload("rings", *rings)
        running = client.train(training_spec(**SETTINGS | {"epoch_count": 100_000}))
        queued = [client.train(training_spec(**SETTINGS | {"epoch_count": 2})) for _ in range(5)]
        server.kill()
        start_server(port=server.port)
        client.cancel(running)
        for job in queued:
            assert client.wait(job).state == pb.TrainingJob.STATE_SUCCEEDED


def test_a_second_server_is_refused_the_port_and_the_directory(start_server, tmp_path, capfd):
    server = start_server()
    with pytest.raises(AssertionError, match="status 1"):
        start_server()
    assert f"another server uses the data directory {server.data_directory}" in capfd.readouterr().err
    with pytest.raises(AssertionError):
        start_server(port=server.port, data_directory=tmp_path / "other")
    assert f"port {server.port} of 127.0.0.1 can't be listened on" in capfd.readouterr().err
    with Client(server.address) as client:
        assert client.server_info.server_version


def test_a_damaged_database_is_refused_and_left_alone(start_server, capfd):
    server = start_server()
    assert server.drain() == 0
    database = server.data_directory / "mlpd.sqlite3"
    database.write_bytes(b"not a database" * 1000)
    with pytest.raises(AssertionError):
        start_server()
    error = capfd.readouterr().err
    assert "can't be opened" in error
    assert "Traceback" not in error
    assert database.read_bytes() == b"not a database" * 1000


def test_following_gives_up_when_the_server_stays_away(start_server, rings):
    server = start_server()
    with Client(server.address) as client:
        client.upload("rings", *rings)
        log = client.progress(client.train(training_spec(**SETTINGS)), reconnect_timeout_seconds=0.5)
        next(log)
        server.kill()
        with pytest.raises(MlpdError, match="no mlpd server answers"):
            list(log)


def test_an_embedded_server_ends_with_its_owner(start_server):
    server = start_server()
    assert server.process.stdin
    server.process.stdin.close()
    assert server.process.wait(timeout=60) == 0


def _alive(pid: int) -> bool:
    """Whether a process still runs a moment after its parent was killed."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return False
        if state == "Z":
            return False
        threading.Event().wait(0.01)
    return True


def _alter_logged_loss(data_directory: Path, job_id: str) -> None:
    with sqlite3.connect(data_directory / "mlpd.sqlite3") as connection:
        query = "SELECT sequence, payload FROM events WHERE job_id = ? AND step IS NOT NULL ORDER BY sequence LIMIT 1"
        sequence, payload = connection.execute(query, (job_id,)).fetchone()
        changed = json.dumps(json.loads(payload) | {"loss": 0.5})
        connection.execute(
            "UPDATE events SET payload = ? WHERE job_id = ? AND sequence = ?", (changed, job_id, sequence)
        )
    connection.close()
