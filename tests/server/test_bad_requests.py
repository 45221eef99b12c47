"""Every bad input gets its status, its reason, its fields and one sentence; and costs nobody else anything."""

import grpc
import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration
from grpc import StatusCode
from mlpd.v1 import dataset_service_pb2 as dataset_pb
from mlpd.v1 import model_service_pb2 as model_pb
from mlpd.v1 import trainer_service_pb2 as pb
from mlpd.v1 import types_pb2 as types
from safetensors.numpy import save

from .conftest import refused, rings_spec, upload_messages

UUID = "123e4567-e89b-12d3-a456-426614174000"
NAMES = ["", "rings", "datasets/", "datasets/../etc/passwd", "datasets/a\0b", "datasets/CON", "datasets/.a", "datasets/" + "a" * 10_240,
         "datasets/\u202egnp", "datasets/'; DROP TABLE jobs", "datasets/\N{PILE OF POO}", "jobs/a", "datasets/a/b"]  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_is_lost(server, stubs):
    """The same process still answers, with the same jobs and data sets."""

    def known():
        jobs = stubs.trainer.ListTrainingJobs(pb.ListTrainingJobsRequest(page_size=1000)).training_jobs
        datasets = stubs.datasets.ListDatasets(dataset_pb.ListDatasetsRequest(page_size=1000)).datasets
        return {job.name for job in jobs}, {dataset.name for dataset in datasets}

    before = known()
    yield
    assert server.process.poll() is None
    assert known() == before
    assert not list((server.data_directory / "temporary").iterdir())


def layers(*sizes):
    return types.ModelSpec(layer_sizes=sizes)


@pytest.mark.parametrize(
    ("spec", "fields"),
    [
        (pb.TrainingSpec(), {"spec.train_dataset", "spec.optimizer", "spec.model.layer_sizes", "spec.epoch_count", "spec.schedule.learning_rate"}),
        (rings_spec(model=layers(2, 0, 3)), {"spec.model.layer_sizes"}),
        (rings_spec(model=layers(2, -1, 3)), {"spec.model.layer_sizes"}),
        (rings_spec(model=layers(2, 2**31, 3)), {"spec.model.layer_sizes"}),
        (rings_spec(model=layers(*[2] * 10_000)), {"spec.model.layer_sizes"}),
        (rings_spec(model=layers(2, 10**5, 10**5, 3)), {"spec.model.layer_sizes"}),
        (rings_spec(model=layers(3, 3)), {"spec.model.layer_sizes"}),
        (rings_spec(model=layers(2, 2)), {"spec.model.layer_sizes"}),
        (rings_spec(model=types.ModelSpec(layer_sizes=[2, 3], initializer="best")), {"spec.model.initializer"}),
        (rings_spec(model=types.ModelSpec(layer_sizes=[2, 3], input_scale=float("nan"))), {"spec.model.input_scale"}),
        (rings_spec(batch_size=0), {"spec.batch_size"}),
        (rings_spec(batch_size=-1), {"spec.batch_size"}),
        (rings_spec(batch_size=601), {"spec.batch_size"}),
        (rings_spec(epoch_count=0), {"spec.epoch_count"}),
        (rings_spec(epoch_count=-1), {"spec.epoch_count"}),
        (rings_spec(epoch_count=10**9), {"spec.epoch_count"}),
        (rings_spec(metrics_interval_steps=0), {"spec.metrics_interval_steps"}),
        (rings_spec(runner="fast"), {"spec.runner"}),
        (rings_spec(split="columns"), {"spec.split"}),
        (rings_spec(split="rows", model=types.ModelSpec(layer_sizes=[])), {"spec.model.layer_sizes"}),
        (rings_spec(split="rows", model=types.ModelSpec(layer_sizes=[2, 0, 3])), {"spec.model.layer_sizes"}),
        (rings_spec(environment_change="ignore"), {"spec.environment_change"}),
        (rings_spec(seed=-1), {"spec.seed"}),
        (rings_spec(device=99), {"spec.device"}),
        (rings_spec(optimizer=pb.Optimizer()), {"spec.optimizer"}),
        (rings_spec(optimizer=pb.Optimizer(sgd=pb.Optimizer.Sgd(momentum=1))), {"spec.optimizer.sgd.momentum"}),
        (rings_spec(optimizer=pb.Optimizer(sgd=pb.Optimizer.Sgd(), weight_decay=-1)), {"spec.optimizer.weight_decay"}),
        *((rings_spec(schedule=pb.Schedule(learning_rate=rate)), {"spec.schedule.learning_rate"}) for rate in (0, -1, 1e30, float("nan"), float("inf"))),
        *((rings_spec(train_dataset=name), {"spec.train_dataset"}) for name in NAMES),
        (rings_spec(validation_dataset="x"), {"spec.validation_dataset"}),
        (rings_spec(validation_dataset="datasets/mnist-test"), {"spec.validation_dataset"}),
        (rings_spec(batch_size=0, epoch_count=0, seed=-1), {"spec.batch_size", "spec.epoch_count", "spec.seed"}),
    ],
)  # fmt: skip
def test_train_names_every_field_that_breaks_a_rule(stubs, spec, fields):
    refusal = refused(stubs.trainer.Train, pb.TrainRequest(spec=spec))
    assert (refusal.code, refusal.reason) == (StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
    assert set(refusal.fields) == fields
    assert "Traceback" not in refusal.message
    assert len(refusal.message) < 1000


@pytest.mark.parametrize(
    ("request_", "code", "reason"),
    [
        (pb.TrainRequest(spec=rings_spec(), request_id="1"), StatusCode.INVALID_ARGUMENT, "FIELD_INVALID"),
        (pb.TrainRequest(spec=rings_spec(), training_job_id="A"), StatusCode.INVALID_ARGUMENT, "FIELD_INVALID"),
        (pb.TrainRequest(spec=rings_spec(), training_job_id="../x"), StatusCode.INVALID_ARGUMENT, "FIELD_INVALID"),
        (pb.TrainRequest(spec=rings_spec(), model_id="-"), StatusCode.INVALID_ARGUMENT, "FIELD_INVALID"),
        (pb.TrainRequest(spec=rings_spec(train_dataset="datasets/no")), StatusCode.NOT_FOUND, "DATASET_NOT_FOUND"),
        (pb.TrainRequest(spec=rings_spec(validation_dataset="datasets/no")), StatusCode.NOT_FOUND, "DATASET_NOT_FOUND"),
        (pb.TrainRequest(spec=rings_spec(device=types.DEVICE_CUDA)), StatusCode.FAILED_PRECONDITION, "DEVICE_UNAVAILABLE"),
    ],
)  # fmt: skip
def test_train_refuses_what_it_can_not_keep(stubs, request_, code, reason):
    refusal = refused(stubs.trainer.Train, request_)
    assert (refusal.code, refusal.reason) == (code, reason)


@pytest.mark.parametrize("method", ["GetTrainingJob", "CancelTrainingJob"])
@pytest.mark.parametrize(
    ("name", "code"), [("trainingJobs/no", "NOT_FOUND"), ("no", "INVALID_ARGUMENT"), ("", "INVALID_ARGUMENT")]
)
def test_a_job_that_is_not_there(stubs, method, name, code):
    request = getattr(pb, f"{method}Request")(name=name)
    assert refused(getattr(stubs.trainer, method), request).code.name == code


@pytest.mark.parametrize(
    ("fields", "code", "reason"),
    [
        ({"name": "trainingJobs/no"}, StatusCode.NOT_FOUND, "JOB_NOT_FOUND"),
        ({"after_sequence": -1}, StatusCode.INVALID_ARGUMENT, "FIELD_INVALID"),
        ({"after_sequence": 10**6}, StatusCode.OUT_OF_RANGE, "SEQUENCE_AHEAD"),
        ({"event_log_id": "other"}, StatusCode.FAILED_PRECONDITION, "EVENT_LOG_CHANGED"),
        ({"heartbeat_interval": Duration(seconds=0)}, StatusCode.INVALID_ARGUMENT, "FIELD_INVALID"),
        ({"heartbeat_interval": Duration(seconds=61)}, StatusCode.INVALID_ARGUMENT, "FIELD_INVALID"),
    ],
)
def test_a_cursor_that_points_nowhere(stubs, model, fields, code, reason):
    name = f"trainingJobs/{model.split('/')[1]}"
    request = pb.StreamProgressRequest(**{"name": name} | fields)
    refusal = refused(lambda: list(stubs.trainer.StreamProgress(request)))
    assert (refusal.code, refusal.reason) == (code, reason)


def tensor(data_type, shape, size):
    return types.Tensor(data_type=data_type, shape=shape, data=bytes(size))


@pytest.mark.parametrize(
    ("inputs", "field"),
    [
        (types.Tensor(), "inputs.data_type"),
        (tensor(99, [1, 2], 8), "inputs.data_type"),
        (tensor(types.DATA_TYPE_FP32, [1, 3], 12), "inputs.shape"),
        (tensor(types.DATA_TYPE_FP32, [2], 8), "inputs.shape"),
        (tensor(types.DATA_TYPE_FP32, [0, 2], 0), "inputs.shape"),
        (tensor(types.DATA_TYPE_FP32, [-1, 2], 8), "inputs.shape"),
        (tensor(types.DATA_TYPE_FP32, [1] * 1000, 4), "inputs.shape"),
        (tensor(types.DATA_TYPE_FP32, [2**40, 2**40], 8), "inputs.data"),
        (tensor(types.DATA_TYPE_FP32, [1, 2], 7), "inputs.data"),
        (types.Tensor(data_type=types.DATA_TYPE_FP32, shape=[1, 2], data=np.array([1, np.nan], "<f4").tobytes()), "inputs.data"),
        (types.Tensor(data_type=types.DATA_TYPE_FP64, shape=[1, 2], data=np.array([1e39, 0], "<f8").tobytes()), "inputs.data"),
    ],
)  # fmt: skip
def test_predict_checks_type_shape_length_and_values(stubs, model, inputs, field):
    refusal = refused(stubs.trainer.Predict, pb.PredictRequest(model=model, inputs=inputs))
    assert (refusal.code, refusal.fields) == (StatusCode.INVALID_ARGUMENT, [field])


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("models/no", "NOT_FOUND"),
        ("no", "INVALID_ARGUMENT"),
        ("", "INVALID_ARGUMENT"),
        ("models/a/versions/0", "INVALID_ARGUMENT"),
    ],
)
def test_a_model_that_is_not_there(stubs, name, code):
    assert refused(stubs.trainer.Predict, pb.PredictRequest(model=name)).code.name == code
    assert refused(stubs.trainer.Evaluate, pb.EvaluateRequest(model=name)).code.name == code
    assert refused(stubs.models.GetModelVersion, model_pb.GetModelVersionRequest(name=name)).code.name == code


def test_a_version_that_is_not_there(stubs, model):
    missing = model.replace("/versions/1", "/versions/2")
    assert refused(stubs.trainer.Predict, pb.PredictRequest(model=missing)).reason == "MODEL_NOT_FOUND"


def test_an_output_that_is_unknown(stubs, model):
    row = types.Tensor(data_type=types.DATA_TYPE_UINT8, shape=[1, 2], data=bytes(2))
    request = pb.PredictRequest(model=model, inputs=row, outputs=[9])  # type: ignore[list-item]
    assert refused(stubs.trainer.Predict, request).fields == ["outputs"]


def labels(*values):
    return types.Tensor(data_type=types.DATA_TYPE_INT64, shape=[len(values)], data=np.array(values, "<i8").tobytes())


@pytest.mark.parametrize(
    ("data", "code", "field"),
    [
        ({}, "INVALID_ARGUMENT", ["data"]),
        ({"dataset": "datasets/no"}, "NOT_FOUND", []),
        ({"dataset": "datasets/mnist-test"}, "INVALID_ARGUMENT", ["dataset"]),
        ({"rows": pb.LabelledRows(inputs=tensor(types.DATA_TYPE_UINT8, [1, 2], 2))}, "INVALID_ARGUMENT", ["rows.labels.data_type"]),
        ({"rows": pb.LabelledRows(inputs=tensor(types.DATA_TYPE_UINT8, [1, 2], 2), labels=labels(0, 1))}, "INVALID_ARGUMENT", ["rows.labels.shape"]),
        ({"rows": pb.LabelledRows(inputs=tensor(types.DATA_TYPE_UINT8, [1, 2], 2), labels=labels(3))}, "INVALID_ARGUMENT", ["rows.labels.data"]),
        ({"rows": pb.LabelledRows(inputs=tensor(types.DATA_TYPE_UINT8, [1, 2], 2), labels=labels(-1))}, "INVALID_ARGUMENT", ["rows.labels.data"]),
    ],
)  # fmt: skip
def test_evaluate_checks_its_rows(stubs, model, data, code, field):
    refusal = refused(stubs.trainer.Evaluate, pb.EvaluateRequest(model=model, **data))
    assert (refusal.code.name, refusal.fields) == (code, field)


def content(x, y):
    return save({"inputs": np.asarray(x), "labels": np.asarray(y)})


SOUND = content(np.ones((3, 2), np.float32), [0, 1, 2])


@pytest.mark.parametrize(
    ("messages", "code", "reason"),
    [
        ([], "INVALID_ARGUMENT", "FIELD_INVALID"),
        ([dataset_pb.UploadDatasetRequest(chunk=b"x")], "INVALID_ARGUMENT", "FIELD_INVALID"),
        (upload_messages("a", SOUND, sha256="0"), "INVALID_ARGUMENT", "FIELD_INVALID"),
        (upload_messages("../a", SOUND), "INVALID_ARGUMENT", "FIELD_INVALID"),
        (upload_messages("a", SOUND, size_bytes=-1), "INVALID_ARGUMENT", "FIELD_INVALID"),
        (upload_messages("a", SOUND, size_bytes=2**60), "RESOURCE_EXHAUSTED", "DATASET_TOO_LARGE"),
        (upload_messages("a", SOUND, size_bytes=len(SOUND) - 1), "DATA_LOSS", "SIZE_MISMATCH"),
        (upload_messages("a", SOUND, size_bytes=len(SOUND) + 1), "DATA_LOSS", "SIZE_MISMATCH"),
        (upload_messages("a", SOUND, sha256="0" * 64), "DATA_LOSS", "CHECKSUM_MISMATCH"),
        ([*upload_messages("a", SOUND), dataset_pb.UploadDatasetRequest()], "INVALID_ARGUMENT", "FIELD_INVALID"),
        ([*upload_messages("a", SOUND)][:1] * 2, "INVALID_ARGUMENT", "FIELD_INVALID"),
        (upload_messages("a", b"PK\x03\x04 this is a zip file"), "INVALID_ARGUMENT", "DATASET_INVALID"),
        (upload_messages("a", content([[np.nan]], [0])), "INVALID_ARGUMENT", "DATASET_INVALID"),
        (upload_messages("a", content([[1.0]], [-1])), "INVALID_ARGUMENT", "DATASET_INVALID"),
        (upload_messages("a", content([[1.0]], [0.5])), "INVALID_ARGUMENT", "DATASET_INVALID"),
        (upload_messages("rings", SOUND), "ALREADY_EXISTS", "DATASET_ID_TAKEN"),
    ],
)  # fmt: skip
def test_an_upload_is_taken_whole_and_verified_or_not_at_all(stubs, messages, code, reason):
    refusal = refused(stubs.datasets.UploadDataset, iter(messages))
    assert (refusal.code.name, refusal.reason) == (code, reason)


def test_an_upload_that_breaks_off_leaves_nothing(stubs):
    def broken():
        yield from list(upload_messages("a", SOUND))[:1]
        raise RuntimeError("the client dies")

    with pytest.raises(grpc.RpcError):
        stubs.datasets.UploadDataset(broken())


@pytest.mark.parametrize("token", ["x", "bm8=", "am9iczphYmM=", "am9iczotMQ==", "\N{SNOWMAN}"])
def test_a_forged_page_token(stubs, token):
    assert refused(stubs.trainer.ListTrainingJobs, pb.ListTrainingJobsRequest(page_token=token)).fields == [
        "page_token"
    ]


def test_a_negative_page_size(stubs):
    assert refused(stubs.models.ListModelVersions, model_pb.ListModelVersionsRequest(page_size=-1)).fields == [
        "page_size"
    ]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ([], "INVALID_ARGUMENT"),
        ([b"\xff\xff\xff"], "INVALID_ARGUMENT"),
        ([b"\x0a\x05ab"], "INVALID_ARGUMENT"),
        ([b"\x0a\x01\xff"], "INVALID_ARGUMENT"),
        ([b"", b""], "INVALID_ARGUMENT"),
        ([bytes(33 * 1024 * 1024)], "RESOURCE_EXHAUSTED"),
    ],
)
def test_a_body_that_is_not_the_request(stubs, body, code):
    call = stubs.channel.stream_unary("/mlpd.v1.TrainerService/GetTrainingJob")
    with pytest.raises(grpc.RpcError) as caught:
        call(iter(body))
    assert caught.value.code().name == code


def test_train_refuses_a_field_from_the_future_rather_than_train_something_else(stubs):
    spec = rings_spec().SerializeToString() + b"\xf8\x7f\x01"
    request = pb.TrainRequest(spec=pb.TrainingSpec.FromString(spec))
    refusal = refused(stubs.trainer.Train, request)
    assert (refusal.code, refusal.fields) == (StatusCode.INVALID_ARGUMENT, ["spec.2047"])
    assert refusal.message == "spec must have only fields this server knows, got number 2047"


def test_elsewhere_a_field_from_the_future_is_ignored(stubs, model):
    name = f"trainingJobs/{model.split('/')[1]}"
    body = pb.GetTrainingJobRequest(name=name).SerializeToString() + b"\xf8\x7f\x01"
    answer = stubs.channel.unary_unary("/mlpd.v1.TrainerService/GetTrainingJob")(body)
    assert pb.GetTrainingJobResponse.FromString(answer).training_job.name == name


def test_a_method_that_is_not_there(stubs):
    with pytest.raises(grpc.RpcError) as caught:
        stubs.channel.unary_unary("/mlpd.v1.TrainerService/No")(b"")
    assert caught.value.code() is StatusCode.UNIMPLEMENTED
