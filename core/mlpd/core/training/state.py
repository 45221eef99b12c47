"""All that changes in a run, and what can be done with it: steps, reports, validations, checkpoints."""

from collections.abc import Mapping
from dataclasses import replace
from math import isfinite

import numpy as np
from mlpd.core.devices.arrays import Device, HostArray
from mlpd.core.models.model import Model, TrainedModel
from mlpd.core.network.network import Weights, initial_parameters, initial_statistics
from mlpd.core.network.tasks import TASKS
from mlpd.core.optimization.state import StateVectors
from mlpd.core.plans.runner import Runner
from mlpd.core.spec.training import TrainingSpec
from mlpd.core.state_file import StateFileError
from mlpd.core.steps.batches import cut
from mlpd.core.steps.examples import Examples
from mlpd.core.steps.program import Blocks, work_of
from mlpd.core.training.checkpoint import Checkpoint, Counters
from mlpd.core.training.control import Monitor
from mlpd.core.training.environment import environment_of
from mlpd.core.training.events import MetricsRecorded
from mlpd.core.training.usefulness import advice_for
from mlpd.core.training.validation import Validation


class Diverged(Exception):
    """A loss or a parameter is not finite; the message says after which step."""


class TrainingState:
    """All that changes in a run, for one thread; `initial` and `restore` make it."""

    def __init__(self, device: Device, spec: TrainingSpec, examples: Examples) -> None:
        self.device, self.spec, self.examples = device, spec, examples
        self.environment = environment_of(device, spec)
        computing = device.for_compiled_code() if spec.runner == "compiled" else device
        self.blocks = Blocks(computing, spec, examples)
        self.validation, self.testing = (
            rows and Validation(computing, spec, rows, examples.scaling)
            for rows in (examples.validation, examples.test)
        )
        self.step = self.optimizer_step = 0
        self.elapsed_seconds = 0.0
        self.monitor = Monitor()
        self._best: Weights | None = None
        self._rows_seen = 0
        self._step_count = spec.step_count(examples.row_count)

    @classmethod
    def initial(
        cls, device: Device, spec: TrainingSpec, examples: Examples, source: TrainedModel | None = None
    ) -> "TrainingState":
        """Return the state before the first step, with weights drawn from the seed or taken from ``source``.

        If ``spec.warm_start`` is full, moments and the optimizer's count of steps are those of ``source``, too.
        """
        layers, dtype = spec.model.layers(), spec.model.dtype
        state = cls(device, spec, examples)
        if source is None:
            weights = Weights(
                initial_parameters(layers, spec.model.initializer, spec.seed, dtype), initial_statistics(layers, dtype)
            )
        else:
            weights = source.model.weights
        moments: Mapping[str, HostArray] = {}
        if source and spec.warm_start and spec.warm_start.full:
            moments, state.optimizer_step = source.moments, source.optimizer_step
        state.blocks.write(StateVectors(weights, moments, weights if spec.optimizer.average_decay else None))
        return state

    @classmethod
    def restore(cls, device: Device, spec: TrainingSpec, examples: Examples, checkpoint: Checkpoint) -> "TrainingState":
        """Return the state that ``checkpoint`` holds; raises `StateFileError` if that is of another spec."""
        counters, vectors = checkpoint.counters, checkpoint.vectors
        if counters.spec_digest != spec.digest:
            raise StateFileError(f"the checkpoint must be of spec {spec.digest}, got {counters.spec_digest}")
        state = cls(device, spec, examples)
        state.blocks.write(vectors)
        if vectors.best:
            state._best = vectors.best.map(lambda vector: device.from_host(vector.copy()))
        state.step, state.optimizer_step = counters.step, counters.optimizer_step
        state.monitor, state.elapsed_seconds = counters.monitor, counters.elapsed_seconds
        state._rows_seen = counters.rows_since_report
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
            rows_since_report=self._rows_seen,
            elapsed_seconds=self.elapsed_seconds,
            monitor=self.monitor,
        )
        vectors = replace(self.blocks.read(), best=self._best).map(self.device.to_host)
        self._require_finite(vectors)
        return Checkpoint(counters, vectors)

    def trained(self) -> TrainedModel:
        """Return copies of the model, with the best weights if they are kept, and of the optimizer's state.

        Raises `Diverged` when either is not finite.
        """
        spec, vectors = self.spec, self.blocks.read()
        kept = StateVectors(self._best or vectors.scored, vectors.moments).map(self.device.to_host)
        self._require_finite(kept)
        how = self.examples
        model = Model(spec.model, spec.task, spec.loss.kind, *kept.current, how.scaling, how.schema, how.target_scaling)
        return TrainedModel(model, kept.moments, self.optimizer_step)

    def _require_finite(self, vectors: StateVectors) -> None:
        """Raise `Diverged` unless all of ``vectors``, in host memory, are finite."""
        for name, vector in vectors.named().items():
            if not np.isfinite(vector).all():
                is_moment, own_name = name.startswith("moment."), name.rpartition(".")[2]
                what = f"the optimizer's {own_name} is" if is_moment else f"the {own_name} are"
                raise Diverged(f"{what} not finite after step {self.step}; {advice_for(self.spec, self.examples)}")

    def make_steps(self, runner: Runner, step_count: int) -> None:
        """Make ``step_count`` steps, which must all be of one epoch."""
        spec, feed = self.spec, self.blocks.feed
        batches = cut(spec, len(self.examples.train), self.step, self.step + step_count)
        slots = np.arange(len(batches.rows)) % len(feed.slots)
        rates = [self.learning_rate(self.step + i) for i in range(step_count)]
        work = work_of(spec, batches, rates, self.optimizer_step, slots)
        feed.begin(batches.epoch)
        if feed.is_staged:
            for i, first in enumerate(batches.first.tolist()):
                feed.stage(batches.epoch, first)
                runner.prepare(work.part(i, i + 1))()
        else:
            runner.prepare(work)()
            if self.device.runs_ahead and batches.epoch + 1 < spec.epoch_count:
                feed.look_ahead(batches.epoch + 1)
        self._rows_seen += int(batches.rows.sum())
        self.step += step_count
        self.optimizer_step += step_count

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of step number ``step``."""
        schedule = self.spec.schedule
        share = schedule.shape.share(step, self._step_count)
        return schedule.learning_rate * share * self.monitor.rate_share

    def report(self, epoch: int) -> MetricsRecorded:
        """Return the means over the rows since the last report and start new sums; waits for the device.

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
        """Return the validation scores of the current weights or, if the run keeps one, of their average.

        Raises `Diverged` when these weights or the loss are not finite.
        """
        assert self.validation
        weights = self.blocks.read_scored()
        self._require_finite(StateVectors(weights.map(self.device.to_host), {}))
        return self.metrics("validation", epoch, *self.validation.run(runner, weights))

    def test(self, runner: Runner, epoch: int) -> MetricsRecorded:
        """Return the test scores of the weights that are published; raises `Diverged` as `validate` does."""
        assert self.testing
        weights = self._best or self.blocks.read_scored()
        self._require_finite(StateVectors(weights.map(self.device.to_host), {}))
        return self.metrics("test", epoch, *self.testing.run(runner, weights))

    def metrics(self, split: str, epoch: int, loss: float, accuracy: float | None) -> MetricsRecorded:
        """Return a report at the current step; raises `Diverged` when the loss is not finite."""
        if not isfinite(loss):
            raise Diverged(f"the {split} loss is {loss} at step {self.step}; {advice_for(self.spec, self.examples)}")
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

    def note_validation(self, validation: MetricsRecorded) -> None:
        """Let the monitor see a validation; copy the weights that were validated if they are the best so far."""
        spec = self.spec
        before = self.monitor.best_score
        self.monitor = self.monitor.after(
            validation.epoch, validation.loss, validation.accuracy, spec.early_stopping, spec.schedule.plateau
        )
        if self.monitor.best_score != before:
            self._best = self.blocks.read_scored().map(lambda vector: vector.copy())

    def reason_to_stop(self) -> str:
        """Return why the run should end here, or an empty text."""
        stopping, limit = self.spec.early_stopping, self.spec.time_limit_seconds
        if stopping and self.monitor.stops(stopping):
            return (
                f"the validation {stopping.metric} has not improved for {stopping.patience} validations; "
                f"the weights of epoch {self.monitor.best_epoch} are kept"
            )
        if limit and self.elapsed_seconds >= limit:
            return f"the time limit of {limit:g} s is used up"
        return ""
