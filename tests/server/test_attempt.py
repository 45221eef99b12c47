"""An attempt without a process around it: what it reports to the end, when it is stopped, and of files that are gone."""

import queue
from dataclasses import replace
from pathlib import Path

import pytest
from mlpd.core.data.datasets import Dataset, write_dataset
from mlpd.core.data.inspection import inspect_dataset
from mlpd.core.models.model import load_model
from mlpd.core.network.architecture import ModelSpec
from mlpd.core.spec.training import WarmStartSpec
from mlpd.server.errors import ErrorKind
from mlpd.server.executors.attempt import Attempt
from mlpd.server.executors.running import DataChanged, Stops, run_attempt
from mlpd.server.records import (
    AttemptStarted,
    CheckpointSaved,
    Failed,
    Finished,
    Frame,
    MessageLogged,
    MetricsRecorded,
    Stopped,
    StopReason,
)

from .test_lifecycle import SPEC


@pytest.fixture
def attempt(tmp_path, rings):
    """A first attempt at three epochs of 12 steps."""
    write_dataset(tmp_path / "rings", Dataset(*rings))
    spec = replace(
        SPEC,
        model=ModelSpec.plain((2, 8, 3)),
        train_sha256=inspect_dataset(tmp_path / "rings").sha256,
        batch_size=50,
        epoch_count=3,
        metrics_interval_steps=12,
    )
    return Attempt(
        job_id="a",
        spec=spec,
        reason="first",
        environment="",
        train_path=tmp_path / "rings",
        validation_path=None,
        test_path=None,
        source_path=None,
        job_directory=tmp_path,
        models_directory=tmp_path,
        kernels_directory=tmp_path / "kernels",
        checkpoints=(),
        checkpoint_interval_seconds=3600.0,
        thread_count=1,
    )


def frames_of(attempt, *reasons):
    """Return what an attempt reports that is stopped for ``reasons`` before it begins."""
    frames: list[Frame] = []
    stops: Stops = queue.SimpleQueue()
    for reason in reasons:
        stops.put(reason)
    run_attempt(attempt, frames.append, stops)
    return frames


def test_a_run_reports_its_beginning_its_metrics_and_the_model_that_it_has_written(attempt, tmp_path):
    started, *metrics, finished = frames_of(attempt)
    assert isinstance(started, AttemptStarted)
    assert (started.resume_step, started.reason) == (0, "first")
    assert [type(frame) for frame in metrics] == [MetricsRecorded] * 3
    assert [frame.progress.step for frame in metrics] == [12, 24, 36]
    assert isinstance(finished, Finished)
    model = load_model(tmp_path / f"{finished.model_sha256}.safetensors", finished.model_sha256)
    assert (model.sha256, len(model.parameters)) == (finished.parameters_sha256, finished.parameter_count)


def test_a_drained_run_saves_what_the_next_attempt_goes_on_from_bit_for_bit(attempt):
    *_, whole = frames_of(attempt)
    _, saved, stopped = frames_of(attempt, StopReason.DRAIN)
    assert isinstance(saved, CheckpointSaved)
    assert stopped == Stopped(StopReason.DRAIN)
    started, *_, finished = frames_of(replace(attempt, reason="server_drain", checkpoints=(saved,)))
    assert (started.resume_step, started.reason) == (saved.step, "server_drain")
    assert finished == whole


def test_a_cancelled_run_saves_nothing(attempt):
    _, stopped = frames_of(attempt, StopReason.CANCEL)
    assert stopped == Stopped(StopReason.CANCEL)


def test_nothing_is_reported_of_data_that_changed_under_a_run(attempt, tmp_path, rings):
    frames: list[Frame] = []

    def send(frame):
        frames.append(frame)
        if isinstance(frame, AttemptStarted):
            write_dataset(tmp_path / "rings", Dataset(*rings))

    with pytest.raises(DataChanged, match="the data set rings was changed while the run read it"):
        run_attempt(attempt, send, queue.SimpleQueue())
    assert [type(frame) for frame in frames] == [AttemptStarted, MessageLogged]


def test_a_file_that_the_disk_can_not_read_now_is_not_called_damaged(attempt):
    """The kernel's answer to whoever reads the first bytes of its own memory is an I/O error."""
    warm = WarmStartSpec("models/a/versions/1", "0" * 64, full=False)
    unreadable = replace(attempt, spec=replace(attempt.spec, warm_start=warm), source_path=Path("/proc/self/mem"))
    (failed,) = frames_of(unreadable)
    assert (failed.failure.kind, failed.failure.reason) == (ErrorKind.UNAVAILABLE, "STORAGE")


def test_a_run_whose_data_are_gone_fails_and_says_so(attempt, tmp_path):
    (tmp_path / "rings").unlink()
    (failed,) = frames_of(attempt)
    assert isinstance(failed, Failed)
    assert (failed.failure.kind, failed.failure.reason) == (ErrorKind.DATA_LOSS, "DATASET_DAMAGED")
