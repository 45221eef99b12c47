"""What a client does while its server is away, starting, or asks for patience."""

import signal
import subprocess
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2
from mlpd.client import Client, ResourceExhausted, Unavailable, training_spec
from mlpd.client.cli.connection import answers
from mlpd.client.errors import error_from
from mlpd.v1 import dataset_service_pb2 as dataset_pb
from mlpd.v1 import trainer_service_pb2 as pb
from mlpd.v1.dataset_service_pb2_grpc import DatasetServiceStub

from ..command_line import COMMAND, run
from ..conftest import ENVIRONMENT
from .test_transport import failing, serving

ROWS, LABELS = np.ones((200, 300), np.float32), [0, 1] * 100


def info_of_server(_request, _context):
    return pb.GetServerInfoResponse(preferred_chunk_bytes=1 << 16)


def exhausted(*details):
    reason = error_details_pb2.ErrorInfo(reason="QUEUE_FULL", domain="mlpd.dev")
    return failing(grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full", reason, *details)


def test_a_client_outlives_one_outage_after_another(start_server):
    server = start_server()
    with Client(server.address) as client, ThreadPoolExecutor(1) as pool:
        for outage in range(2):
            server.kill()
            asked = pool.submit(client.upload, f"rows-{outage}", ROWS + outage, LABELS)
            listed = pool.submit(lambda: {dataset.name for dataset in client.datasets()})
            server = start_server(port=server.port)
            assert asked.result(60).name in listed.result(60)


def test_a_server_may_take_longer_to_start_than_five_attempts():
    calls: Counter[str] = Counter()

    def starting(request, context):
        calls[request.name] += 1
        if calls[request.name] < 7:
            context.abort(grpc.StatusCode.UNAVAILABLE, "starting")
        return pb.GetTrainingJobResponse()

    with serving(GetTrainingJob=starting) as client:
        client.job("a")
    assert calls == {"trainingJobs/a": 7}


def test_an_upload_that_is_cut_off_begins_again_with_its_header():
    received: list[list[dataset_pb.UploadDatasetRequest]] = []

    def receive(requests, context):
        received.append([next(requests)])
        if len(received) == 1:
            received[-1].append(next(requests))
            context.abort(grpc.StatusCode.UNAVAILABLE, "cut off")
        received[-1].extend(requests)
        return dataset_pb.UploadDatasetResponse(dataset=dataset_pb.Dataset(name="datasets/a"))

    with serving(GetServerInfo=info_of_server, UploadDataset=receive) as client:
        assert client.upload("a", ROWS, LABELS).name == "datasets/a"
    first, second = received
    assert first == second[:2]
    assert sum(len(item.chunk) for item in second) == second[0].header.size_bytes


def test_an_upload_that_gets_no_further_is_given_up():
    calls: Counter[str] = Counter()

    def busy(requests, context):
        calls[next(requests).header.dataset_id] += 1
        context.abort(grpc.StatusCode.UNAVAILABLE, "busy")

    with serving(GetServerInfo=info_of_server, UploadDataset=busy) as client:
        patient = Client(client.address, timeout_seconds=1)
        with patient, pytest.raises(Unavailable):
            patient.upload("a", ROWS, LABELS)
    assert 2 <= calls["a"] <= 15


def test_all_attempts_share_one_deadline():
    seconds_left = []

    def busy(_request, context):
        seconds_left.append(context.time_remaining())
        context.abort(grpc.StatusCode.UNAVAILABLE, "busy")

    with serving(GetTrainingJob=busy) as client:
        started = time.monotonic()
        with Client(client.address, timeout_seconds=3) as patient, pytest.raises(Unavailable, match=r"tried for \d s"):
            patient.job("a")
    assert time.monotonic() - started < 5
    assert len(seconds_left) > 2
    assert seconds_left[0] <= 3
    assert seconds_left[-1] < 2.3


def test_the_server_s_word_on_when_to_try_again_is_kept():
    retry = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(nanos=300_000_000))
    times = []

    def full_at_first(request, context):
        times.append(time.monotonic())
        if len(times) < 3:
            exhausted(retry)(request, context)
        return pb.TrainResponse()

    with serving(Train=full_at_first) as client:
        client.train(training_spec("default"))
    assert all(np.diff(times) >= 0.3)


def test_a_delay_beyond_the_time_left_is_not_waited_out():
    retry = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=3600))
    with serving(GetTrainingJob=exhausted(retry)) as client, pytest.raises(ResourceExhausted) as caught:
        client.job("a")
    assert caught.value.retry_seconds == 3600


def test_what_no_time_will_mend_is_not_tried_again(server):
    header = dataset_pb.UploadDatasetRequest.Header(dataset_id="a", sha256="0" * 64, size_bytes=2**60)
    with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as caught:
        DatasetServiceStub(channel).UploadDataset(iter([dataset_pb.UploadDatasetRequest(header=header)]))
    failure = error_from(caught.value, server.address)
    assert (failure.reason, failure.retry_seconds) == ("DATASET_TOO_LARGE", None)


@pytest.mark.parametrize("command", [["jobs"], ["info", "--json"], ["watch", "a"]])
def test_a_command_says_that_it_waits_for_a_server_and_ctrl_c_ends_it(nobody, command):
    process = subprocess.Popen(
        [*COMMAND, *command, "--server", nobody],
        env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr
    said = process.stderr.readline()
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert said.startswith(f"no mlpd server answers at {nobody} yet; trying for another ")
    assert (process.returncode, output.strip()) == (130, "")


def test_a_client_tries_for_as_long_as_it_is_told(nobody):
    with (
        Client(nobody, timeout_seconds=0.3) as client,
        pytest.raises(Unavailable, match=f"no mlpd server answers at {nobody}"),
    ):
        client.server_info  # noqa: B018


def test_the_command_line_tries_for_as_long_as_it_is_told(nobody):
    done = run("--timeout-seconds", "0.3", "jobs", "--server", nobody)
    assert done.returncode == 1
    assert done.stderr.startswith(f"mlpd: no mlpd server answers at {nobody}; start one with: mlpd serve")


def test_looking_for_a_server_once_does_not_wait_for_one(nobody, server):
    started = time.monotonic()
    assert not answers(nobody)
    assert time.monotonic() - started < 1
    assert answers(server.address)
