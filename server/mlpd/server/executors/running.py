"""Runs one attempt at a job, from opening its files to its last frame, in whatever process calls it."""

import queue
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from mlpd.core.data.datasets import DataError, Dataset, open_dataset
from mlpd.core.devices.arrays import Device, DeviceUnavailable, open_device
from mlpd.core.files import FileDamaged, FileIdentity, Verifier, sync_directory
from mlpd.core.models.model import TrainedModel, load_trained, save_model
from mlpd.core.plans.runner import RunnerUnavailable
from mlpd.core.state_file import StateFileError
from mlpd.core.steps.examples import Examples, NothingToLearn
from mlpd.core.training import events
from mlpd.core.training.checkpoint import load_checkpoint, save_checkpoint
from mlpd.core.training.environment import (
    check_environment,
    computing_threads,
    difference,
    environment_of,
    shares_products,
)
from mlpd.core.training.loop import train
from mlpd.core.training.state import Diverged, TrainingState
from mlpd.core.training.usefulness import reason_to_doubt
from mlpd.server.damage import dataset_damage, model_damage
from mlpd.server.disk import trouble_of, waits_seconds
from mlpd.server.errors import ErrorKind
from mlpd.server.executors.attempt import Attempt
from mlpd.server.records import (
    CHECKPOINTS_KEPT,
    ENVIRONMENT_CHANGED,
    AttemptStarted,
    CheckpointSaved,
    Failed,
    Failure,
    Finished,
    Frame,
    MessageLogged,
    MetricsRecorded,
    Progress,
    Stopped,
    StopReason,
)
from threadpoolctl import threadpool_info, threadpool_limits

# Checkpoints may take at most this share of a run's time.
_CHECKPOINT_TIME_SHARE = 0.02

# Those that the log names, one that is on its way there, and the next.
_CHECKPOINT_FILES = CHECKPOINTS_KEPT + 2

# Why a run can't begin or end though nothing is broken, and the failure's reason.
_REASONS: dict[type[Exception], str] = {
    DeviceUnavailable: "DEVICE_UNAVAILABLE",
    RunnerUnavailable: "RUNNER_UNAVAILABLE",
    Diverged: "DIVERGED",
    NothingToLearn: "NOTHING_TO_LEARN",
}

Send = Callable[[Frame], None]
Stops = queue.SimpleQueue[StopReason]


class DataChanged(Exception):
    """A data set's file was written to or replaced while the run read it, so the run's state can't be trusted."""


def run_attempt(attempt: Attempt, send: Send, stops: Stops) -> None:
    """Train as ``attempt`` says and ``send`` frames, until the run ends or ``stops`` holds a reason to stop.

    The last frame is `Finished`, `Failed` or `Stopped`, sent when all is on disk and the device is free. Raises
    `DataChanged`, after a warning, where another attempt has to go on from the last checkpoint.
    """
    last: Finished | Stopped | Failed
    try:
        last = _ended(attempt, send, stops)
    except tuple(_REASONS) as error:
        last = _failed(ErrorKind.PRECONDITION_FAILED, _REASONS[type(error)], str(error))
    except DataChanged as error:
        send(MessageLogged("WARNING", str(error)))
        raise
    except _Unsound as error:
        last = _failed(ErrorKind.DATA_LOSS, error.reason, str(error))
    except MemoryError as error:
        text = f"the device's memory is too small for this run: {error}"
        last = _failed(ErrorKind.RESOURCE_EXHAUSTED, "DEVICE_MEMORY", text)
    except OSError as error:
        trouble = trouble_of(error)
        kind = trouble.kind if trouble else ErrorKind.RESOURCE_EXHAUSTED
        last = _failed(kind, "STORAGE", f"a file could not be read or written: {error.strerror}")
    send(last)


class _Unsound(Exception):
    """A file that the run needs is not what was stored; trying again would not help."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def _ended(attempt: Attempt, send: Send, stops: Stops) -> Finished | Stopped | Failed:
    """Resume the run, or begin it, anew if the environment has changed; free the device and return the last frame."""
    device = open_device(attempt.spec.device)
    threads = computing_threads(attempt.spec, attempt.thread_count)
    try:
        with threadpool_limits(threads if shares_products(attempt.spec) else 1):
            environment = environment_of(device, attempt.spec)
            if attempt.environment not in ("", environment):
                if attempt.spec.environment_change == "refuse":
                    return _environment_changed(attempt.environment, environment)
                attempt = replace(attempt, reason=ENVIRONMENT_CHANGED, checkpoints=())
            return _Run(attempt, device, environment, send).run(stops, threads)
    finally:
        device.free()  # before the last frame is sent, which the server publishes


class _Run:
    """A run that is resumed or begun when this is made, which sends `AttemptStarted`, and its files and times."""

    def __init__(self, attempt: Attempt, device: Device, environment: str, send: Send) -> None:
        self._attempt = attempt
        self._environment = environment
        self._send = send
        self._verifier = Verifier()
        self._opened: dict[Path, FileIdentity] = {}
        self._state = self._restore(device)
        self._metrics_step = self._state.step
        self._metrics_time = self._save_time = time.monotonic()
        self._steps_per_second = 0.0
        self._save_interval = attempt.checkpoint_interval_seconds
        self._refused = False
        send(AttemptStarted(self._state.step, attempt.reason, _describe(device), environment))

    def run(self, stops: Stops, thread_count: int) -> Finished | Stopped:
        """Train to the end or until told to stop, and return the last frame."""
        for event in train(self._state, thread_count, self._attempt.kernels_directory):
            match event:
                case events.MetricsRecorded():
                    self._require_unchanged()
                    self._send(self._timed(event))
                case events.StoppedEarly():
                    self._send(MessageLogged("INFO", f"the run ends after step {event.step}: {event.reason}"))
                case events.StepEnded():
                    if not stops.empty():
                        reason = stops.get()
                        if reason is StopReason.DRAIN:
                            self._save()
                        return Stopped(reason)
                    if time.monotonic() - self._save_time >= self._save_interval and self._has_place():
                        self._save()
        return self._publish(stops)

    def _restore(self, device: Device) -> TrainingState:
        attempt, spec = self._attempt, self._attempt.spec
        source = self._source()
        train = self._open(spec.train_dataset, attempt.train_path, spec.train_sha256)
        validation = None
        if attempt.validation_path:
            validation = self._open(spec.validation.dataset, attempt.validation_path, spec.validation.sha256)
        test = None
        if attempt.test_path:
            test = self._open(spec.test.dataset, attempt.test_path, spec.test.sha256)
        examples = Examples.of(spec, train, validation, source.model if source else None, test)
        for saved in self._attempt.checkpoints:
            try:
                checkpoint = load_checkpoint(self._attempt.checkpoint_path(saved.step), saved.sha256)
                check_environment(checkpoint, self._environment)
                return TrainingState.restore(device, spec, examples, checkpoint)
            except (StateFileError, OSError) as error:
                self._send(MessageLogged("WARNING", f"the checkpoint of step {saved.step} is unusable: {error}"))
        return TrainingState.initial(device, spec, examples, source)

    def _source(self) -> TrainedModel | None:
        warm_start = self._attempt.spec.warm_start
        if not (warm_start and self._attempt.source_path):
            return None
        try:
            return load_trained(self._attempt.source_path, warm_start.sha256)
        except (StateFileError, OSError) as error:
            if trouble_of(error):
                raise
            raise _Unsound("MODEL_DAMAGED", model_damage(warm_start.model, error)) from error

    def _open(self, name: str, path: Path, sha256: str) -> Dataset:
        try:
            self._opened[path] = FileIdentity.of(path)  # before the check, so that a change during it counts
            self._verifier.check(path, sha256)
            return open_dataset(path)
        except (DataError, FileDamaged, OSError) as error:
            if trouble_of(error):
                raise
            raise _Unsound("DATASET_DAMAGED", dataset_damage(name, error)) from error

    def _require_unchanged(self) -> None:
        """Raise `DataChanged` unless the data sets' files are the ones that were verified when the run began."""
        for path, identity in self._opened.items():
            if not path.exists() or FileIdentity.of(path) != identity:
                raise DataChanged(f"the data set {path.name} was changed while the run read it")

    def _timed(self, event: events.MetricsRecorded) -> MetricsRecorded:
        if event.split == "train":
            now = time.monotonic()
            self._steps_per_second = (event.step - self._metrics_step) / (now - self._metrics_time)
            self._metrics_step, self._metrics_time = event.step, now
        progress = Progress(
            step=event.step,
            step_count=event.step_count,
            epoch=event.epoch,
            epoch_count=event.epoch_count,
            rows_per_second=self._steps_per_second * self._attempt.spec.rows_per_step,
            remaining_seconds=(event.step_count - event.step) / self._steps_per_second,
        )
        return MetricsRecorded(event.split, progress, event.loss, event.accuracy, event.learning_rate)

    def _has_place(self) -> bool:
        """Return whether few enough checkpoints are there; the next look is after another interval.

        While the log can't name new ones, the queue removes none, and those that it does not name help nobody.
        """
        has_place = len(self._attempt.checkpoint_files()) < _CHECKPOINT_FILES
        if not has_place:
            self._save_time = time.monotonic()
        return has_place

    def _save(self) -> None:
        """Save a checkpoint, or go on and try after the next interval if the disk refuses; raises `DataChanged`."""
        self._require_unchanged()
        started = time.monotonic()
        step = self._state.step
        try:
            digest = save_checkpoint(self._attempt.checkpoint_path(step), self._state.checkpoint())
        except OSError as error:
            self._warn(f"the checkpoint of step {step} could not be written: {error.strerror}")
        else:
            self._refused = False
            # The queue removes older ones, once the log says that this one is there.
            self._send(CheckpointSaved(step, digest.sha256, digest.size_bytes))
        self._save_time = time.monotonic()
        cost = self._save_time - started
        self._save_interval = max(self._attempt.checkpoint_interval_seconds, cost / _CHECKPOINT_TIME_SHARE)

    def _publish(self, stops: Stops) -> Finished | Stopped:
        """Write the model as soon as the disk takes it, unless told to stop while waiting; raises `DataChanged`."""
        self._require_unchanged()
        trained = self._state.trained()
        if doubt := reason_to_doubt(self._state.device, self._attempt.spec, self._state.examples, trained.model):
            self._send(MessageLogged("WARNING", doubt))
        waits = waits_seconds()
        while True:
            try:
                return self._write_model(trained)
            except OSError as error:
                if trouble_of(error) is None:
                    raise
                self._warn(f"the model could not be written, and is tried again until it is: {error.strerror}")
            with suppress(queue.Empty):
                return Stopped(stops.get(timeout=next(waits)))

    def _write_model(self, trained: TrainedModel) -> Finished:
        partial = self._attempt.job_directory / "model.safetensors"
        provenance = {"training_job": self._attempt.job_id, "spec_digest": self._attempt.spec.digest}
        digest = save_model(partial, trained.model, trained.moments, trained.optimizer_step, provenance)
        partial.replace(self._attempt.models_directory / f"{digest.sha256}.safetensors")
        sync_directory(self._attempt.models_directory)
        model = trained.model
        return Finished(digest.sha256, model.sha256, len(model.parameters), model.schema)

    def _warn(self, message: str) -> None:
        """Send a warning that the disk refuses, once until a checkpoint has been written again."""
        if not self._refused:
            self._send(MessageLogged("WARNING", message))
        self._refused = True


def _failed(kind: ErrorKind, reason: str, message: str) -> Failed:
    return Failed(Failure(kind, reason, message))


def _environment_changed(before: str, now: str) -> Failed:
    text = (
        f"the run must go on where it began, but {difference(before, now)}; it began in ({before}), "
        f"this is ({now}). Train again; with environment_change restart a run begins again by itself"
    )
    return _failed(ErrorKind.PRECONDITION_FAILED, "ENVIRONMENT_CHANGED", text)


def _describe(device: Device) -> str:
    libraries = {f"{pool['internal_api']} {pool['version']}": pool["num_threads"] for pool in threadpool_info()}
    return ", ".join([device.description(), *(f"{name}, {threads} threads" for name, threads in libraries.items())])
