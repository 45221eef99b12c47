"""A server that has lost a part of itself ends, loudly, rather than answer that it serves."""

import json
import subprocess
import sys
from contextlib import suppress

import grpc
import pytest
from mlpd.v1 import trainer_service_pb2 as pb
from mlpd.v1 import types_pb2 as types
from mlpd.v1.trainer_service_pb2_grpc import TrainerServiceStub

from ..conftest import ENVIRONMENT
from ..server.conftest import rings_spec

SECONDS = 60
REQUEST = pb.TrainRequest(
    spec=rings_spec(
        model=types.ModelSpec(layer_sizes=[784, 10]),
        train_dataset="datasets/mnist-test",
        batch_size=1000,
        epoch_count=1,
    )
)
# Runs `mlpd serve` with a fault in one part, which strikes when the file sys.argv[1] is there.
FAULTY_SERVER = """
import os, sys
from mlpd.server.__main__ import app
from mlpd.server.storage import database
from mlpd.server.jobs import events
from mlpd.server.storage import health as storage
from mlpd.server.storage import store

moment = sys.argv.pop(1)

def strikes_in(owner, name, fault):
    sound = getattr(owner, name)
    def call(*arguments):
        if os.path.exists(moment):
            raise fault("injected")
        return sound(*arguments)
    setattr(owner, name, call)

{fault}
app()
"""
FAULTS = {
    "database writer": 'strikes_in(database, "_outcome", SystemExit)',
    "event log": 'strikes_in(events.EventLog, "publish", RuntimeError)',
    "job queue": 'strikes_in(store.Store, "next_queued", RuntimeError)',
    "storage watch": 'strikes_in(database.Database, "write_nothing", RuntimeError); '
    'strikes_in(database, "_outcome", lambda _: OSError(28, "No space left on device"))',
}


@pytest.fixture(scope="module")
def data_directory(tmp_path_factory):
    return tmp_path_factory.mktemp("supervised") / "data"


@pytest.mark.parametrize("part", FAULTS)
def test_a_server_ends_with_each_of_its_parts(part, data_directory, tmp_path):
    moment = tmp_path / "now"
    server = subprocess.Popen(
        [
            *(sys.executable, "-c", FAULTY_SERVER.format(fault=FAULTS[part]), str(moment)),
            *("--data-dir", str(data_directory), "--port", "0", "--announce"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
        text=True,
    )
    assert server.stdout
    assert server.stderr
    with server:
        try:
            address = json.loads(server.stdout.readline())["address"]
            moment.touch()
            # It may end before its answer or after it.
            with grpc.insecure_channel(address) as channel, suppress(grpc.RpcError):
                TrainerServiceStub(channel).Train(REQUEST, timeout=SECONDS)
            assert server.wait(timeout=SECONDS) == 70
        finally:
            server.kill()
        lines = [json.loads(line) for line in server.stderr if '"critical"' in line]
    assert [line["part"] for line in lines] == [part]


def test_a_worker_whose_server_has_ended_before_it_said_a_word_ends_in_silence():
    command = [sys.executable, "-P", "-m", "mlpd.server.executors.worker"]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, env=ENVIRONMENT, capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
