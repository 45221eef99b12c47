"""Jobs over the wire: accepted once, followed without a gap, ended for good."""

import uuid
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from mlpd.v1 import dataset_service_pb2 as dataset_pb
from mlpd.v1 import model_service_pb2 as model_pb
from mlpd.v1 import trainer_service_pb2 as pb
from mlpd.v1 import types_pb2 as types
from safetensors.numpy import save

from .conftest import refused, rings_spec, upload_messages

LONG = {"epoch_count": 100_000, "batch_size": 1}  # small batches make long epochs, and so few reports


@pytest.fixture
def long_job(stubs):
    """A running job that is cancelled after the test."""
    job = stubs.train(rings_spec(**LONG))
    next(item for item in follow(stubs, job.name) if item.event.HasField("metrics_recorded"))
    yield job
    stubs.trainer.CancelTrainingJob(pb.CancelTrainingJobRequest(name=job.name))
    stubs.events(job.name)


def follow(stubs, name, **fields):
    return stubs.trainer.StreamProgress(pb.StreamProgressRequest(name=name, **fields))


def test_a_job_runs_to_a_model_that_knows_its_data(stubs, rings, model):
    evaluation = stubs.trainer.Evaluate(
        pb.EvaluateRequest(model=model, dataset="datasets/rings", include_confusion_matrix=True)
    )
    confusion = np.frombuffer(evaluation.confusion_matrix.data, "<i8").reshape(3, 3)
    assert evaluation.row_count == confusion.sum() == 600
    assert evaluation.correct_count == confusion.trace() >= 570
    version = stubs.models.GetModelVersion(model_pb.GetModelVersionRequest(name=model)).model_version
    assert version.parameters_sha256 == evaluation.parameters_sha256
    assert (list(version.spec.layer_sizes), version.task, version.parameter_count) == ([2, 32, 3], "multiclass", 195)


def test_the_log_tells_the_whole_story_once(stubs, model):
    name = f"trainingJobs/{model.split('/')[1]}"
    events = stubs.events(name)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    states = [event.state_changed.to_state for event in events if event.HasField("state_changed")]
    assert [pb.TrainingJob.State.Name(state) for state in states] == [
        "STATE_QUEUED",
        "STATE_RUNNING",
        "STATE_SUCCEEDED",
    ]
    steps = [event.metrics_recorded.progress.step for event in events if event.HasField("metrics_recorded")]
    assert steps == [12 * (epoch + 1) for epoch in range(40)]
    assert events[-1].state_changed.model_version == model
    assert stubs.job(name).last_sequence == events[-1].sequence


@pytest.mark.parametrize("after", [0, 1, 17])
def test_a_cursor_is_exclusive(stubs, model, after):
    events = stubs.events(f"trainingJobs/{model.split('/')[1]}", after)
    assert events[0].sequence == after + 1


def test_a_cursor_at_the_end_of_a_finished_job_gets_nothing_and_ok(stubs, model):
    name = f"trainingJobs/{model.split('/')[1]}"
    assert stubs.events(name, stubs.job(name).last_sequence) == []


def test_the_resolved_spec_has_every_default(stubs):
    spec = rings_spec(validation_dataset="datasets/rings")
    spec.ClearField("batch_size")
    spec.ClearField("seed")
    resolved = stubs.trainer.Train(pb.TrainRequest(spec=spec, validate_only=True)).training_job
    assert resolved.name == ""
    assert resolved.spec.batch_size == 600
    assert resolved.spec.HasField("seed")
    assert resolved.spec.device == types.DEVICE_CPU
    assert resolved.spec.model.initializer == "he_normal"
    assert list(resolved.spec.model.activations) == ["relu"]
    assert list(resolved.spec.model.dropout_rates) == [0.0]
    assert (resolved.spec.task, resolved.spec.loss.kind) == ("multiclass", "softmax_cross_entropy")
    assert resolved.memory_bytes > 195 * 4 * 4
    assert resolved.spec.model.input_scale == 1.0
    assert resolved.spec.optimizer.adam.beta2 == 0.999
    assert resolved.spec.metrics_interval_steps == 1
    assert (resolved.spec.runner, resolved.spec.split, resolved.spec.block_count) == ("compiled", "rows", 1)
    assert resolved.spec.train_sha256 == resolved.spec.validation_sha256 != ""
    assert len(resolved.spec_digest) == 64


def test_validation_data_are_scored_after_every_epoch(stubs):
    events = stubs.events(stubs.train(rings_spec(validation_dataset="datasets/rings")).name)
    metrics = [event.metrics_recorded for event in events if event.HasField("metrics_recorded")]
    assert [pb.MetricsRecorded.Split.Name(m.split) for m in metrics] == ["SPLIT_TRAIN", "SPLIT_VALIDATION"] * 3


def test_the_same_request_makes_one_job_under_any_concurrency(stubs):
    request = pb.TrainRequest(spec=rings_spec(), request_id=str(uuid.uuid4()))
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(stubs.trainer.Train, [request] * 32))
    assert len({answer.training_job.name for answer in answers}) == 1
    assert [answer.deduplicated for answer in answers].count(False) == 1
    stubs.events(answers[0].training_job.name)
    assert stubs.trainer.Train(request).deduplicated


def test_a_request_id_does_not_serve_another_request(stubs):
    request = pb.TrainRequest(spec=rings_spec(), request_id=str(uuid.uuid4()))
    first = stubs.trainer.Train(request).training_job
    request.spec.epoch_count = 4
    refusal = refused(stubs.trainer.Train, request)
    assert (refusal.code, refusal.reason) == (StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    assert refusal.metadata["training_job"] == first.name


def test_a_job_id_is_taken_once(stubs):
    job = stubs.train(rings_spec(), training_job_id="chosen")
    assert job.name == "trainingJobs/chosen"
    refusal = refused(stubs.train, rings_spec(), training_job_id="chosen")
    assert (refusal.code, refusal.reason) == (StatusCode.ALREADY_EXISTS, "JOB_ID_TAKEN")


def test_jobs_of_one_model_publish_its_versions_in_order(stubs):
    for version in (1, 2):
        job = stubs.train(rings_spec(), model_id="series")
        assert stubs.events(job.name)[-1].state_changed.model_version == f"models/series/versions/{version}"
    found = stubs.models.ListModelVersions(model_pb.ListModelVersionsRequest(parent="models/series")).model_versions
    assert [one.name for one in found] == ["models/series/versions/2", "models/series/versions/1"]
    assert found[0].parameters_sha256 == found[1].parameters_sha256
    newest = stubs.models.GetModelVersion(model_pb.GetModelVersionRequest(name="models/series")).model_version
    assert newest == found[0]


def test_a_running_job_can_be_cancelled_and_cancelled_again(stubs, long_job):
    request = pb.CancelTrainingJobRequest(name=long_job.name)
    assert stubs.trainer.CancelTrainingJob(request).training_job.state in (
        pb.TrainingJob.STATE_CANCELLING,
        pb.TrainingJob.STATE_CANCELLED,
    )
    assert stubs.events(long_job.name)[-1].state_changed.to_state == pb.TrainingJob.STATE_CANCELLED
    assert stubs.trainer.CancelTrainingJob(request).training_job.state == pb.TrainingJob.STATE_CANCELLED


def test_queued_jobs_wait_their_turn_and_can_be_cancelled(stubs, long_job):
    second, third = (stubs.train(rings_spec()) for _ in range(2))
    assert (second.queue_position, third.queue_position) == (0, 1)
    cancelled = stubs.trainer.CancelTrainingJob(pb.CancelTrainingJobRequest(name=second.name)).training_job
    assert cancelled.state == pb.TrainingJob.STATE_CANCELLED
    assert stubs.job(third.name).queue_position == 0
    info = stubs.trainer.GetServerInfo(pb.GetServerInfoRequest())
    assert (info.queued_job_count, info.running_job_count) == (1, 1)
    stubs.trainer.CancelTrainingJob(pb.CancelTrainingJobRequest(name=long_job.name))
    assert stubs.events(third.name)[-1].state_changed.to_state == pb.TrainingJob.STATE_SUCCEEDED


def test_a_finished_job_can_not_be_cancelled(stubs, model):
    name = f"trainingJobs/{model.split('/')[1]}"
    refusal = refused(stubs.trainer.CancelTrainingJob, pb.CancelTrainingJobRequest(name=name))
    assert (refusal.code, refusal.reason) == (StatusCode.FAILED_PRECONDITION, "ILLEGAL_STATE")
    assert refusal.metadata["state"] == "SUCCEEDED"


def test_a_run_that_diverges_fails_and_says_why(stubs):
    sgd = pb.Optimizer(sgd=pb.Optimizer.Sgd())
    job = stubs.train(rings_spec(optimizer=sgd, schedule=pb.Schedule(learning_rate=1e9)))
    last = stubs.events(job.name)[-1].state_changed
    assert last.to_state == pb.TrainingJob.STATE_FAILED
    assert "try a smaller learning rate" in last.error.message
    assert stubs.job(job.name).error == last.error


def test_a_silent_stream_beats(stubs, long_job):
    third = stubs.train(rings_spec())
    items = follow(stubs, third.name, heartbeat_interval=Duration(nanos=100_000_000))
    beat = next(item for item in items if item.HasField("heartbeat"))
    assert beat.heartbeat.last_sequence == 1
    items.cancel()
    stubs.trainer.CancelTrainingJob(pb.CancelTrainingJobRequest(name=third.name))


def test_a_follower_with_a_deadline_ends_by_it(stubs, long_job):
    request = pb.StreamProgressRequest(name=long_job.name)
    with pytest.raises(grpc.RpcError) as caught:
        list(stubs.trainer.StreamProgress(request, timeout=0.1))
    assert caught.value.code() is StatusCode.DEADLINE_EXCEEDED


def test_many_followers_each_get_every_event(stubs, long_job):
    streams = [follow(stubs, long_job.name) for _ in range(30)]
    with ThreadPoolExecutor(30) as readers:
        reading = readers.map(
            lambda stream: [item.event.sequence for item in stream if item.HasField("event")], streams
        )
        stubs.trainer.CancelTrainingJob(pb.CancelTrainingJobRequest(name=long_job.name))
        logs = list(reading)
    assert logs == [list(range(1, len(logs[0]) + 1))] * 30


def test_the_same_rows_in_any_type_get_the_same_answer(stubs, model):
    rows = np.array([[0, 1], [2, 3], [200, 100]])
    answers = []
    for name, dtype in (
        ("UINT8", "u1"),
        ("INT32", "<i4"),
        ("INT64", "<i8"),
        ("FP16", "<f2"),
        ("FP32", "<f4"),
        ("FP64", "<f8"),
    ):
        tensor = types.Tensor(
            data_type=types.DataType.Value(f"DATA_TYPE_{name}"), shape=rows.shape, data=rows.astype(dtype).tobytes()
        )
        outputs = [pb.OUTPUT_KIND_LOGITS, pb.OUTPUT_KIND_PROBABILITIES, pb.OUTPUT_KIND_CLASSES]
        answer = stubs.trainer.Predict(pb.PredictRequest(model=model, inputs=tensor, outputs=outputs))
        answer.ClearField("compute_duration")
        answers.append(answer)
    assert all(answer == answers[0] for answer in answers)
    shares = np.frombuffer(answers[0].probabilities.data, "<f4").reshape(3, 3)
    assert np.allclose(shares.sum(axis=1), 1)
    assert np.array_equal(shares.argmax(axis=1), np.frombuffer(answers[0].classes.data, "<i8"))


def test_the_same_content_is_stored_once(stubs, rings):
    content = save({"inputs": rings[0], "labels": rings[1]})
    header_only = list(upload_messages("rings-again", content))[:1]
    answer = stubs.datasets.UploadDataset(iter(header_only))
    assert answer.deduplicated
    named = stubs.datasets.GetDataset(dataset_pb.GetDatasetRequest(name="datasets/rings-again")).dataset
    by_content = stubs.datasets.GetDataset(dataset_pb.GetDatasetRequest(name=f"datasets/sha256-{named.sha256}")).dataset
    assert by_content.sha256 == named.sha256
    assert list(named.class_row_counts) == [200, 200, 200]


def test_lists_come_in_pages(stubs, model):
    names, token = [], ""
    while True:
        page = stubs.datasets.ListDatasets(dataset_pb.ListDatasetsRequest(page_size=1, page_token=token))
        names += [dataset.name for dataset in page.datasets]
        token = page.next_page_token
        if not token:
            break
    assert {"datasets/mnist-test", "datasets/mnist-train", "datasets/rings"} <= set(names)
    assert names == sorted(set(names))
    first = stubs.trainer.ListTrainingJobs(pb.ListTrainingJobsRequest(page_size=1))
    second = stubs.trainer.ListTrainingJobs(pb.ListTrainingJobsRequest(page_size=1, page_token=first.next_page_token))
    assert first.training_jobs[0].create_time.ToNanoseconds() > second.training_jobs[0].create_time.ToNanoseconds()


def test_health_and_reflection_answer(stubs):
    health = health_pb2_grpc.HealthStub(stubs.channel)
    for service in ("", "mlpd.v1.TrainerService", "mlpd.v1.DatasetService", "mlpd.v1.ModelService"):
        assert (
            health.Check(health_pb2.HealthCheckRequest(service=service)).status
            == health_pb2.HealthCheckResponse.SERVING
        )
    reflection = reflection_pb2_grpc.ServerReflectionStub(stubs.channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    answer = next(reflection.ServerReflectionInfo(iter([request])))
    assert {"mlpd.v1.TrainerService", "grpc.health.v1.Health"} <= {
        s.name for s in answer.list_services_response.service
    }
