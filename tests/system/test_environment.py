"""A run that must go on where its numbers would come out otherwise: refused by name, or begun again, as its spec says."""

import platform
from typing import Any

import numpy as np
import pytest
from mlpd.client import Client, JobFailed, training_spec

from ..conftest import ENVIRONMENT
from .test_recovery import facts, follow_until

SETTINGS: dict[str, Any] = {
    "layer_sizes": [100, 48, 3],
    "train_dataset": "blobs",
    "validation_dataset": "blobs",
    "validation_interval_epochs": 20,
    "batch_size": 60,
    "epoch_count": 80,
    "optimizer": "adam",
    "learning_rate": 0.001,
    "seed": 3,
    "runner": "plain",
}
# Being quicker, it is given more to do, so that it is still at it when it is interrupted.
COMPILED = SETTINGS | {"runner": "compiled", "split": "units", "block_count": 2, "epoch_count": 240}
ENDLESS = SETTINGS | {"epoch_count": 1_000_000}
BEGINS_AGAIN = SETTINGS | {"environment_change": "restart"}
TWO_THREADS: dict[str, Any] = {"threads": 2}
FROM_A_CHECKPOINT_ON_OTHER_THREADS = pytest.param(TWO_THREADS, {}, 0.02, id="from a checkpoint, other threads")
FROM_THE_START_WITH_ANOTHER_KERNEL = pytest.param(
    {},
    {"environment": ENVIRONMENT | {"OPENBLAS_CORETYPE": "Nehalem"}},
    3600,
    marks=pytest.mark.skipif(platform.machine() != "x86_64", reason="names a kernel of one kind of processor"),
    id="from the start, another kernel",
)


@pytest.fixture
def interrupt(start_server):
    """Start runs, kill the server in their midst, start it again otherwise, and follow them to their ends."""
    seed = 11
    print(f"seed {seed}")
    random = np.random.default_rng(seed)
    labels = np.arange(1200) % 3
    rows = (random.normal(size=(1200, 100)) + 0.1 * labels[:, None]).astype(np.float32)

    def start(checkpoint_interval_seconds, threads=1, **choices):
        often = ("--checkpoint-interval-seconds", str(checkpoint_interval_seconds), "--running-jobs", "2")
        return start_server(*often, "--threads", str(threads), **choices)

    def interrupt(before, after, *settings, checkpoint_interval_seconds=0.02):
        server = start(checkpoint_interval_seconds, **before)
        awaited = "checkpoint_saved" if checkpoint_interval_seconds < 1 else "metrics_recorded"
        with Client(server.address) as client:
            client.upload("blobs", rows, labels)
            jobs = []
            for own in settings:
                jobs.append(client.train(training_spec(**own)))
                follow_until(client.progress(jobs[-1]), awaited)
        server.kill()
        client = Client(start(checkpoint_interval_seconds, **after).address)
        return client, jobs, [list(client.progress(job)) for job in jobs]

    return interrupt


def starts(events):
    return [event.attempt_started for event in events if event.HasField("attempt_started")]


def trained_anew(client, settings):
    """Return the reports, the parameters and the environment of a run that nobody disturbs."""
    job = client.train(training_spec(**settings))
    reports = facts(client.progress(job))
    ended = client.wait(job)
    return reports, client.model(ended.model_version).parameters_sha256, ended.environment


@pytest.mark.parametrize(
    ("before", "after", "checkpoint_interval_seconds"),
    [FROM_A_CHECKPOINT_ON_OTHER_THREADS, FROM_THE_START_WITH_ANOTHER_KERNEL],
)
def test_in_another_environment_a_run_is_refused_by_name_or_begins_again(
    interrupt, before, after, checkpoint_interval_seconds
):
    client, (refused, again), logs = interrupt(
        before, after, ENDLESS, BEGINS_AGAIN, checkpoint_interval_seconds=checkpoint_interval_seconds
    )
    with client:
        reports, digest, there = trained_anew(client, SETTINGS)
        with pytest.raises(JobFailed) as caught:
            client.wait(refused)
        ended = client.wait(again)
        again_digest = client.model(ended.model_version).parameters_sha256
    first = starts(logs[0])[0].environment
    assert caught.value.reason == "ENVIRONMENT_CHANGED"
    assert f"it began in ({first}), this is ({there})" in str(caught.value)
    assert caught.value.job.environment == first != there
    assert len(starts(logs[0])) == 1

    assert [event.sequence for event in logs[1]] == list(range(1, len(logs[1]) + 1))
    begun = [(start.reason, start.resume_step, start.environment) for start in starts(logs[1])]
    assert begun == [("first", 0, first), ("environment_changed", 0, there)]
    later = next(i for i, event in enumerate(logs[1]) if event.attempt_started.reason == "environment_changed")
    assert facts(logs[1][later:]) == reports
    assert (ended.environment, again_digest) == (there, digest)


@pytest.mark.parametrize(
    ("settings", "before"), [(SETTINGS, {}), (COMPILED, TWO_THREADS)], ids=["unchanged", "compiled, on other threads"]
)
def test_a_run_goes_on_where_its_numbers_come_out_the_same(interrupt, settings, before):
    client, (job,), (events,) = interrupt(before, {}, settings)
    with client:
        reports, digest, _ = trained_anew(client, settings)
        assert client.model(client.wait(job).model_version).parameters_sha256 == digest
    assert [start.reason for start in starts(events)] == ["first", "server_restart"]
    assert starts(events)[1].resume_step > 0
    assert facts(events) == reports
