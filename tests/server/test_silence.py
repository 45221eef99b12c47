"""Nothing in a request is passed over in silence, and no text of a caller's comes back as it came."""

import re
import uuid
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from grpc import StatusCode
from mlpd.v1 import dataset_service_pb2 as dataset_pb
from mlpd.v1 import model_service_pb2 as model_pb
from mlpd.v1 import trainer_service_pb2 as pb
from mlpd.v1 import types_pb2 as types
from mlpd.v1.trainer_service_pb2_grpc import TrainerServiceStub
from safetensors.numpy import save

from .conftest import refused, rings_spec, upload_messages

OTHER = "0" * 64
ODD = "\x1b[2J\r\n\0\u202e\x9b"
ODD_SHOWN = r"\x1b[2J\r\n\x00\u202e\x9b"


def resolved(stubs, spec):
    return stubs.trainer.Train(pb.TrainRequest(spec=spec, validate_only=True)).training_job


def test_a_resolved_spec_can_be_sent_again_and_is_the_same(stubs, model):
    for spec in (
        rings_spec(validation_dataset="datasets/rings", time_limit=Duration(seconds=3, nanos=500_000_000)),
        rings_spec(warm_start=pb.WarmStart(model=model, scope=pb.WarmStart.SCOPE_WEIGHTS)),
    ):
        first = resolved(stubs, spec)
        assert first.spec.train_sha256
        second = resolved(stubs, first.spec)
        assert (second.spec, second.spec_digest) == (first.spec, first.spec_digest)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"train_sha256": OTHER}, "spec.train_sha256"),
        ({"train_sha256": "x"}, "spec.train_sha256"),
        ({"validation_dataset": "datasets/rings", "validation_sha256": OTHER}, "spec.validation_sha256"),
        ({"validation_sha256": OTHER}, "spec.validation_sha256"),
        ({"warm_start": {"scope": "SCOPE_WEIGHTS", "sha256": OTHER}}, "spec.warm_start.sha256"),
        ({"time_limit": Duration(seconds=1, nanos=10**9)}, "spec.time_limit.nanos"),
        ({"time_limit": Duration(seconds=1, nanos=-1)}, "spec.time_limit.nanos"),
        ({"time_limit": Duration(seconds=1, nanos=2**31 - 1)}, "spec.time_limit.nanos"),
        ({"schedule": pb.Schedule(learning_rate=0.1, joined=pb.Schedule.Joined(segments=[pb.Schedule.Segment(schedule=pb.Schedule(plateau=pb.Schedule.Plateau()))]))}, "spec.schedule.joined.segments"),
    ],
)  # fmt: skip
def test_train_refuses_what_it_would_otherwise_pass_over(stubs, model, fields, field):
    if "warm_start" in fields:
        fields = {"warm_start": pb.WarmStart(model=model, **fields["warm_start"])}
    refusal = refused(resolved, stubs, rings_spec(**fields))
    assert (refusal.code, refusal.fields) == (StatusCode.INVALID_ARGUMENT, [field])


def test_a_digest_that_is_not_the_data_sets_is_named_beside_the_one_that_is(stubs):
    found = resolved(stubs, rings_spec()).spec.train_sha256
    refusal = refused(resolved, stubs, rings_spec(train_sha256=OTHER))
    assert refusal.message == f"spec.train_sha256 must be that of datasets/rings, {found}, got '{OTHER}'"


def test_a_warm_start_that_leaves_the_layers_to_the_model_can_not_change_the_rest_of_them(stubs, model):
    warm = pb.WarmStart(model=model, scope=pb.WarmStart.SCOPE_WEIGHTS)
    changed = types.ModelSpec(dropout_rates=[0.5], activations=["tanh"])
    refusal = refused(resolved, stubs, rings_spec(model=changed, warm_start=warm))
    assert refusal.fields == ["spec.model.activations", "spec.model.dropout_rates"]


@pytest.mark.parametrize("interval", [Duration(seconds=1, nanos=10**9), Duration(seconds=1, nanos=-(10**8))])
def test_a_heartbeat_interval_is_a_duration(stubs, model, interval):
    request = pb.StreamProgressRequest(name=f"trainingJobs/{model.split('/')[1]}", heartbeat_interval=interval)
    refusal = refused(lambda: list(stubs.trainer.StreamProgress(request)))
    assert (refusal.code, refusal.fields) == (StatusCode.INVALID_ARGUMENT, ["heartbeat_interval.nanos"])


def test_known_content_of_another_size_is_refused(stubs, rings):
    content = save({"inputs": rings[0], "labels": rings[1]})
    for size_bytes in (len(content) - 1, len(content) + 1, 2**40):
        header = next(upload_messages("rings-of-another-size", content, size_bytes=size_bytes))
        refusal = refused(stubs.datasets.UploadDataset, iter([header]))
        assert refusal.reason in ("SIZE_MISMATCH", "DATASET_TOO_LARGE")
    request = dataset_pb.GetDatasetRequest(name="datasets/rings-of-another-size")
    assert refused(stubs.datasets.GetDataset, request).code is StatusCode.NOT_FOUND


def test_versions_of_a_version_can_not_be_listed(stubs, model):
    request = model_pb.ListModelVersionsRequest(parent=model)
    assert refused(stubs.models.ListModelVersions, request).fields == ["parent"]


def test_all_outputs_and_one_that_is_unknown(stubs, model):
    row = types.Tensor(data_type=types.DATA_TYPE_UINT8, shape=[1, 2], data=bytes(2))
    request = pb.PredictRequest(model=model, inputs=row, outputs=[pb.OUTPUT_KIND_ALL, 9])  # type: ignore[list-item]
    assert refused(stubs.trainer.Predict, request).fields == ["outputs"]


@pytest.mark.parametrize("shape", [[0, 2**62], [2**62, 0], [0, 0], [2**62, 2**62], [-(2**63), 2], [2**63 - 1], []])
@pytest.mark.parametrize("data_type", [types.DATA_TYPE_FP32, types.DATA_TYPE_UINT8, types.DATA_TYPE_INT64])
def test_a_shape_that_no_array_has(stubs, model, shape, data_type):
    odd = types.Tensor(data_type=data_type, shape=shape)
    refusal = refused(stubs.trainer.Predict, pb.PredictRequest(model=model, inputs=odd))
    assert refusal.code is StatusCode.INVALID_ARGUMENT
    refusal = refused(stubs.trainer.Evaluate, pb.EvaluateRequest(model=model, rows=pb.LabelledRows(inputs=odd)))
    assert refusal.code is StatusCode.INVALID_ARGUMENT
    row = types.Tensor(data_type=types.DATA_TYPE_UINT8, shape=[1, 2], data=bytes(2))
    rows = pb.LabelledRows(inputs=row, labels=odd)
    refusal = refused(stubs.trainer.Evaluate, pb.EvaluateRequest(model=model, rows=rows))
    assert refusal.code is StatusCode.INVALID_ARGUMENT


def texts(stubs):
    """Return a call for every text that a request can hold, with ``ODD`` in its place."""
    spec = rings_spec()
    requests = [
        *(rings_spec(model=types.ModelSpec(layer_sizes=[2, 3, 3], **fields)) for fields in ({"initializer": ODD}, {"normalization": ODD}, {"activations": [ODD]})),
        *(rings_spec(**{name: ODD}) for name in ("task", "runner", "split", "train_dataset", "validation_dataset", "train_sha256")),
        rings_spec(loss=pb.Loss(kind=ODD)),
        rings_spec(early_stopping=pb.EarlyStopping(metric=ODD), validation_fraction=0.5),
        rings_spec(warm_start=pb.WarmStart(model=ODD, scope=pb.WarmStart.SCOPE_FULL)),
    ]  # fmt: skip
    calls = [(stubs.trainer.Train, pb.TrainRequest(spec=one, validate_only=True)) for one in requests]
    calls += [
        (stubs.trainer.Train, pb.TrainRequest(spec=spec, validate_only=True, **{name: value}))  # type: ignore[arg-type]
        for name, value in [*((own, ODD) for own in ("training_job_id", "request_id", "model_id", "note")),
                            ("labels", {ODD: "x"}), ("labels", {"x": ODD})]
    ]  # fmt: skip
    return [
        *calls,
        (stubs.trainer.GetTrainingJob, pb.GetTrainingJobRequest(name=ODD)),
        (stubs.trainer.CancelTrainingJob, pb.CancelTrainingJobRequest(name=ODD)),
        (stubs.trainer.ListTrainingJobs, pb.ListTrainingJobsRequest(page_token=ODD)),
        (stubs.trainer.ListTrainingJobs, pb.ListTrainingJobsRequest(labels={ODD: ""})),
        (stubs.trainer.ListTrainingJobs, pb.ListTrainingJobsRequest(model=ODD)),
        (stubs.trainer.DeleteTrainingJob, pb.DeleteTrainingJobRequest(name=ODD, allow_missing=True)),
        (stubs.trainer.UpdateTrainingJob, pb.UpdateTrainingJobRequest(training_job=pb.TrainingJob(name="trainingJobs/a"), update_mask=FieldMask(paths=[ODD]))),
        (stubs.models.DeleteModel, model_pb.DeleteModelRequest(name=ODD)),
        (stubs.models.DeleteModelVersion, model_pb.DeleteModelVersionRequest(name=ODD)),
        (stubs.models.UpdateModelVersion, model_pb.UpdateModelVersionRequest(model_version=model_pb.ModelVersion(name=ODD))),
        (stubs.datasets.DeleteDataset, dataset_pb.DeleteDatasetRequest(name=ODD)),
        (stubs.trainer.Predict, pb.PredictRequest(model=ODD)),
        (stubs.trainer.Evaluate, pb.EvaluateRequest(model=ODD)),
        (stubs.models.GetModelVersion, model_pb.GetModelVersionRequest(name=ODD)),
        (stubs.models.ListModelVersions, model_pb.ListModelVersionsRequest(parent=ODD)),
        (stubs.datasets.GetDataset, dataset_pb.GetDatasetRequest(name=ODD)),
        (lambda one: list(stubs.trainer.StreamProgress(one)), pb.StreamProgressRequest(name=ODD)),
        (stubs.datasets.UploadDataset, upload_messages(ODD, b"x" * 8)),
        (stubs.datasets.UploadDataset, upload_messages("a", b"x" * 8, sha256=ODD)),
    ]  # fmt: skip


def test_control_characters_come_back_escaped(stubs):
    for call, request in texts(stubs):
        refusal = refused(call, request)
        assert refusal.code is StatusCode.INVALID_ARGUMENT
        assert refusal.message.isprintable(), repr(refusal.message)
        assert ODD_SHOWN in refusal.message, request


def test_control_characters_in_a_files_header_come_back_escaped(stubs):
    for header in (
        '{"inputs": {"dtype": "\\u001b\\u202e", "shape": [1, 1], "data_offsets": [0, 4]}, "labels": {}}',
        '{"\\u001b]0;x\\u0007": {}}',
        '{"' + "n" * 60_000 + '": {}}',
    ):
        content = len(header).to_bytes(8, "little") + header.encode() + bytes(64)
        refusal = refused(stubs.datasets.UploadDataset, upload_messages("odd", content))
        assert (refusal.code, refusal.reason) == (StatusCode.INVALID_ARGUMENT, "DATASET_INVALID")
        assert refusal.message.isprintable()


def test_an_error_fits_the_headers_that_every_client_takes(server, stubs):
    """Broken in some 100 places, each of them worth a sentence."""
    shape = pb.Schedule(polynomial=pb.Schedule.Polynomial(power=-1, initial_share=-1, final_share=-1))
    spec = rings_spec(
        batch_size=0, epoch_count=0, seed=-1, task="x" * 4000, runner="x" * 4000, train_dataset="x" * 4000,
        schedule=pb.Schedule(joined=pb.Schedule.Joined(segments=[pb.Schedule.Segment(schedule=shape, step_count=1)] * 32)),
    )  # fmt: skip
    refusal = refused(resolved, stubs, spec)
    assert (refusal.code, refusal.reason) == (StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
    assert re.search(r"; and \d\d more$", refusal.message)
    assert "spec.train_dataset" in refusal.fields
    with grpc.insecure_channel(server.address, [("grpc.max_metadata_size", 8192)]) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            TrainerServiceStub(channel).Train(pb.TrainRequest(spec=spec))
        assert caught.value.code() is StatusCode.INVALID_ARGUMENT
        trailing: Any = caught.value.trailing_metadata()
        assert sum(len(key) + len(value) + 32 for key, value in trailing) < 6000


def test_the_id_of_a_request_is_the_same_in_capitals(stubs):
    request = pb.TrainRequest(spec=rings_spec(), request_id=str(uuid.uuid4()))
    first = stubs.trainer.Train(request).training_job
    request.request_id = request.request_id.upper()
    assert stubs.trainer.Train(request).training_job.name == first.name
    assert stubs.events(first.name)[-1].HasField("state_changed")
