"""Retention: what is old goes by itself, and never what is in use, young or not ended."""

import asyncio
import time

import pytest
from grpc import StatusCode
from mlpd.server.__main__ import app
from mlpd.server.records import JobState
from mlpd.server.storage import schema
from mlpd.server.storage.retention import Retention
from mlpd.v1 import model_service_pb2 as model_pb
from mlpd.v1 import trainer_service_pb2 as pb
from typer.testing import CliRunner

from .conftest import refused, rings_spec
from .test_kept_files import opened

DAY = 24 * 3600 * 10**9
SUCCEEDED = JobState.SUCCEEDED


def kept(tmp_path, jobs_days, versions, days_later, *, source=None):
    """Apply the rules some days after three versions of m, one of n, a failed job and a queued one, on what it needs.

    Return which jobs and which versions are left.
    """

    async def use(house):
        await house.upload("a", 0)
        for job_id, model_id, how in (
            ("m1", "m", SUCCEEDED), ("m2", "m", SUCCEEDED), ("m3", "m", SUCCEEDED), ("n1", "n", SUCCEEDED),
            ("failed", "m", JobState.FAILED), ("cancelled", "m", JobState.CANCELLED),
        ):  # fmt: skip
            await house.train(job_id, model_id, "a")
            await house.end(job_id, how)
        await house.train("queued", "m", "a", source)
        now = time.time_ns() + int(days_later * DAY)
        await Retention(house.store, house.housekeeping, jobs_days, versions, lambda: now).apply()
        house.check()
        left = {job_id for (job_id,) in house.rows(schema.jobs.c.id)}
        found = house.rows(schema.models.c.model_id, schema.models.c.version)
        return left, {f"{model_id}/{version}" for model_id, version in found}

    with opened(tmp_path / "data") as house:
        return asyncio.run(use(house))


ALL_JOBS = {"m1", "m2", "m3", "n1", "failed", "cancelled", "queued"}
ALL_VERSIONS = {"m/1", "m/2", "m/3", "n/1"}


@pytest.mark.parametrize(
    ("jobs_days", "versions", "days_later", "source", "jobs_left", "versions_left"),
    [
        (None, None, 10_000, None, ALL_JOBS, ALL_VERSIONS),
        (2, None, 1.9, None, ALL_JOBS, ALL_VERSIONS),
        (2, None, 2.1, None, {"queued"}, ALL_VERSIONS),
        (0, None, 0, None, {"queued"}, ALL_VERSIONS),
        (None, 2, 0, None, ALL_JOBS, {"m/2", "m/3", "n/1"}),
        (None, 1, 0, None, ALL_JOBS, {"m/3", "n/1"}),
        (None, 1, 0, ("m", 1), ALL_JOBS, {"m/1", "m/3", "n/1"}),
        (2, 1, 1.9, None, ALL_JOBS, ALL_VERSIONS),
        (2, 1, 2.1, None, {"queued"}, {"m/3", "n/1"}),
    ],
)
def test_what_the_rules_do_not_keep_goes(tmp_path, jobs_days, versions, days_later, source, jobs_left, versions_left):
    assert kept(tmp_path, jobs_days, versions, days_later, source=source) == (jobs_left, versions_left)


def test_a_server_applies_its_rules_at_the_start(start_server, connect, rings):
    server = start_server()
    stubs = connect(server.address)
    stubs.upload("rings", *rings)
    jobs = [stubs.train(rings_spec(epoch_count=1), model_id="m") for _ in range(2)]
    for job in jobs:
        assert stubs.events(job.name)[-1].state_changed.to_state == pb.TrainingJob.STATE_SUCCEEDED
    endless = stubs.train(rings_spec(epoch_count=10**6, batch_size=1))
    server.kill()
    server = start_server("--keep-jobs-days", "0", "--keep-versions", "1")
    stubs = connect(server.address)
    heartbeats = stubs.trainer.StreamProgress(pb.StreamProgressRequest(name=endless.name))
    for _ in heartbeats:  # the job goes on; meanwhile the others go
        listed = stubs.trainer.ListTrainingJobs(pb.ListTrainingJobsRequest()).training_jobs
        versions = stubs.models.ListModelVersions(model_pb.ListModelVersionsRequest()).model_versions
        if (len(listed), len(versions)) == (1, 1):
            break
    heartbeats.cancel()
    assert [job.name for job in listed] == [endless.name]
    assert [version.name for version in versions] == ["models/m/versions/2"]
    assert refused(stubs.job, jobs[0].name).code is StatusCode.NOT_FOUND


@pytest.mark.parametrize("option", [["--keep-jobs-days", "-1"], ["--keep-versions", "0"], ["--keep-jobs-days", "1.5"]])
def test_rules_that_make_no_sense_are_refused(option):
    done = CliRunner().invoke(app, option)
    assert done.exit_code == 2
    assert option[0] in done.output
