"""Rows of the database that were damaged: each costs what it is a row of, and nothing else."""

import sqlite3
from contextlib import closing, contextmanager, suppress

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import error_details_pb2
from grpc import StatusCode
from mlpd.v1 import dataset_service_pb2 as dataset_pb
from mlpd.v1 import model_service_pb2 as model_pb
from mlpd.v1 import trainer_service_pb2 as pb
from mlpd.v1 import types_pb2 as types

from ..command_line import run
from ..conftest import Server
from .conftest import Stubs, refused, rings_spec

DAMAGES = ["CAST(x'80ff' AS TEXT)", "x'00'", "'x'", "'[1'", "'[]'", "7", "1e300"]
NAMES, BOOLEANS = {"id", "model_id", "version"}, {"whole_targets", "weighted", "whole_inputs"}
NOT_VALUES = {"number", "job_id"}  # what rows are joined by, and the name of a job that may be gone


@pytest.fixture(scope="module")
def own_server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("damaged") / "data") as server:
        yield server


@pytest.fixture(scope="module")
def own(own_server, rings):
    """A server with three jobs that have ended, their models, and their data set."""
    with grpc.insecure_channel(own_server.address) as channel:
        stubs = Stubs(channel)
        stubs.upload("rings", *rings)
        for name in ("a", "b", "c"):
            job = stubs.train(rings_spec(), training_job_id=name, labels={"team": name}, note="of rings")
            assert stubs.events(job.name)[-1].state_changed.to_state == pb.TrainingJob.STATE_SUCCEEDED
        yield stubs


def columns_of(server, table):
    with closing(sqlite3.connect(server.data_directory / "mlpd.sqlite3")) as connection:
        return [row[1] for row in connection.execute(f"PRAGMA table_info({table})") if row[1] not in NOT_VALUES]


def change(server, table, column, value, where):
    """Put another value, by its SQL, into a cell."""
    with closing(sqlite3.connect(server.data_directory / "mlpd.sqlite3", isolation_level=None)) as connection:
        assert connection.execute(f"UPDATE {table} SET {column} = {value} WHERE {where}").rowcount == 1


@contextmanager
def damaged(server, table, column, value, where):
    """The same, for the block."""
    with closing(sqlite3.connect(server.data_directory / "mlpd.sqlite3", isolation_level=None)) as connection:
        connection.text_factory = bytes
        ((rowid, before),) = connection.execute(f"SELECT rowid, {column} FROM {table} WHERE {where}").fetchall()
        connection.execute(f"UPDATE {table} SET {column} = {value} WHERE rowid = ?", (rowid,))
        try:
            yield
        finally:
            as_it_was = "CAST(? AS TEXT)" if isinstance(before, bytes) else "?"
            connection.execute(f"UPDATE {table} SET {column} = {as_it_was} WHERE rowid = ?", (before, rowid))


def jobs(stubs, **fields):
    return {job.name: job for job in stubs.trainer.ListTrainingJobs(pb.ListTrainingJobsRequest(**fields)).training_jobs}


def versions(stubs, **fields):
    request = model_pb.ListModelVersionsRequest(**fields)
    return {version.name: version for version in stubs.models.ListModelVersions(request).model_versions}


def datasets(stubs, **fields):
    request = dataset_pb.ListDatasetsRequest(**fields)
    return {dataset.name: dataset for dataset in stubs.datasets.ListDatasets(request).datasets}


CASES = [
    ("jobs", "id = 'b'", jobs, "trainingJobs/b", "JOB_DAMAGED"),
    ("job_statuses", "number = 2", jobs, "trainingJobs/b", "JOB_DAMAGED"),
    ("models", "model_id = 'b'", versions, "models/b/versions/1", "MODEL_DAMAGED"),
    ("datasets", "id = 'rings'", datasets, "datasets/rings", "DATASET_DAMAGED"),
]


def get(stubs, name):
    if name.startswith("trainingJobs/"):
        return stubs.job(name)
    if name.startswith("models/"):
        return stubs.models.GetModelVersion(model_pb.GetModelVersionRequest(name=name)).model_version
    return stubs.datasets.GetDataset(dataset_pb.GetDatasetRequest(name=name)).dataset


@pytest.mark.parametrize(("table", "where", "found", "name", "reason"), CASES, ids=[case[0] for case in CASES])
def test_a_damaged_cell_costs_its_own_entry_of_a_list_alone(own_server, own, table, where, found, name, reason):
    whole, told = found(own), set()
    for column in columns_of(own_server, table):
        for value in DAMAGES:
            with damaged(own_server, table, column, value, where):
                now = found(own)
                assert len(now) == len(whole), (column, value)
                assert {key: now[key] for key in whole if key != name} == {
                    key: whole[key] for key in whole if key != name
                }
                if name not in now:  # the name itself
                    continue
                if now[name].HasField("error"):
                    assert now[name].error.code == StatusCode.DATA_LOSS.value[0], (column, value)
                    assert now[name].error.message.startswith(f"the {column} of {name} can't be read"), (column, value)
                    refusal = refused(get, own, name)
                    assert (refusal.code, refusal.reason) == (StatusCode.DATA_LOSS, reason)
                    assert refusal.metadata["field"] == column
                    told.add(column)
                elif column in ("schema", "statistics"):  # which lists leave out
                    told |= {column} if refused_with(get, own, name) is StatusCode.DATA_LOSS else set()
                else:
                    get(own, name)
    assert found(own) == whole
    assert set(columns_of(own_server, table)) - told <= NAMES | BOOLEANS


def refused_with(call, *arguments):
    try:
        call(*arguments)
    except grpc.RpcError as error:
        return error.code()
    return StatusCode.OK


def test_pages_go_on_behind_a_name_that_is_damaged(own_server, own):
    names, token = [], ""
    with damaged(own_server, "datasets", "id", "CAST(x'6dff' AS TEXT)", "id = 'rings'"):
        while True:
            request = dataset_pb.ListDatasetsRequest(page_size=1, page_token=token)
            answer = own.datasets.ListDatasets(request)
            names += [dataset.name for dataset in answer.datasets]
            if not (token := answer.next_page_token):
                break
    assert names == ["datasets/mnist-test", "datasets/mnist-train", "datasets/b'm\\xff'"]


def test_labels_that_are_damaged_are_not_found_by_and_are_mended_by_an_update_of_them_all(own_server, own):
    for table, where, found, name in (
        ("jobs", "id = 'b'", jobs, "trainingJobs/b"),
        ("models", "model_id = 'b'", versions, "models/b/versions/1"),
    ):

        def update(path, found=found, name=name):
            if found is jobs:
                job = pb.TrainingJob(name=name, labels={"team": "x"})
                return own.trainer.UpdateTrainingJob(
                    pb.UpdateTrainingJobRequest(training_job=job, update_mask=FieldMask(paths=[path]))
                ).training_job
            version = model_pb.ModelVersion(name=name, labels={"team": "x"})
            return own.models.UpdateModelVersion(
                model_pb.UpdateModelVersionRequest(model_version=version, update_mask=FieldMask(paths=[path]))
            ).model_version

        with damaged(own_server, table, "labels", "'{\"team\": '", where):
            assert len(found(own, labels={"team": "a"})) == 1
            assert not found(own, labels={"team": "b"})
            refusal = refused(update, "labels.team")
            assert (refusal.code, refusal.metadata["field"]) == (StatusCode.DATA_LOSS, "labels")
            assert update("labels").labels == {"team": "x"}
            assert list(found(own, labels={"team": "x"})) == [name]


def test_a_damaged_record_of_a_model_is_not_predicted_from(own_server, own):
    inputs = types.Tensor(data_type=types.DATA_TYPE_FP32, shape=[1, 2], data=bytes(8))
    request = pb.PredictRequest(model="models/b", inputs=inputs)
    with damaged(own_server, "models", "task", "'mulliclass'", "model_id = 'b'"):
        refusal = refused(own.trainer.Predict, request)
        assert (refusal.code, refusal.reason, refusal.metadata["field"]) == (
            StatusCode.DATA_LOSS,
            "MODEL_DAMAGED",
            "task",
        )
    assert own.trainer.Predict(request).model == "models/b/versions/1"


def test_the_same_content_again_mends_the_record_of_a_data_set(own_server, own, rings):
    before = datasets(own)["datasets/rings"]
    change(own_server, "datasets", "class_row_counts", "'[1, 2'", "id = 'rings'")
    refusal = refused(own.train, rings_spec())
    assert (refusal.code, refusal.reason) == (StatusCode.DATA_LOSS, "DATASET_DAMAGED")
    assert own.upload("rings", *rings).class_row_counts == before.class_row_counts
    assert not datasets(own)["datasets/rings"].HasField("error")


@pytest.mark.parametrize("value", ["'{\"@kind\": '", "CAST(x'ff' AS TEXT)"])
def test_a_damaged_event_costs_the_log_of_its_job_alone(own_server, own, value):
    own.events("trainingJobs/a")
    with damaged(own_server, "events", "payload", value, "job_id = 'c' AND sequence = 3"):
        refusal = refused(own.events, "trainingJobs/c")
        assert (refusal.code, refusal.metadata["field"]) == (StatusCode.DATA_LOSS, "event 3")
    assert own.events("trainingJobs/c")[-1].HasField("state_changed")
    for column in ("state", "last_sequence"):
        with damaged(own_server, "job_statuses", column, value, "number = 3"):
            refusal = refused(own.events, "trainingJobs/c")
            assert (refusal.code, refusal.metadata["field"]) == (StatusCode.DATA_LOSS, column)


def end_of(stubs, name):
    """Return the state in which a job has ended, and the reason if it has failed."""
    change = stubs.events(name)[-1].state_changed
    info = error_details_pb2.ErrorInfo()
    for detail in change.error.details[:1]:
        assert detail.Unpack(info)
    return pb.TrainingJob.State.Name(change.to_state), info.reason


def test_commands_list_what_is_damaged_and_say_so(own_server, own):
    for table, where, command in (
        ("jobs", "id = 'b'", ["jobs", "--columns", "id,error"]),
        ("models", "model_id = 'b'", ["models"]),
        ("datasets", "id = 'rings'", ["datasets", "list"]),
    ):
        with damaged(own_server, table, "create_time", "'x'", where):
            done = run(*command, server=own_server)
        assert done.returncode == 0, done.stderr
        assert "can't be read, its record is damaged" in " ".join(done.stdout.split())


LONG = {"epoch_count": 1_000_000, "batch_size": 5}
FAILED = ("STATE_FAILED", "JOB_DAMAGED")


def test_a_running_job_of_which_the_status_is_damaged_fails_and_the_next_one_runs(start_server, connect, rings):
    server = start_server()
    stubs = connect(server.address)
    stubs.upload("rings", *rings)
    for name in ("reports", "cancelled"):
        stubs.train(rings_spec(**LONG), training_job_id=name)
        request = pb.StreamProgressRequest(name=f"trainingJobs/{name}")
        stream = stubs.trainer.StreamProgress(request)
        next(item for item in stream if item.event.HasField("metrics_recorded"))
        change(server, "job_statuses", "checkpoints", "'[{'", f"number = (SELECT number FROM jobs WHERE id = '{name}')")
        if name == "cancelled":
            with suppress(grpc.RpcError):  # DATA_LOSS, or it has failed already
                stubs.trainer.CancelTrainingJob(pb.CancelTrainingJobRequest(name=f"trainingJobs/{name}"))
        assert end_of(stubs, f"trainingJobs/{name}") == FAILED
        assert jobs(stubs)[f"trainingJobs/{name}"].error.code == StatusCode.DATA_LOSS.value[0]
    sound = stubs.train(rings_spec())
    assert end_of(stubs, sound.name) == ("STATE_SUCCEEDED", "")


def test_a_job_that_has_succeeded_stays_so_whatever_is_damaged_of_it(own_server, own):
    whole = own.job("trainingJobs/b")
    with damaged(own_server, "job_statuses", "progress", "'{'", "number = 2"), pytest.raises(grpc.RpcError) as caught:
        own.trainer.CancelTrainingJob(pb.CancelTrainingJobRequest(name=whole.name))
    assert caught.value.code() is StatusCode.DATA_LOSS
    assert own.job(whole.name) == whole
    assert own.events(whole.name)[-1].state_changed.to_state == pb.TrainingJob.STATE_SUCCEEDED


def test_damaged_jobs_keep_no_server_from_starting_and_no_job_from_running(start_server, connect, rings):
    server = start_server()
    stubs = connect(server.address)
    stubs.upload("rings", *rings)
    damages = [
        ("running", "job_statuses", "progress", "'{'"),
        ("stateless", "job_statuses", "state", "'QUEVED'"),
        ("counted", "job_statuses", "last_sequence", "'x'"),
        ("labelled", "jobs", "labels", "'{'"),
        ("specified", "jobs", "spec", "CAST(x'7bff' AS TEXT)"),
        ("dated", "jobs", "create_time", "'x'"),
    ]
    for name in (*(name for name, *_ in damages), "named"):
        stubs.train(rings_spec(**LONG), training_job_id=name)
    sound = stubs.train(rings_spec())
    stream = stubs.trainer.StreamProgress(pb.StreamProgressRequest(name="trainingJobs/running"))
    next(item for item in stream if item.event.HasField("attempt_started"))
    server.kill()
    for name, table, column, value in damages:
        change(server, table, column, value, f"number = (SELECT number FROM jobs WHERE id = '{name}')")
    change(server, "jobs", "id", "CAST(x'6dff' AS TEXT)", "id = 'named'")  # no call can name it any more
    change(server, "datasets", "schema", "'{'", "id = 'mnist-train'")
    change(server, "datasets", "sha256", "substr(sha256, 2) || 'x'", "id = 'mnist-test'")
    stubs = connect(start_server(port=server.port).address)
    assert end_of(stubs, sound.name) == ("STATE_SUCCEEDED", "")
    for name, *_ in damages:
        assert end_of(stubs, f"trainingJobs/{name}") == FAILED, name
        stubs.trainer.DeleteTrainingJob(pb.DeleteTrainingJobRequest(name=f"trainingJobs/{name}"))
    assert [name for name in jobs(stubs) if "xff" not in name] == [sound.name]
    found = datasets(stubs)
    for name, row_count in (("mnist-train", 60_000), ("mnist-test", 10_000)):
        assert found[f"datasets/{name}"].row_count == row_count
        stubs.datasets.GetDataset(dataset_pb.GetDatasetRequest(name=f"datasets/{name}"))


def test_retention_deletes_what_is_damaged_and_has_ended(start_server, connect, rings):
    server = start_server()
    stubs = connect(server.address)
    stubs.upload("rings", *rings)
    done = [stubs.train(rings_spec(), training_job_id=name) for name in ("a", "b")]
    for job in done:
        stubs.events(job.name)
    server.drain()
    change(server, "jobs", "note", "x'00'", "id = 'a'")
    change(server, "job_statuses", "environment", "7", "number = 2")
    change(server, "models", "spec", "'{'", "model_id = 'b'")
    stubs = connect(start_server("--keep-jobs-days", "0", "--keep-versions", "1", port=server.port).address)
    for job in done:
        with suppress(grpc.RpcError):  # it ends where the job is deleted
            stubs.events(job.name)
        assert until_refused(stubs.job, job.name).code is StatusCode.NOT_FOUND
    assert versions(stubs)["models/b/versions/1"].HasField("error")
    request = model_pb.DeleteModelVersionRequest(name="models/b/versions/1")
    assert stubs.models.DeleteModelVersion(request).freed_bytes > 0


@pytest.mark.parametrize("value", ["'x'", "CAST(x'ff' AS TEXT)"])
def test_a_damaged_number_of_a_version_keeps_its_model_from_nothing(start_server, connect, rings, value):
    server = start_server()
    stubs = connect(server.address)
    stubs.upload("rings", *rings)

    def trained():
        job = stubs.train(rings_spec(), model_id="m")
        assert end_of(stubs, job.name) == ("STATE_SUCCEEDED", "")
        return stubs.job(job.name).model_version

    assert [trained(), trained()] == ["models/m/versions/1", "models/m/versions/2"]
    change(server, "models", "version", value, "version = 2")
    assert get(stubs, "models/m").name == "models/m/versions/1"
    assert trained() == "models/m/versions/3"  # the second may still be named somewhere
    server.drain()
    stubs = connect(start_server("--keep-versions", "1", port=server.port).address)
    until_refused(get, stubs, "models/m/versions/1")
    assert get(stubs, "models/m").name == "models/m/versions/3"
    assert stubs.models.DeleteModel(model_pb.DeleteModelRequest(name="models/m")).version_count >= 1
    assert trained() == "models/m/versions/4"


def until_refused(call, *arguments):
    while refused_with(call, *arguments) is not StatusCode.NOT_FOUND:
        pass
    return refused(call, *arguments)


@pytest.mark.parametrize("value", ["substr(sha256, 2) || 'x'", "CAST(x'ff' AS TEXT)", "replace(sha256, 'a', 'b')"])
def test_no_file_goes_while_a_row_misses_one(start_server, connect, rings, value):
    server = start_server()
    stubs = connect(server.address)
    sha256 = stubs.upload("rings", *rings).sha256
    server.drain()
    change(server, "datasets", "sha256", value, "id = 'rings'")
    start_server(port=server.port).drain()
    assert (server.data_directory / "datasets" / f"{sha256}.safetensors").exists()
