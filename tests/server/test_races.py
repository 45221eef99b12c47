"""Calls at the same time that touch the same thing: one of them wins, and what is left fits together."""

import sqlite3
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress

import grpc
import numpy as np
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from grpc import StatusCode
from mlpd.v1 import dataset_service_pb2 as dataset_pb
from mlpd.v1 import model_service_pb2 as model_pb
from mlpd.v1 import trainer_service_pb2 as pb
from safetensors.numpy import save

from .conftest import rings_spec, upload_messages

ROUNDS, ROUNDS_WITH_RUNS = 10, 4


def at_once(*calls):
    """Make all calls at the same time; return what each returned, or the status code that it was refused with."""
    barrier = threading.Barrier(len(calls))

    def one(call):
        barrier.wait()
        try:
            return call()
        except grpc.RpcError as error:
            return error.code()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(one, calls))


@pytest.fixture
def two(start_server, connect):
    """Two connections to a server, which is drained afterwards; then rows and files must fit together."""
    server = start_server()
    yield [connect(server.address) for _ in range(2)]
    assert server.drain() == 0
    with closing(sqlite3.connect(server.data_directory / "mlpd.sqlite3")) as connection:
        for folder, query in (
            ("datasets", "SELECT sha256 FROM datasets"),
            ("models", "SELECT file_sha256 FROM models"),
        ):
            named = {f"{row[0]}.safetensors" for row in connection.execute(query)}
            assert {path.name for path in (server.data_directory / folder).iterdir()} == named
        kept = "SELECT id FROM jobs JOIN job_statuses USING (number) WHERE state NOT IN ('SUCCEEDED', 'CANCELLED')"
        ids = {row[0] for row in connection.execute(kept)}
        assert {path.name for path in (server.data_directory / "jobs").iterdir()} <= ids


def content_of(rings, first):
    inputs, labels = rings
    return save({"inputs": inputs + np.float32(first), "labels": labels})


def test_of_two_uploads_of_one_name_with_other_content_one_is_refused(two, rings):
    for i in range(ROUNDS):
        contents = [content_of(rings, i + 0.25 * place) for place in range(2)]
        uploads = [
            lambda stubs=stubs, content=content, i=i: stubs.datasets.UploadDataset(upload_messages(f"r{i}", content))
            for stubs, content in zip(two, contents, strict=True)
        ]
        answers = at_once(*uploads)
        (refused,) = [answer for answer in answers if isinstance(answer, StatusCode)]
        (taken,) = [answer for answer in answers if not isinstance(answer, StatusCode)]
        assert refused is StatusCode.ALREADY_EXISTS
        stored = two[0].datasets.GetDataset(dataset_pb.GetDatasetRequest(name=f"datasets/r{i}")).dataset
        assert stored == taken.dataset


def test_of_two_deletes_one_finds_nothing_and_an_upload_beside_them_is_there_as_a_whole_or_not(two, rings):
    delete = dataset_pb.DeleteDatasetRequest(name="datasets/rings")
    content = content_of(rings, 0)
    for _ in range(ROUNDS_WITH_RUNS):
        two[0].datasets.UploadDataset(upload_messages("rings", content))
        *deleted, _ = at_once(
            lambda: two[0].datasets.DeleteDataset(delete),
            lambda: two[1].datasets.DeleteDataset(delete),
            lambda: two[1].datasets.UploadDataset(upload_messages("other", content)),
        )
        assert StatusCode.NOT_FOUND in deleted
        # Whoever was first, what is named can be read.
        job = two[0].train(rings_spec(train_dataset="datasets/other", epoch_count=1))
        assert two[0].events(job.name)[-1].state_changed.to_state == pb.TrainingJob.STATE_SUCCEEDED
        two[0].datasets.DeleteDataset(dataset_pb.DeleteDatasetRequest(name="datasets/other"))


def test_a_train_finds_its_data_or_is_refused_whoever_deletes_them(two, rings):
    delete = dataset_pb.DeleteDatasetRequest(name="datasets/rings")
    content = content_of(rings, 0)
    seen = set()
    for _ in range(ROUNDS_WITH_RUNS):
        two[0].datasets.UploadDataset(upload_messages("rings", content))
        job, deleted = at_once(
            lambda: two[0].train(rings_spec(epoch_count=1)), lambda: two[1].datasets.DeleteDataset(delete)
        )
        seen.add(job if isinstance(job, StatusCode) else "trained")
        if isinstance(job, StatusCode):
            assert job is StatusCode.NOT_FOUND
            assert not isinstance(deleted, StatusCode)
        else:
            assert two[0].events(job.name)[-1].state_changed.to_state == pb.TrainingJob.STATE_SUCCEEDED
    print("seen:", seen)


def test_of_two_trains_of_one_id_one_makes_the_job(two, rings):
    two[0].datasets.UploadDataset(upload_messages("rings", content_of(rings, 0)))
    for i in range(ROUNDS_WITH_RUNS):
        same_id = [
            lambda stubs=stubs, i=i: stubs.train(rings_spec(epoch_count=1), training_job_id=f"j{i}") for stubs in two
        ]
        assert [answer for answer in at_once(*same_id) if isinstance(answer, StatusCode)] == [StatusCode.ALREADY_EXISTS]
        request = pb.TrainRequest(spec=rings_spec(epoch_count=1), request_id=str(uuid.uuid4()))
        request.spec.ClearField("seed")
        same_request = at_once(*[lambda stubs=stubs, request=request: stubs.trainer.Train(request) for stubs in two])
        assert len({answer.training_job.name for answer in same_request}) == 1
        assert sorted(answer.deduplicated for answer in same_request) == [False, True]


def test_updates_of_other_labels_are_all_there(two, rings):
    two[0].datasets.UploadDataset(upload_messages("rings", content_of(rings, 0)))
    job = two[0].train(rings_spec(epoch_count=1))
    keys = [f"k{i}" for i in range(16)]

    def update(key):
        changed = pb.TrainingJob(name=job.name, labels={key: "x"})
        mask = FieldMask(paths=[f"labels.{key}"])
        two[0].trainer.UpdateTrainingJob(pb.UpdateTrainingJobRequest(training_job=changed, update_mask=mask))

    at_once(*[lambda key=key: update(key) for key in keys])
    assert dict(two[1].job(job.name).labels) == dict.fromkeys(keys, "x")


def test_cancels_and_deletes_of_a_job_that_starts_and_ends_leave_nothing(two, rings):
    two[0].datasets.UploadDataset(upload_messages("rings", content_of(rings, 0)))
    for i in range(ROUNDS_WITH_RUNS):
        job = two[0].train(rings_spec(epoch_count=3 + i))
        cancel, delete = pb.CancelTrainingJobRequest(name=job.name), pb.DeleteTrainingJobRequest(name=job.name)
        at_once(
            lambda cancel=cancel: two[0].trainer.CancelTrainingJob(cancel),
            lambda cancel=cancel: two[1].trainer.CancelTrainingJob(cancel),
            lambda delete=delete: two[1].trainer.DeleteTrainingJob(delete),
        )
        delete.allow_missing = True
        with suppress(grpc.RpcError):  # it has been deleted
            two[0].events(job.name)
        two[0].trainer.DeleteTrainingJob(delete)
        versions = model_pb.ListModelVersionsRequest(parent=f"models/{job.name.removeprefix('trainingJobs/')}")
        assert not two[0].models.ListModelVersions(versions).model_versions
    sound = two[0].train(rings_spec(epoch_count=1))
    assert two[0].events(sound.name)[-1].state_changed.to_state == pb.TrainingJob.STATE_SUCCEEDED
