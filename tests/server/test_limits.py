"""What one request may ask of the server, and what one answer may bring: all of it has a limit, by name."""

import re
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.protobuf.internal.encoder import _VarintBytes as varint  # type: ignore[attr-defined]
from grpc import StatusCode
from mlpd.client import Client
from mlpd.v1 import trainer_service_pb2 as pb
from mlpd.v1 import types_pb2 as types
from mlpd.v1.trainer_service_pb2_grpc import TrainerServiceStub

from .conftest import refused, rings_spec

MEGABYTE = 2**20
SOUND = pb.TrainRequest(spec=rings_spec(), validate_only=True).SerializeToString()


def nested(content, *numbers):
    """Return ``content`` as the field with the last of ``numbers``, in that before, and so on."""
    for number in reversed(numbers):
        content = varint(number << 3 | 2) + varint(len(content)) + content
    return content


@pytest.fixture
def raw(stubs):
    """Send bytes as a request's, and return what they were refused with."""
    return lambda method, body: refused(stubs.channel.unary_unary(f"/{method}"), body)


def peak_bytes(server):
    """Return the most memory that the server has had."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return 1024 * int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0])


@pytest.mark.parametrize(
    ("body", "field", "rule"),
    [
        (nested(b"\x02" * 4 * MEGABYTE, 1, 1, 1), "spec.model.layer_sizes", "have at most 64 entries"),
        (nested(b"\x08\x02" * 2 * MEGABYTE, 1, 1), "spec.model.layer_sizes", "have at most 64 entries"),
        (nested(b"\x22\x00" * 2 * MEGABYTE, 1, 1), "spec.model.activations", "have at most 64 entries"),
        (nested(b"\x1a\x00" * 2 * MEGABYTE, 1, 1), "spec.model.input_scale", "have at most 64 entries"),
        (nested(bytes(4 * MEGABYTE), 1, 1, 5), "spec.model.dropout_rates", "have at most 64 entries"),
        (nested(b"\x0a\x00" * 2 * MEGABYTE, 1, 7, 8), "spec.schedule.joined.segments", "have at most 32 entries"),
        (nested(bytes(4 * MEGABYTE), 1, 14, 4), "spec.loss.class_weights", "have at most 65536 entries"),
        (nested(b"\xf8\x7f\x01" * MEGABYTE, 1), "spec.2047", "be one of at most 64 fields unknown to this server"),
        (b"\x20\x01" * 2 * MEGABYTE, "validate_only", "have at most 64 entries"),
        (nested(b"", *[1, 7] + [8, 1, 1] * 1000), "spec.schedule.joined.segments.schedule.joined.segments.schedule", "be nested at most 8 deep"),
        (nested(b"x" * 4 * MEGABYTE, 1, 13), "spec.task", "have at most 4096 bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_a_request_repeats_nests_or_spins_out_has_a_limit_that_is_named(server, raw, body, field, rule):
    before = peak_bytes(server)
    refusal = raw("mlpd.v1.TrainerService/Train", SOUND + body)
    assert (refusal.code, refusal.reason, refusal.fields) == (StatusCode.INVALID_ARGUMENT, "FIELD_INVALID", [field])
    assert refusal.message.startswith(f"{field} must {rule}, got ")
    assert peak_bytes(server) - before < 64 * MEGABYTE


@pytest.mark.parametrize(
    ("method", "body", "field"),
    [
        ("mlpd.v1.TrainerService/Predict", nested(bytes(4 * MEGABYTE), 2, 2), "inputs.shape"),
        ("mlpd.v1.TrainerService/Predict", nested(b"\x01" * 4 * MEGABYTE, 3), "outputs"),
        ("mlpd.v1.TrainerService/Evaluate", nested(bytes(4 * MEGABYTE), 3, 2, 2), "rows.labels.shape"),
        ("mlpd.v1.TrainerService/GetServerInfo", b"\xf8\x7f\x01" * MEGABYTE, "2047"),
        ("mlpd.v1.DatasetService/UploadDataset", nested(b"x" * 4 * MEGABYTE, 1, 1), "header.dataset_id"),
        ("mlpd.v1.ModelService/ListModelVersions", nested(b"x" * 4 * MEGABYTE, 3), "page_token"),
        ("grpc.health.v1.Health/Check", nested(b"x" * 4 * MEGABYTE, 1), "service"),
        ("grpc.health.v1.Health/Watch", nested(b"x" * 4 * MEGABYTE, 1), "service"),
        ("grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", nested(b"x" * 4 * MEGABYTE, 3), "file_by_filename"),
    ],
)  # fmt: skip
def test_every_method_has_the_same_limits(stubs, method, body, field):
    refusal = refused(lambda: list(stubs.channel.stream_stream(f"/{method}")(iter([body]))))
    assert (refusal.code, refusal.fields) == (StatusCode.INVALID_ARGUMENT, [field])


@pytest.mark.parametrize(
    "body", [b"\x0b", b"\x0b\x0c", b"\x0a\x7f", b"\x09\x00", b"\x80" * 11, b"\x0a" + b"\xff" * 9 + b"\x01"]
)
def test_bytes_that_are_no_protobuf_are_called_so(raw, body):
    refusal = raw("mlpd.v1.TrainerService/Train", body)
    assert (refusal.code, refusal.reason) == (StatusCode.INVALID_ARGUMENT, "MALFORMED_MESSAGE")


@pytest.fixture(scope="module")
def wide(stubs):
    """A model of as many outputs as there can be classes."""
    stubs.upload("broad", np.zeros((2, 2), np.uint8), np.array([0, 65535]))
    model = types.ModelSpec(layer_sizes=[2, 65536])
    job = stubs.train(rings_spec(train_dataset="datasets/broad", model=model, batch_size=2, epoch_count=1))
    assert stubs.events(job.name)[-1].state_changed.to_state == pb.TrainingJob.STATE_SUCCEEDED
    return stubs.job(job.name).model_version


def rows_of(count):
    return types.Tensor(data_type=types.DATA_TYPE_UINT8, shape=[count, 2], data=bytes(2 * count))


def test_a_prediction_has_as_many_values_as_the_server_tells_and_no_more(server, stubs, wide):
    limit = stubs.trainer.GetServerInfo(pb.GetServerInfoRequest()).max_prediction_values
    most = limit // 65536
    request = pb.PredictRequest(model=wide, inputs=rows_of(most + 1), outputs=[pb.OUTPUT_KIND_ALL])
    refusal = refused(stubs.trainer.Predict, request)
    assert (refusal.code, refusal.reason) == (StatusCode.INVALID_ARGUMENT, "PREDICTION_TOO_LARGE")
    assert refusal.message == f"inputs.shape must be of at most {most} rows for 65536 outputs, got {most + 1}"
    request.inputs.CopyFrom(rows_of(most))
    with grpc.insecure_channel(server.address, [("grpc.max_receive_message_length", -1)]) as channel:
        answer = TrainerServiceStub(channel).Predict(request)
    assert list(answer.probabilities.shape) == list(answer.logits.shape) == [most, 65536]


def test_the_client_splits_what_one_prediction_can_not_answer(server, wide):
    rows = np.arange(80, dtype=np.uint8).reshape(40, 2)
    with Client(server.address) as client:
        whole = client.predict(wide, rows)
        parts = [client.predict(wide, rows[start : start + 20]) for start in range(0, 40, 20)]
    assert whole.probabilities.shape == (40, 65536)
    assert np.array_equal(whole.logits, np.concatenate([part.logits for part in parts]))
    assert np.array_equal(whole.classes, np.concatenate([part.classes for part in parts]))


def test_scores_that_would_take_too_much_memory_are_refused(stubs, wide):
    labels = types.Tensor(data_type=types.DATA_TYPE_INT32, shape=[1025], data=bytes(4 * 1025))
    rows = pb.LabelledRows(inputs=rows_of(1025), labels=labels)
    refusal = refused(stubs.trainer.Evaluate, pb.EvaluateRequest(model=wide, rows=rows, include_scores=True))
    assert (refusal.code, refusal.fields) == (StatusCode.INVALID_ARGUMENT, ["include_scores"])
