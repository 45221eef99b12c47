"""The client against a small server of its own that fails on purpose: retries, resumed streams, typed errors."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import mlpd.client
import pytest
from google.protobuf import any_pb2, message_factory
from google.rpc import error_details_pb2, status_pb2
from mlpd.client import Client, InvalidRequest, MlpdError, ServerError, training_spec
from mlpd.v1 import dataset_service_pb2 as dataset_pb
from mlpd.v1 import model_service_pb2 as model_pb
from mlpd.v1 import trainer_service_pb2 as pb

SERVICES = [service for module in (pb, dataset_pb, model_pb) for service in module.DESCRIPTOR.services_by_name.values()]


@contextmanager
def serving(**behaviours: Callable[..., Any]) -> Iterator[Client]:
    """Give a client of a server that has these methods, by their names in the protocol."""
    server = grpc.server(ThreadPoolExecutor(4))
    for service in SERVICES:
        handlers = {
            method.name: handler(method, behaviours[method.name])
            for method in service.methods
            if method.name in behaviours
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with Client(f"127.0.0.1:{port}") as client:
            yield client
    finally:
        server.stop(None).wait()


def handler(method, behaviour):
    if method.server_streaming:
        kind = grpc.unary_stream_rpc_method_handler
    elif method.client_streaming:
        kind = grpc.stream_unary_rpc_method_handler
    else:
        kind = grpc.unary_unary_rpc_method_handler
    request = message_factory.GetMessageClass(method.input_type)
    return kind(behaviour, request.FromString, lambda answer: answer.SerializeToString())


def details_of(status: int, text: str, *details) -> tuple[tuple[str, bytes], ...]:
    packed = []
    for detail in details:
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)
    answer = status_pb2.Status(code=status, message=text, details=packed)
    return (("grpc-status-details-bin", answer.SerializeToString()),)


def failing(code: grpc.StatusCode, text: str, *details):
    """Return a method that always ends with this status."""

    def fail(_request, context):
        context.set_trailing_metadata(details_of(code.value[0], text, *details))
        context.abort(code, text)

    return fail


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "InvalidRequest"),
        (grpc.StatusCode.NOT_FOUND, "NotFound"),
        (grpc.StatusCode.ALREADY_EXISTS, "AlreadyExists"),
        (grpc.StatusCode.FAILED_PRECONDITION, "PreconditionFailed"),
        (grpc.StatusCode.OUT_OF_RANGE, "OutOfRange"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "ResourceExhausted"),
        (grpc.StatusCode.DATA_LOSS, "DataLoss"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "DeadlineExceeded"),
        (grpc.StatusCode.INTERNAL, "ServerError"),
        (grpc.StatusCode.PERMISSION_DENIED, "ServerError"),
    ],
)
def test_every_status_becomes_the_error_for_it(code, kind):
    info = error_details_pb2.ErrorInfo(reason="SOME_REASON", domain="mlpd.dev", metadata={"state": "running"})
    with (
        serving(GetTrainingJob=failing(code, "a sentence", info)) as client,
        pytest.raises(getattr(mlpd.client, kind)) as caught,
    ):
        client.job("a")
    error = caught.value
    assert (str(error), error.reason, error.metadata) == ("a sentence", "SOME_REASON", {"state": "running"})
    assert isinstance(error.__cause__, grpc.RpcError)


def test_field_violations_are_kept_by_field():
    violation = error_details_pb2.BadRequest.FieldViolation(field="spec.seed", description="seed must be >= 0")
    bad = error_details_pb2.BadRequest(field_violations=[violation])
    with (
        serving(GetTrainingJob=failing(grpc.StatusCode.INVALID_ARGUMENT, "seed must be >= 0", bad)) as client,
        pytest.raises(InvalidRequest) as caught,
    ):
        client.job("a")
    assert caught.value.fields == {"spec.seed": "seed must be >= 0"}


def test_unary_calls_of_every_service_are_tried_again():
    requests: dict[str, list[Any]] = {}

    def busy_at_first(name, answer):
        def behaviour(request, context):
            requests.setdefault(name, []).append(request)
            if len(requests[name]) == 1:
                context.abort(grpc.StatusCode.UNAVAILABLE, "busy")
            return answer

        return {name: behaviour}

    with serving(
        **busy_at_first("Train", pb.TrainResponse()),
        **busy_at_first("GetDataset", dataset_pb.GetDatasetResponse()),
        **busy_at_first("GetModelVersion", model_pb.GetModelVersionResponse()),
    ) as client:
        client.train(training_spec("default"))
        client.dataset("a")
        client.model("a")
    assert {name: len(found) for name, found in requests.items()} == {"Train": 2, "GetDataset": 2, "GetModelVersion": 2}
    first, second = (request.request_id for request in requests["Train"])
    assert first == second != ""


def test_other_errors_are_not_tried_again():
    calls: Counter[str] = Counter()

    def full(request, context):
        calls[request.name] += 1
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")

    with serving(GetTrainingJob=full) as client, pytest.raises(MlpdError, match="full"):
        client.job("a")
    assert calls == {"trainingJobs/a": 1}


class CutOff:
    """A log of three events whose stream ends too early after each of the first two."""

    def __init__(self, code: grpc.StatusCode, *details) -> None:
        self.fail = failing(code, "cut off", *details)
        self.cursors: list[tuple[int, str]] = []

    def stream(self, request, context):
        self.cursors.append((request.after_sequence, request.event_log_id))
        sequence = request.after_sequence + 1
        yield pb.StreamProgressResponse(event=pb.ProgressEvent(sequence=sequence), event_log_id="log")
        if sequence < 3:
            self.fail(request, context)


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN])
def test_a_stream_that_is_cut_off_goes_on_after_the_last_event(code):
    log = CutOff(code)
    with serving(StreamProgress=log.stream) as client:
        assert [event.sequence for event in client.progress("a")] == [1, 2, 3]
    assert log.cursors == [(0, ""), (1, "log"), (2, "log")]


def test_a_stream_that_the_server_itself_fails_is_not_opened_again():
    info = error_details_pb2.ErrorInfo(reason="INTERNAL", domain="mlpd.dev")
    log = CutOff(grpc.StatusCode.INTERNAL, info)
    with serving(StreamProgress=log.stream) as client, pytest.raises(ServerError, match="cut off"):
        list(client.progress("a"))
    assert len(log.cursors) == 1


def test_time_the_caller_takes_for_an_event_is_not_time_without_the_server():
    timeout_seconds = 0.2
    sequences = []
    with serving(StreamProgress=CutOff(grpc.StatusCode.UNAVAILABLE).stream) as client:
        for event in client.progress("a", reconnect_timeout_seconds=timeout_seconds):
            sequences.append(event.sequence)
            threading.Event().wait(2 * timeout_seconds)  # the caller's work
    assert sequences == [1, 2, 3]


def test_a_gap_in_the_numbers_is_an_error():
    def gap(_request, _context):
        for sequence in (1, 3):
            yield pb.StreamProgressResponse(event=pb.ProgressEvent(sequence=sequence))

    with serving(StreamProgress=gap) as client, pytest.raises(ServerError, match="event 2 must come next, got 3"):
        list(client.progress("a"))
