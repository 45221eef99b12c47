"""Data that change while a job reads them: the job fails by name, and what it had read in between is never published."""

import os
from typing import Any

import pytest
from mlpd.client import Client, JobFailed, training_spec

from .test_recovery import OFTEN, follow_until

SETTINGS: dict[str, Any] = {
    "layer_sizes": [2, 8, 3],
    "train_dataset": "rings",
    "batch_size": 1,  # small batches make long epochs, and so few reports
    "epoch_count": 100_000,
    "optimizer": "sgd",
    "learning_rate": 0.01,
}


def cut(path):
    os.truncate(path, 100)


def flip(path):
    with path.open("r+b") as file:
        file.seek(-100, os.SEEK_END)
        (byte,) = file.read(1)
        file.seek(-100, os.SEEK_END)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("change", [cut, flip])
def test_a_job_whose_data_change_under_it_fails_and_publishes_nothing(start_server, rings, change):
    server = start_server(*OFTEN)
    with Client(server.address) as client:
        sha256 = client.upload("rings", *rings).sha256
        job = client.train(training_spec(**SETTINGS))
        log = client.progress(job)
        follow_until(log, "checkpoint_saved")
        change(server.data_directory / "datasets" / f"{sha256}.safetensors")
        with pytest.raises(JobFailed) as caught:
            client.wait(job)
        assert caught.value.reason == "DATASET_DAMAGED"
        assert "the file of datasets/rings is damaged" in str(caught.value)
        assert list(client.models()) == []
        warnings = [event.message_logged.message for event in log if event.HasField("message_logged")]
    assert warnings[-1] in ("the worker was killed by SIGBUS", "the worker exited with status 1")


def test_a_run_whose_data_changed_in_its_last_moments_is_not_published(start_server, rings):
    server = start_server("--checkpoint-interval-seconds", "3600")
    with Client(server.address) as client:
        sha256 = client.upload("rings", *rings).sha256
        job = client.train(training_spec(**SETTINGS | {"epoch_count": 500, "batch_size": 50}))
        log = client.progress(job)
        follow_until(log, "metrics_recorded")
        flip(server.data_directory / "datasets" / f"{sha256}.safetensors")
        with pytest.raises(JobFailed) as caught:
            client.wait(job)
    assert caught.value.reason == "DATASET_DAMAGED"
