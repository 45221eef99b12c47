"""Training as a generator of frozen events; closing it stops the run, and nothing is lost but the run's time."""

import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import numpy as np
from mlpd.core.devices.arrays import Array, ByColumns, Device, HostArray
from mlpd.core.devices.blas import one_product_thread, product_threads
from mlpd.core.execution.runners import Program, Runner, open_runner
from mlpd.core.models.model import Model, TrainedModel
from mlpd.core.network.network import initial_parameters, initial_statistics
from mlpd.core.network.tasks import TASKS
from mlpd.core.spec.training import TrainingSpec
from mlpd.core.state_file import StateFileError
from mlpd.core.steps.batches import cut
from mlpd.core.steps.examples import Examples
from mlpd.core.steps.program import Blocks, work_of
from mlpd.core.training.checkpoint import Checkpoint, Counters
from mlpd.core.training.control import Monitor
from mlpd.core.training.environment import environment_of
from mlpd.core.training.validation import Validation

CHUNK_SECONDS = 0.04  # of compiled steps without a look at anything else

_WEIGHTS = ("parameters", "statistics")
_MOMENT, _AVERAGE, _BEST = "moment.", "average.", "best."


class Diverged(Exception):
    """The run has left the finite numbers; the message says where."""


@dataclass(frozen=True)
class StepEnded:
    """Steps are complete: the state may be saved, or the run stopped, until the next event is asked for."""

    step: int
    epoch: int


@dataclass(frozen=True)
class MetricsRecorded:
    """Mean loss and accuracy: of the training rows since the last report, or of all validation rows.

    ``accuracy`` is None where no output is right or wrong. ``step`` and ``epoch`` are counts of what is done.
    """

    split: str
    step: int
    step_count: int
    epoch: int
    epoch_count: int
    loss: float
    accuracy: float | None
    learning_rate: float


@dataclass(frozen=True)
class StoppedEarly:
    """The run ends before its last epoch; ``reason`` is a sentence."""

    step: int
    reason: str


Event = StepEnded | MetricsRecorded | StoppedEarly


class TrainingState:
    """All that changes in a run. Not for use by two threads; `initial` and `restore` make one."""

    def __init__(self, device: Device, spec: TrainingSpec, examples: Examples) -> None:
        self.device, self.spec, self.examples = device, spec, examples
        self.environment = environment_of(device, spec)
        computing: Device = ByColumns() if spec.runner == "compiled" else device
        self.blocks = Blocks(computing, spec, examples)
        rows = examples.validation
        self.validation = None if rows is None else Validation(computing, spec, rows, examples.scaling)
        self.step = self.optimizer_step = 0
        self.elapsed_seconds = 0.0
        self.monitor = Monitor()
        self._best: dict[str, Array] = {}
        self._rows_seen = self._micro_batch_count = 0
        self._step_count = spec.step_count(examples.row_count)

    @classmethod
    def initial(
        cls, device: Device, spec: TrainingSpec, examples: Examples, source: TrainedModel | None = None
    ) -> "TrainingState":
        """Return the state before the first step: drawn from the seed, or as ``spec.warm_start`` takes ``source``."""
        layers, dtype = spec.model.layers(), spec.model.dtype
        state = cls(device, spec, examples)
        if source is None:
            parameters = initial_parameters(layers, spec.model.initializer, spec.seed, dtype)
            statistics = initial_statistics(layers, dtype)
        else:
            parameters, statistics = source.model.parameters, source.model.statistics
        for group in ("", *([_AVERAGE] if spec.optimizer.average_decay else [])):
            state.blocks.write(f"{group}parameters", parameters)
            state.blocks.write(f"{group}statistics", statistics)
        if source and spec.warm_start and spec.warm_start.full:
            for name, moment in source.moments.items():
                state.blocks.write(_MOMENT + name, moment)
            state.optimizer_step = source.optimizer_step
        return state

    @classmethod
    def restore(cls, device: Device, spec: TrainingSpec, examples: Examples, checkpoint: Checkpoint) -> "TrainingState":
        """Return the state that `checkpoint` gave; raises `StateFileError` for one of another spec."""
        counters, vectors = checkpoint.counters, checkpoint.vectors
        if counters.spec_digest != spec.digest:
            raise StateFileError(f"the checkpoint must be of spec {spec.digest}, got {counters.spec_digest}")
        state = cls(device, spec, examples)
        for name in state.blocks.names:
            if name in vectors:
                state.blocks.write(name, vectors[name])
        nothing = vectors["parameters"][:0]
        if _BEST + "parameters" in vectors:
            state._best = {name: device.from_host(vectors.get(_BEST + name, nothing).copy()) for name in _WEIGHTS}
        state.step, state.optimizer_step = counters.step, counters.optimizer_step
        state.monitor, state.elapsed_seconds = counters.monitor, counters.elapsed_seconds
        state._rows_seen = counters.row_count
        state.blocks.totals.loss_sum.fill(counters.loss_sum)
        state.blocks.totals.correct_count.fill(counters.correct_count)
        return state

    def checkpoint(self) -> Checkpoint:
        """Return a copy of the state in host memory; raises `Diverged` when it is not finite."""
        counters = Counters(
            spec_digest=self.spec.digest,
            environment=self.environment,
            step=self.step,
            optimizer_step=self.optimizer_step,
            loss_sum=float(self.blocks.totals.loss_sum),
            correct_count=int(self.blocks.totals.correct_count),
            row_count=self._rows_seen,
            elapsed_seconds=self.elapsed_seconds,
            monitor=self.monitor,
        )
        vectors = {name: self.blocks.read(name) for name in self.blocks.names}
        vectors |= {_BEST + name: vector for name, vector in self._best.items()}
        return Checkpoint(counters, {name: self._finite(vector) for name, vector in vectors.items() if len(vector)})

    def trained(self) -> TrainedModel:
        """Return a copy of the model to keep and of the optimizer's state; raises `Diverged` when it is not finite."""
        vectors = {name: self._finite(vector) for name, vector in (self._best or self._scored()).items()}
        moments = [name for name in self.blocks.names if name.startswith(_MOMENT)]
        kept = {name.removeprefix(_MOMENT): self._finite(self.blocks.read(name)) for name in moments}
        return TrainedModel(self._model(vectors), kept, self.optimizer_step)

    def _scored(self) -> dict[str, Array]:
        group = _AVERAGE if self.spec.optimizer.average_decay else ""
        return {name: self.blocks.read(group + name) for name in _WEIGHTS}

    def _model(self, vectors: Mapping[str, Array]) -> Model:
        spec = self.spec
        return Model(spec.model, spec.task, spec.loss.kind, **vectors, scaling=self.examples.scaling)

    def _finite(self, vector: Array) -> HostArray:
        host = self.device.to_host(vector)
        if not np.isfinite(host).all():
            raise Diverged(f"the parameters are not finite after step {self.step}; try a smaller learning rate")
        return host

    def learn(self, runner: Runner, step_count: int) -> None:
        """Make so many steps, all of one epoch."""
        spec, feed = self.spec, self.blocks.feed
        batches = cut(spec, len(self.examples.train), self.step, self.step + step_count)
        slots = (self._micro_batch_count + np.arange(len(batches.rows))) % len(feed.slots)
        rates = [self.learning_rate(self.step + i) for i in range(step_count)]
        work = work_of(spec, batches, rates, self.optimizer_step, slots)
        feed.begin(batches.epoch)
        if feed.is_staged:
            for i, first in enumerate(batches.first.tolist()):
                feed.stage(batches.epoch, first)
                runner.prepare(work.part(i, i + 1))()
        else:
            runner.prepare(work)()
        self._micro_batch_count += len(work)
        self._rows_seen += int(batches.rows.sum())
        self.step += step_count
        self.optimizer_step += step_count

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of step number ``step``."""
        schedule = self.spec.schedule
        share = schedule.shape.share(step, self._step_count)
        return schedule.learning_rate * share * self.monitor.rate_share

    def report(self, epoch: int) -> MetricsRecorded:
        """Return the means since the last report and start new ones: the run's one wait for the device.

        Raises `Diverged` as `metrics` does.
        """
        loss = float(self.blocks.totals.loss_sum) / self._rows_seen
        counted = TASKS[self.spec.task].counts_hits
        accuracy = int(self.blocks.totals.correct_count) / self._rows_seen if counted else None
        metrics = self.metrics("train", epoch, loss, accuracy)
        self.blocks.totals.loss_sum.fill(0)
        self.blocks.totals.correct_count.fill(0)
        self._rows_seen = 0
        return metrics

    def validate(self, runner: Runner, epoch: int) -> MetricsRecorded:
        """Return the scores of the weights as they are, or of their average where there is one.

        Raises `Diverged` when either is not finite.
        """
        assert self.validation
        vectors = self._scored()
        for vector in vectors.values():
            self._finite(vector)
        return self.metrics("validation", epoch, *self.validation.run(runner, vectors))

    def metrics(self, split: str, epoch: int, loss: float, accuracy: float | None) -> MetricsRecorded:
        """Return a report at the current step; raises `Diverged` when the loss is not finite."""
        if not isfinite(loss):
            raise Diverged(f"the {split} loss is {loss} at step {self.step}; try a smaller learning rate")
        return MetricsRecorded(
            split=split,
            step=self.step,
            step_count=self._step_count,
            epoch=epoch,
            epoch_count=self.spec.epoch_count,
            loss=loss,
            accuracy=accuracy,
            learning_rate=self.learning_rate(self.step - 1),
        )

    def take_note(self, validation: MetricsRecorded) -> None:
        """Let the monitor see a validation; keep a copy of the weights if they are the best so far."""
        spec = self.spec
        before = self.monitor.best_score
        self.monitor = self.monitor.after(
            validation.epoch, validation.loss, validation.accuracy, spec.early_stopping, spec.schedule.plateau
        )
        if self.monitor.best_score != before:
            self._best = {name: vector.copy() for name, vector in self._scored().items()}

    def reason_to_stop(self) -> str:
        """Say why the run should end here, or nothing."""
        stopping, limit = self.spec.early_stopping, self.spec.time_limit_seconds
        if stopping and self.monitor.stops(stopping):
            return (
                f"the validation {stopping.metric} has not improved for {stopping.patience} validations; "
                f"the weights of epoch {self.monitor.best_epoch} are kept"
            )
        if limit and self.elapsed_seconds >= limit:
            return f"the time limit of {limit:g} s is used up"
        return ""


def train(
    state: TrainingState,
    thread_count: int | None = None,
    kernels: Path | None = None,
    chunk_seconds: float = CHUNK_SECONDS,
) -> Generator[Event, None, None]:
    """Train ``state`` to the end of its spec, yielding `StepEnded` after chunks of steps, reports just before it.

    A compiled run has ``thread_count`` threads, or as many as NumPy's products would, and keeps its code in the
    directory ``kernels``; a chunk takes it about ``chunk_seconds``. None of these changes any results. Rows are visited
    in an order that depends on (seed, epoch) alone. A run resumed from a checkpoint taken at any `StepEnded` repeats
    the rest bit for bit, but for a time limit. Raises `Diverged`, and `RunnerUnavailable` before the first step.
    """
    spec = state.spec
    steps_per_epoch = spec.steps_per_epoch(state.examples.row_count)
    time_spent = _Stopwatch(state.elapsed_seconds)
    # Other runners come back after each step anyway.
    pace, count = _Pace(chunk_seconds if spec.runner == "compiled" else 0.0), spec.epoch_count * steps_per_epoch
    threads = thread_count or product_threads()  # as many as there are before products are limited to one
    with ExitStack() as stack:
        if spec.runner == "compiled":
            stack.enter_context(one_product_thread())  # which warps images

        def opened(program: Program) -> Runner:
            return stack.enter_context(closing(open_runner(spec.runner, program, state.device, threads, kernels)))

        runner = opened(state.blocks)
        scorer = opened(state.validation) if state.validation else None
        stack.enter_context(state.blocks.feed.open(state.step))
        while state.step < count:
            if reason := state.reason_to_stop():
                yield StoppedEarly(state.step, reason)
                return
            to_report, to_epoch = (
                interval - state.step % interval for interval in (spec.metrics_interval_steps, steps_per_epoch)
            )
            with pace.over(min(to_report, to_epoch)) as made:
                state.learn(runner, made)
            epochs_done, index = divmod(state.step, steps_per_epoch)
            last = index == 0
            if last or state.step % spec.metrics_interval_steps == 0:
                yield state.report(epochs_done)
            due = epochs_done % spec.validation.interval_epochs == 0 or epochs_done == spec.epoch_count
            if last and due and scorer:
                scores = state.validate(scorer, epochs_done)
                yield scores
                state.take_note(scores)
            if spec.time_limit_seconds:
                state.elapsed_seconds = time_spent()
            yield StepEnded(state.step, epochs_done)


class _Pace:
    """Says how many steps take about ``seconds``, from the time that those before took."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._fitting = seconds, 1

    @contextmanager
    def over(self, limit: int) -> Iterator[int]:
        """Give how many steps to make now, at most ``limit``, and take their time."""
        count, start = min(limit, self._fitting), time.monotonic()
        yield count
        seconds_each = max(time.monotonic() - start, 1e-9) / count
        self._fitting = max(1, min(int(self._seconds / seconds_each), 2 * count))


class _Stopwatch:
    def __init__(self, elapsed_seconds: float) -> None:
        self._start = time.monotonic() - elapsed_seconds

    def __call__(self) -> float:
        return time.monotonic() - self._start
