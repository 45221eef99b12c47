"""Labels, lists, deletes and disk usage, by client and command line."""

import json
import uuid
from typing import Any

import grpc
import numpy as np
import pytest
from mlpd.client import Client, InvalidRequest, NotFound, PreconditionFailed, training_spec
from mlpd.client.cli.housekeeping import jobs_table
from mlpd.v1 import dataset_service_pb2 as dataset_pb
from mlpd.v1 import trainer_service_pb2 as pb
from rich.console import Console

from ..command_line import run
from .test_transport import serving

SETTINGS: dict[str, Any] = {
    "layer_sizes": [2, 8, 3],
    "train_dataset": "housekeeping",
    "batch_size": 50,
    "epoch_count": 1,
}
FOREVER = {"epoch_count": 10**6, "batch_size": 1}  # small batches make long epochs, and so few reports
TEAM = f"t{uuid.uuid4().hex}"


@pytest.fixture(scope="module")
def client(server, rings):
    with Client(server.address) as client:
        client.upload("housekeeping", *rings)
        yield client


@pytest.fixture(scope="module")
def trained(client):
    """A job with labels and a note that has published a version."""
    spec = training_spec(**SETTINGS, optimizer="adam", learning_rate=0.01)
    labels = {"team": TEAM, "stage": "first"}
    return client.wait(client.train(spec, model_id="kept-model", labels=labels, note="one\ntwo"))


@pytest.fixture(scope="module")
def failed(client):
    spec = training_spec(**SETTINGS, optimizer="sgd", learning_rate=1e9)
    job = client.train(
        spec, job_id=f"failed-{uuid.uuid4()}-of-a-name-as-long-as-is"[:63].rstrip("-"), labels={"team": TEAM}
    )
    list(client.progress(job))
    return client.job(job)


def answer(*arguments, server, status=0):
    done = run(*arguments, "--json", server=server)
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout)


def test_labels_go_from_the_job_to_its_version(client, trained):
    assert (dict(trained.labels), trained.note) == ({"team": TEAM, "stage": "first"}, "one\ntwo")
    version = client.model(trained.model_version)
    assert (dict(version.labels), version.note) == ({"team": TEAM, "stage": "first"}, "")
    assert [found.name for found in client.models(labels={"team": TEAM})] == [version.name]
    assert list(client.models("kept-model", labels={"team": "no"})) == []


def test_labels_are_no_part_of_the_run_but_of_the_request(client):
    spec, request_id = training_spec(**SETTINGS, optimizer="adam", learning_rate=0.01, seed=3), str(uuid.uuid4())
    job = client.train(spec, labels={"a": "1", "b": "2"}, request_id=request_id)
    assert client.train(spec, labels={"b": "2", "a": "1"}, request_id=request_id).name == job.name
    client.update_job(job, labels={"a": "3"}, note="later")
    again = client.train(spec, labels={"a": "1", "b": "2"}, request_id=request_id)
    assert (again.name, dict(again.labels), again.note) == (job.name, {"a": "3", "b": "2"}, "later")
    assert client.train(spec).spec_digest == job.spec_digest
    for other in ({"labels": {"a": "1"}}, {"labels": {"a": "1", "b": "2"}, "note": "x"}):
        with pytest.raises(Exception, match="belongs to another request"):
            client.train(spec, **other, request_id=request_id)


def test_an_update_changes_what_it_names_and_nothing_else(client, trained):
    job = client.update_job(trained, labels={"stage": None, "new": ""})
    assert (dict(job.labels), job.note) == ({"team": TEAM, "new": ""}, "one\ntwo")
    job = client.update_job(job, note="")
    assert (dict(job.labels), job.note) == ({"team": TEAM, "new": ""}, "")
    assert client.job(job) == job
    job = client.update_job(job, labels={"stage": "first", "new": None}, note="one\ntwo")
    assert (dict(job.labels), job.note) == (dict(trained.labels), trained.note)
    assert dict(client.model(trained.model_version).labels) == dict(trained.labels)
    version = client.update_version("kept-model/1", labels={"best": "yes"}, note="keep")
    assert (version.labels["best"], version.labels["team"], version.note) == ("yes", TEAM, "keep")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({}, "update_mask must name what to change: labels, labels.{key} or note; got nothing"),
        ({"labels": {"Team": "a"}}, "update_mask must name labels, labels.{key} or note, got 'labels.Team'"),
        ({"labels": {"": "a"}}, "update_mask must name labels, labels.{key} or note, got 'labels.'"),
        ({"labels": {"a": "\t"}}, "training_job.labels.a must have printable characters alone, got '\\t'"),
        ({"labels": {"a": "x" * 129}}, "training_job.labels.a must have at most 128 characters, got 129"),
        ({"labels": {f"a{i}": "" for i in range(33)}}, "training_job.labels must have at most 32 entries, got 33"),
        ({"labels": {f"a{i}": "" for i in range(31)}}, "training_job.labels must have at most 32 entries, got 33"),
        ({"note": "x" * 1001}, "training_job.note must have at most 1,000 characters, got 1,001"),
        ({"note": "\x1b"}, "training_job.note must have printable characters and line breaks, got '\\x1b'"),
    ],
)
def test_labels_that_break_a_rule_are_refused_and_nothing_changes(client, trained, change, sentence):
    before = client.job(trained)
    with pytest.raises(InvalidRequest) as caught:
        client.update_job(trained, **change)
    assert caught.value.message == sentence
    assert client.job(trained) == before


def test_lists_hold_what_is_asked_for(client, trained, failed):
    names = [trained.name, failed.name]
    mine = [job for job in client.jobs() if job.name in names]
    assert list(client.jobs(labels={"team": TEAM})) == mine
    assert [job.name for job in client.jobs(labels={"team": TEAM}, states=["failed"])] == [failed.name]
    assert [job.name for job in client.jobs(labels={"team": TEAM}, states=["failed", "succeeded"])] == names[::-1]
    assert [job.name for job in client.jobs(labels={"team": TEAM}, model="kept-model")] == [trained.name]
    assert list(client.jobs(labels={"team": TEAM, "stage": "second"})) == []
    assert trained.train_loss > 0
    assert not trained.HasField("validation_loss")
    with pytest.raises(InvalidRequest, match=r"states must be of queued, running, .*, got done"):
        list(client.jobs(states=["done"]))


def test_pages_of_a_filtered_list_leave_nothing_out(client, server):
    blocking = client.train(training_spec(**SETTINGS | FOREVER, optimizer="sgd", learning_rate=0.01))
    spec = training_spec(**SETTINGS, optimizer="sgd", learning_rate=0.01)
    label = {"paged": TEAM}
    jobs = [client.train(spec, labels=label if i % 3 else {}) for i in range(12)]
    wanted = [job.name for i, job in enumerate(jobs) if i % 3][::-1]
    try:
        request = pb.ListTrainingJobsRequest(page_size=3, labels=label, states=[pb.TrainingJob.STATE_QUEUED])
        found = []
        while True:
            page = client._call(client._trainer.ListTrainingJobs, request)
            found += page.training_jobs
            request.page_token = page.next_page_token
            if not page.next_page_token:
                break
        assert [job.name for job in found] == wanted
        assert [job.queue_position for job in found] == [client.job(job).queue_position for job in found]
        listed = answer("jobs", "--state", "queued", "--label", f"paged={TEAM}", server=server)["jobs"]
        assert [job["name"] for job in listed] == wanted
    finally:
        for job in [*jobs, blocking]:
            client.cancel(job)


def test_the_command_line_lists_by_state_and_label_with_columns(server, trained, failed):
    chosen = ["jobs", "--label", f"team={TEAM}", "--state", "failed", "--columns", "id,state,error"]
    lines = run(*chosen, server=server).stdout.splitlines()
    assert lines[0].split() == ["id", "state", "error"]
    assert lines[1].split()[:2] == [failed.name.removeprefix("trainingJobs/"), "failed"]
    done = run("jobs", "--columns", "id,nothing", server=server)
    assert (done.returncode, "columns must be of id, state" in done.stderr) == (1, True)
    done = run("jobs", "--label", "team", server=server)
    assert (done.returncode, done.stderr) == (1, "mlpd: label must be key=value, got team\n")
    done = run("models", "--label", f"team={TEAM}", server=server)
    assert "models/kept-model/versions/1" in done.stdout


@pytest.mark.parametrize("width", [80, 100, 160])
def test_ids_are_whole_at_any_width_and_lines_fit(trained, failed, width, capsys):
    Console(width=width, highlight=False).print(jobs_table([trained, failed], None, width))
    text = capsys.readouterr().out
    for job in (trained, failed):
        assert job.name.removeprefix("trainingJobs/") in text
    assert max(map(len, text.splitlines())) <= width
    assert text.split()[:2] == ["id", "state"]
    Console(width=width, highlight=False).print(jobs_table([trained], None, width))
    assert capsys.readouterr().out.split()[:5] == ["id", "state", "epoch", "loss", "created"]


def test_train_takes_labels_from_flags_and_files(server, client, tmp_path):
    (tmp_path / "run.toml").write_text(
        f"""
        layer_sizes = [2, 8, 3]
        train_dataset = "housekeeping"
        batch_size = 50
        epoch_count = 1
        optimizer = "sgd"
        learning_rate = 0.01
        note = "from a file"
        labels = {{ team = "{TEAM}-toml", stage = "first" }}
        """
    )
    job = answer("train", "--config", tmp_path / "run.toml", "--label", "stage=second", "--no-wait", server=server)[
        "job"
    ]
    assert job["labels"] == {"team": f"{TEAM}-toml", "stage": "second"}
    assert job["note"] == "from a file"
    (tmp_path / "run.toml").write_text("labels = { a = 1 }")
    done = run("train", "--config", tmp_path / "run.toml", server=server)
    assert (done.returncode, done.stderr) == (1, "mlpd: labels must be a table of texts, got {'a': 1}\n")


def test_the_command_line_updates_and_deletes_several_and_says_of_each(server, client):
    spec = training_spec(**SETTINGS, optimizer="sgd", learning_rate=0.01)
    jobs = [client.wait(client.train(spec, model_id="deleted-model")) for _ in range(2)]
    ids = [job.name.removeprefix("trainingJobs/") for job in jobs]
    changed = answer("update", "jobs", *ids, "--label", "a=b", "--note", "gone soon", server=server)["jobs"]
    assert [(job["labels"], job["note"]) for job in changed] == [({"a": "b"}, "gone soon")] * 2
    done = run("update", "models", "deleted-model/2", "--label", "a=b", server=server)
    assert done.stdout == "models/deleted-model/versions/2 has labels a=b\n"
    result = answer("delete", "jobs", ids[0], "never", ids[1], server=server, status=1)
    assert [own["name"] for own in result["deleted"]] == ids
    assert [(own["name"], own["reason"]) for own in result["errors"]] == [("never", "JOB_NOT_FOUND")]
    done = run("delete", "models", "deleted-model/1", "deleted-model", "deleted-model", server=server)
    first, second = done.stdout.splitlines()
    assert first.startswith("deleted deleted-model/1: ")
    assert second.endswith(" freed, 1 versions")
    assert (done.returncode, done.stderr) == (1, "mlpd: there is no model 'models/deleted-model'\n")
    done = run("delete", "datasets", "mnist-train", server=server)
    assert done.stderr == "mlpd: datasets/mnist-train can't be deleted: it is on every server\n"
    stored = client.upload("cli-gone", np.full((5, 2), 7.5), np.arange(5) % 2)
    result = answer("delete", "datasets", "cli-gone", server=server)
    assert result == {"deleted": [{"name": "cli-gone", "freed_bytes": stored.size_bytes}], "errors": []}


def test_several_jobs_are_cancelled_at_once(server, client):
    spec = training_spec(**SETTINGS | FOREVER, optimizer="sgd", learning_rate=0.01)
    ids = [client.train(spec).name.removeprefix("trainingJobs/") for _ in range(3)]
    done = run("cancel", *ids, "never", server=server)
    assert len(done.stdout.splitlines()) == 3
    assert (done.returncode, done.stderr) == (1, "mlpd: there is no job 'never'\n")


def test_a_delete_whose_answer_was_lost_counts_as_done():
    asked = []

    def delete(request, context):
        asked.append(request.allow_missing)
        if len(asked) == 1:
            context.abort(grpc.StatusCode.UNAVAILABLE, "the answer is lost")
        if not request.allow_missing:
            context.abort(grpc.StatusCode.NOT_FOUND, "there is none")
        return dataset_pb.DeleteDatasetResponse()

    with serving(DeleteDataset=delete) as client:
        assert client.delete_dataset("a") == 0
        assert asked == [False, False, True]
        with pytest.raises(NotFound):
            client.delete_dataset("a")


def test_what_is_needed_is_told_to_the_client(client):
    job = client.train(training_spec(**SETTINGS | FOREVER, optimizer="sgd", learning_rate=0.01))
    for call, argument in ((client.delete_dataset, "housekeeping"), (client.delete_job, job)):
        with pytest.raises(PreconditionFailed, match="cancel"):
            call(argument)
    client.cancel(job)


def test_disk_usage_follows_what_is_stored(server, client):
    def usage():
        return client._call(client._trainer.GetServerInfo, pb.GetServerInfoRequest()).disk_usage

    before = usage()
    stored = client.upload("measured", np.full((1000, 2), 3.25), np.arange(1000) % 2)
    assert usage().dataset_bytes == before.dataset_bytes + stored.size_bytes
    client.delete_dataset("measured")
    after = usage()
    assert after.dataset_bytes == before.dataset_bytes
    assert after.database_bytes > 0
    assert after.free_bytes > 0
    shown = run("info", server=server).stdout.splitlines()[-1]
    assert shown.startswith("on disk: data sets ")
    assert shown.endswith(" free")
    assert answer("info", server=server)["disk_usage"]["dataset_bytes"] == after.dataset_bytes
