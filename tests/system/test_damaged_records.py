"""Jobs whose record in the database has changed: they never run, say so, and keep no other from running."""

import sqlite3

import pytest
from mlpd.client import Client, JobFailed, MlpdError, training_spec
from mlpd.v1 import trainer_service_pb2 as pb

from .test_changed_data import SETTINGS


def change_spec(data_directory, job, old, new):
    with sqlite3.connect(data_directory / "mlpd.sqlite3") as connection:
        changed = connection.execute(
            "UPDATE jobs SET spec = replace(spec, ?, ?) WHERE id = ?",
            (old, new, job.name.removeprefix("trainingJobs/")),
        )
        assert changed.rowcount == 1
    connection.close()


def test_a_running_job_whose_record_is_damaged_can_be_cancelled(start_server, rings):
    server = start_server()
    with Client(server.address) as client:
        client.upload("rings", *rings)
        running = client.train(training_spec(**SETTINGS))
        next(event for event in client.progress(running) if event.HasField("attempt_started"))
        change_spec(server.data_directory, running, '"learning_rate"', '"learning_raue"')
        with pytest.raises(MlpdError, match=f"the spec of {running.name} can't be read"):
            client.cancel(running)
        *_, last = client.progress(running)
        assert last.state_changed.to_state == pb.TrainingJob.STATE_CANCELLED


def test_a_job_whose_spec_has_changed_does_not_run_and_the_next_one_does(start_server, rings):
    server = start_server()
    with Client(server.address) as client:
        client.upload("rings", *rings)
        running = client.train(training_spec(**SETTINGS))
        next(event for event in client.progress(running) if event.HasField("attempt_started"))
        other, unreadable, sound = (client.train(training_spec(**SETTINGS | {"epoch_count": 2})) for _ in range(3))
        server.kill()
        change_spec(server.data_directory, other, '"learning_rate":0.01', '"learning_rate":0.03')
        for job in (running, unreadable):
            change_spec(server.data_directory, job, '"learning_rate"', '"learning_raue"')
        start_server(port=server.port)
        with pytest.raises(JobFailed, match="the spec must be what was queued") as failed:
            client.wait(other)
        for job in (running, unreadable):
            *_, last = client.progress(job)
            assert last.state_changed.to_state == pb.TrainingJob.STATE_FAILED
            assert last.state_changed.error.message.startswith(f"the spec of {job.name} can't be read")
            with pytest.raises(MlpdError, match=f"the spec of {job.name} can't be read") as unread:
                client.job(job)
        assert client.wait(sound).state == pb.TrainingJob.STATE_SUCCEEDED
    assert (failed.value.reason, unread.value.reason) == ("JOB_DAMAGED", "JOB_DAMAGED")
