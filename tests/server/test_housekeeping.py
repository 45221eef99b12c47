"""Deleting: what is needed stays, what is gone is gone as a whole, and no name comes to stand for something else."""

import sqlite3
import uuid

import numpy as np
import pytest
from grpc import StatusCode
from mlpd.v1 import dataset_service_pb2 as dataset_pb
from mlpd.v1 import model_service_pb2 as model_pb
from mlpd.v1 import trainer_service_pb2 as pb
from mlpd.v1 import types_pb2 as types
from safetensors.numpy import save

from .conftest import refused, rings_spec, upload_messages

FOREVER = {"epoch_count": 1_000_000, "batch_size": 1}  # small batches make long epochs, and so few reports


def delete_dataset(stubs, name, **fields):
    return stubs.datasets.DeleteDataset(dataset_pb.DeleteDatasetRequest(name=f"datasets/{name}", **fields)).freed_bytes


def delete_version(stubs, name, **fields):
    return stubs.models.DeleteModelVersion(model_pb.DeleteModelVersionRequest(name=name, **fields)).freed_bytes


def delete_model(stubs, name, **fields):
    return stubs.models.DeleteModel(model_pb.DeleteModelRequest(name=f"models/{name}", **fields))


def delete_job(stubs, name, **fields):
    return stubs.trainer.DeleteTrainingJob(pb.DeleteTrainingJobRequest(name=name, **fields)).freed_bytes


def cancel(stubs, job):
    stubs.trainer.CancelTrainingJob(pb.CancelTrainingJobRequest(name=job.name))
    return ended(stubs, job)


def ended(stubs, job):
    stubs.events(job.name)
    return stubs.job(job.name)


def trained(stubs, model_id, **fields):
    """Return a job that has published a version."""
    job = ended(stubs, stubs.train(rings_spec(epoch_count=1, **fields), model_id=model_id))
    assert job.state == pb.TrainingJob.STATE_SUCCEEDED
    return job


def files(server, folder):
    return {path.name.removesuffix(".safetensors") for path in (server.data_directory / folder).iterdir()}


@pytest.fixture
def points():
    """Content that no other test uploads."""
    seed = int(uuid.uuid4().int % 2**32)
    print(f"seed {seed}")
    return np.random.default_rng(seed).normal(size=(60, 2)).astype(np.float32), np.arange(60) % 3


@pytest.fixture
def busy(stubs):
    """A job that runs until its test has ended, so that others wait."""
    job = stubs.train(rings_spec(**FOREVER))
    yield job
    cancel(stubs, job)


def test_a_data_set_is_gone_with_its_file(server, stubs, points):
    stored = stubs.upload("gone", *points)
    assert stored.sha256 in files(server, "datasets")
    assert delete_dataset(stubs, "gone") == stored.size_bytes
    assert stored.sha256 not in files(server, "datasets")
    for name in ("gone", f"sha256-{stored.sha256}"):
        refusal = refused(stubs.datasets.GetDataset, dataset_pb.GetDatasetRequest(name=f"datasets/{name}"))
        assert (refusal.code, refusal.reason) == (StatusCode.NOT_FOUND, "DATASET_NOT_FOUND")
    refusal = refused(stubs.trainer.Train, pb.TrainRequest(spec=rings_spec(train_dataset="datasets/gone")))
    assert (refusal.code, refusal.reason) == (StatusCode.NOT_FOUND, "DATASET_NOT_FOUND")


def test_a_file_stays_for_as_long_as_a_name_has_its_content(server, stubs, points):
    one = stubs.upload("one-name", *points)
    assert stubs.upload("other-name", *points).sha256 == one.sha256
    assert delete_dataset(stubs, "one-name") == 0
    assert one.sha256 in files(server, "datasets")
    assert trained(stubs, "of-other-name", train_dataset="datasets/other-name").model_version
    assert delete_dataset(stubs, "other-name") == one.size_bytes
    assert one.sha256 not in files(server, "datasets")


def test_a_data_set_is_deleted_by_the_name_that_it_is_listed_by(stubs, points):
    stored = stubs.upload("listed", *points)
    refusal = refused(delete_dataset, stubs, f"sha256-{stored.sha256}")
    assert (refusal.code, refusal.reason) == (StatusCode.NOT_FOUND, "DATASET_NOT_FOUND")
    delete_dataset(stubs, "listed")


def test_the_name_of_a_deleted_data_set_takes_its_own_content_alone(stubs, points):
    inputs, labels = points
    stored = stubs.upload("kept-name", inputs, labels)
    delete_dataset(stubs, "kept-name")
    content = save({"inputs": inputs + 1, "labels": labels})
    refusal = refused(stubs.datasets.UploadDataset, upload_messages("kept-name", content))
    assert (refusal.code, refusal.reason) == (StatusCode.ALREADY_EXISTS, "DATASET_ID_TAKEN")
    assert f"held other content (sha256 {stored.sha256}) until it was deleted" in refusal.message
    assert stubs.upload("kept-name", inputs, labels).sha256 == stored.sha256
    assert delete_dataset(stubs, "kept-name") == stored.size_bytes


def test_an_upload_whose_name_is_taken_leaves_no_file(server, stubs, points):
    before = files(server, "datasets")
    refusal = refused(stubs.upload, "rings", *points)
    assert (refusal.code, refusal.reason) == (StatusCode.ALREADY_EXISTS, "DATASET_ID_TAKEN")
    assert files(server, "datasets") == before


@pytest.mark.parametrize("name", ["mnist-train", "mnist-test"])
def test_data_sets_that_are_on_every_server_are_not_deleted(stubs, name):
    refusal = refused(delete_dataset, stubs, name)
    assert (refusal.code, refusal.reason) == (StatusCode.FAILED_PRECONDITION, "DATASET_BUILT_IN")


def test_what_a_job_that_has_not_ended_reads_is_not_deleted(stubs, points, busy):
    stubs.upload("trained-on", *points)
    stubs.upload("same-content", *points)
    stubs.upload("validated-on", points[0] + 1, points[1])
    spec = rings_spec(train_dataset="datasets/trained-on", validation_dataset="datasets/validated-on")
    job = stubs.train(spec, training_job_id=f"reader-{uuid.uuid4()}")
    for name in ("trained-on", "same-content", "validated-on"):
        refusal = refused(delete_dataset, stubs, name)
        assert (refusal.code, refusal.reason) == (StatusCode.FAILED_PRECONDITION, "DATASET_IN_USE")
        assert refusal.metadata == {"name": f"datasets/{name}", "training_jobs": job.name}
        assert job.name in refusal.message
    cancel(stubs, job)
    for name in ("trained-on", "same-content", "validated-on"):
        delete_dataset(stubs, name)
    assert stubs.job(job.name).spec.train_dataset == "datasets/trained-on"  # what it was is still told


def test_a_version_is_gone_with_its_file_and_its_number_is_not_used_again(server, stubs):
    first = trained(stubs, "numbered").model_version
    before = files(server, "models")
    second = trained(stubs, "numbered").model_version
    (file,) = files(server, "models") - before
    assert (first, second) == ("models/numbered/versions/1", "models/numbered/versions/2")
    size_bytes = (server.data_directory / "models" / f"{file}.safetensors").stat().st_size
    assert delete_version(stubs, second) == size_bytes
    assert files(server, "models") == before
    refusal = refused(stubs.trainer.Predict, pb.PredictRequest(model=second, inputs=row()))
    assert (refusal.code, refusal.reason) == (StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")
    assert stubs.trainer.Predict(pb.PredictRequest(model="models/numbered", inputs=row())).model == first
    assert trained(stubs, "numbered").model_version == "models/numbered/versions/3"
    answer = delete_model(stubs, "numbered")
    assert (answer.version_count, answer.freed_bytes > size_bytes) == (2, True)
    assert refused(stubs.models.GetModelVersion, model_pb.GetModelVersionRequest(name="models/numbered")).code is (
        StatusCode.NOT_FOUND
    )
    assert trained(stubs, "numbered").model_version == "models/numbered/versions/4"


def row():
    return types.Tensor(data_type=types.DATA_TYPE_FP32, shape=[1, 2], data=bytes(8))


def test_a_version_that_a_job_goes_on_from_is_not_deleted_nor_are_its_sisters(stubs, busy):
    cancel(stubs, busy)
    first, second = (trained(stubs, "source").model_version for _ in range(2))
    running = stubs.train(rings_spec(**FOREVER))
    warm = rings_spec(warm_start=pb.WarmStart(model=first, scope=pb.WarmStart.SCOPE_WEIGHTS))
    warm.ClearField("model")
    job = stubs.train(warm)
    for call, name in ((delete_version, first), (delete_model, "source")):
        refusal = refused(call, stubs, name)
        assert (refusal.code, refusal.reason) == (StatusCode.FAILED_PRECONDITION, "MODEL_IN_USE")
        assert refusal.metadata == {"name": first, "training_jobs": job.name}
    assert stubs.models.GetModelVersion(model_pb.GetModelVersionRequest(name=second)).model_version.name == second
    cancel(stubs, job)
    cancel(stubs, running)
    assert delete_model(stubs, "source").version_count == 2


def test_a_job_is_gone_with_its_log_and_its_model_stays(stubs):
    job = trained(stubs, "survivor")
    assert delete_job(stubs, job.name) == 0
    calls = [
        (stubs.trainer.GetTrainingJob, pb.GetTrainingJobRequest(name=job.name)),
        (stubs.trainer.CancelTrainingJob, pb.CancelTrainingJobRequest(name=job.name)),
        (lambda one: list(stubs.trainer.StreamProgress(one)), pb.StreamProgressRequest(name=job.name)),
    ]
    for call, request in calls:
        refusal = refused(call, request)
        assert (refusal.code, refusal.reason) == (StatusCode.NOT_FOUND, "JOB_NOT_FOUND")
    version = stubs.models.GetModelVersion(model_pb.GetModelVersionRequest(name=job.model_version)).model_version
    assert version.training_job == job.name
    for scope in (pb.WarmStart.SCOPE_WEIGHTS, pb.WarmStart.SCOPE_FULL):
        spec = rings_spec(epoch_count=1, warm_start=pb.WarmStart(model=version.name, scope=scope))
        spec.ClearField("model")
        assert ended(stubs, stubs.train(spec)).state == pb.TrainingJob.STATE_SUCCEEDED
    spec.optimizer.sgd.SetInParent()
    assert refused(stubs.train, spec).fields == ["spec.optimizer"]


def test_a_failed_jobs_checkpoints_go_with_it(server, stubs):
    folder = server.data_directory / "jobs"
    with_rate = pb.Schedule(learning_rate=1e9)
    job = ended(stubs, stubs.train(rings_spec(schedule=with_rate, optimizer=pb.Optimizer(sgd=pb.Optimizer.Sgd()))))
    assert job.state == pb.TrainingJob.STATE_FAILED
    own = folder / job.name.removeprefix("trainingJobs/")
    (own / "checkpoint-1.safetensors").write_bytes(b"12345")
    assert delete_job(stubs, job.name) == 5
    assert not own.exists()


def test_a_job_that_has_not_ended_is_not_deleted(stubs, busy):
    waiting = stubs.train(rings_spec())
    for job in (busy, waiting):
        refusal = refused(delete_job, stubs, job.name)
        assert (refusal.code, refusal.reason) == (StatusCode.FAILED_PRECONDITION, "JOB_NOT_ENDED")
        assert refusal.message.endswith("; cancel it first")
    cancel(stubs, waiting)
    delete_job(stubs, waiting.name)


def test_the_request_of_a_deleted_job_starts_no_second_run(stubs):
    request = pb.TrainRequest(spec=rings_spec(epoch_count=1), request_id=str(uuid.uuid4()))
    job = ended(stubs, stubs.trainer.Train(request).training_job)
    delete_job(stubs, job.name)
    refusal = refused(stubs.trainer.Train, request)
    assert (refusal.code, refusal.reason) == (StatusCode.ALREADY_EXISTS, "JOB_DELETED")
    assert refusal.metadata["training_job"] == job.name
    request.note = "another"
    assert refused(stubs.trainer.Train, request).reason == "REQUEST_ID_REUSED"
    request.request_id = str(uuid.uuid4())
    request.training_job_id = job.name.removeprefix("trainingJobs/")
    refusal = refused(stubs.trainer.Train, request)
    assert (refusal.code, refusal.reason) == (StatusCode.ALREADY_EXISTS, "JOB_ID_TAKEN")


def test_what_is_not_there_is_not_found_unless_it_may_be_missing(stubs):
    calls = [
        (delete_dataset, "never"),
        (delete_version, "models/never/versions/1"),
        (delete_model, "never"),
        (delete_job, "trainingJobs/never"),
    ]
    for call, name in calls:
        assert refused(call, stubs, name).code is StatusCode.NOT_FOUND
        call(stubs, name, allow_missing=True)


def test_names_that_are_none_are_refused(stubs):
    calls = [
        (delete_dataset, "No"),
        (delete_version, "models/newest"),
        (delete_version, "models/a/versions/0"),
        (delete_model, "a/versions/1"),
        (delete_job, "jobs/a"),
    ]
    for call, name in calls:
        refusal = refused(call, stubs, name)
        assert (refusal.code, refusal.fields) == (StatusCode.INVALID_ARGUMENT, ["name"])


def test_what_is_damaged_or_has_lost_its_file_can_be_deleted(server, stubs, points):
    stored = stubs.upload("damaged", *points)
    path = server.data_directory / "datasets" / f"{stored.sha256}.safetensors"
    path.write_bytes(b"no data set")
    assert delete_dataset(stubs, "damaged") == len(b"no data set")
    before = files(server, "models")
    version = trained(stubs, "lost").model_version
    (file,) = files(server, "models") - before
    (server.data_directory / "models" / f"{file}.safetensors").unlink()
    assert delete_version(stubs, version) == 0
    stubs.upload("damaged", *points)
    path.unlink()
    assert delete_dataset(stubs, "damaged") == 0
    stubs.upload("damaged", *points)
    assert trained(stubs, "found", train_dataset="datasets/damaged").model_version
    delete_dataset(stubs, "damaged")


def test_a_job_whose_record_is_damaged_can_be_deleted(start_server, connect, rings):
    server = start_server()
    stubs = connect(server.address)
    stubs.upload("rings", *rings)
    job = ended(stubs, stubs.train(rings_spec(epoch_count=1)))
    with sqlite3.connect(server.data_directory / "mlpd.sqlite3") as connection:
        connection.execute("update jobs set spec = '{'")
        connection.execute("update job_statuses set progress = '{}'")
    assert refused(stubs.job, job.name).code is StatusCode.DATA_LOSS
    delete_job(stubs, job.name)
    assert refused(stubs.job, job.name).code is StatusCode.NOT_FOUND
