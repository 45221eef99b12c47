"""Training as a generator of frozen events; closing it stops the run, and nothing is lost but the run's time."""

import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from math import isfinite

import numpy as np
from mlpd.core.arrays import Array, Device, HostArray
from mlpd.core.batches import Batches, piece_rows
from mlpd.core.checkpoint import Checkpoint, CheckpointError, Counters
from mlpd.core.control import Monitor
from mlpd.core.examples import Examples
from mlpd.core.losses import LOSSES
from mlpd.core.metrics import evaluate
from mlpd.core.model import Model, Predictor, TrainedModel
from mlpd.core.network import Pass, initial_parameters, initial_statistics, views
from mlpd.core.optimizers import Average, Clipping, OptimizerState
from mlpd.core.spec import TrainingSpec
from mlpd.core.tasks import TASKS, MixUp, mixing_share

_EVALUATION_ROWS = 512


class Diverged(Exception):
    """The run has left the finite numbers; the message says where."""


@dataclass(frozen=True)
class StepEnded:
    """A step is complete: the state may be saved, or the run stopped, until the next event is asked for."""

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

    def __init__(
        self, device: Device, spec: TrainingSpec, examples: Examples, parameters: HostArray, statistics: HostArray
    ) -> None:
        xp = device.xp
        self.device, self.spec, self.examples = device, spec, examples
        self.step = self.optimizer_step = 0
        self.elapsed_seconds = 0.0
        self.monitor = Monitor()
        sizes, layers = spec.model.layer_sizes, spec.model.layers()
        self.capacity = capacity = piece_rows(spec)
        self._vectors = {"parameters": device.from_host(parameters), "statistics": device.from_host(statistics)}
        vectors = self._vectors["parameters"], self._vectors["statistics"]
        self._pass = Pass(device, layers, sizes[0], *vectors, capacity, trains=True, seed=spec.seed)
        self._gradient_sum = xp.zeros_like(self._pass.parameters) if spec.rows_per_step > capacity else None
        parts = views(self._pass.parameters, [layer.shapes for layer in layers])
        self._weights = [part for own in parts for part in own if part.ndim == 2]
        gradients = self._pass.gradients if self._gradient_sum is None else self._gradient_sum
        self._optimizer = OptimizerState(device, spec.optimizer.kind, self._pass.parameters, gradients)
        shape = (device, sizes[-1], capacity, parameters.dtype)
        clip_norm, average_decay = spec.optimizer.clip_norm, spec.optimizer.average_decay
        self._clipping = Clipping(device, clip_norm, parameters.dtype) if clip_norm else None
        self._average = Average(device, average_decay, self._vectors) if average_decay else None
        # One pass over all parameters less.
        self._rate_in_gradient = spec.optimizer.kind.is_linear and not clip_norm
        self._best: dict[str, Array] = {}
        self._loss = LOSSES[spec.loss.name](*shape, huber_delta=spec.loss.huber_delta)
        self._task = TASKS[spec.task](*shape, smoothing=spec.loss.label_smoothing)
        self._mixing = MixUp(device, sizes[0], *shape[1:]) if spec.loss.mixup_alpha else None
        self._correct_count = xp.zeros((), dtype=xp.int64)
        self._loss_sum = xp.zeros((), dtype=xp.float64)
        self._rows_seen = 0

    @classmethod
    def initial(
        cls, device: Device, spec: TrainingSpec, examples: Examples, source: TrainedModel | None = None
    ) -> "TrainingState":
        """Return the state before the first step: drawn from the seed, or as ``spec.warm_start`` takes ``source``."""
        layers, dtype = spec.model.layers(), spec.model.dtype
        if source is None:
            parameters = initial_parameters(layers, spec.model.initializer, spec.seed, dtype)
            return cls(device, spec, examples, parameters, initial_statistics(layers, dtype))
        state = cls(device, spec, examples, source.model.parameters.copy(), source.model.statistics.copy())
        if spec.warm_start and spec.warm_start.full:
            state._fill(state._optimizer.moments, source.moments)
            state.optimizer_step = source.optimizer_step
        return state

    @classmethod
    def restore(cls, device: Device, spec: TrainingSpec, examples: Examples, checkpoint: Checkpoint) -> "TrainingState":
        """Return the state that `checkpoint` gave; raises `CheckpointError` for one of another spec."""
        counters, vectors = checkpoint.counters, checkpoint.vectors
        if counters.spec_digest != spec.digest:
            raise CheckpointError(f"the checkpoint must be of spec {spec.digest}, got {counters.spec_digest}")
        statistics = vectors.get("statistics", vectors["parameters"][:0])
        state = cls(device, spec, examples, vectors["parameters"].copy(), statistics.copy())
        state._fill(state._optimizer.moments, _under("moment", vectors))
        if state._average:
            state._fill(state._average.vectors, _under("average", vectors))
        if best := _under("best", vectors):
            state._best = {name: device.from_host(best.get(name, statistics[:0]).copy()) for name in state._vectors}
        state.step, state.optimizer_step = counters.step, counters.optimizer_step
        state.monitor, state.elapsed_seconds = counters.monitor, counters.elapsed_seconds
        state._rows_seen = counters.row_count
        state._loss_sum.fill(counters.loss_sum)
        state._correct_count.fill(counters.correct_count)
        return state

    def _fill(self, living: Mapping[str, Array], saved: Mapping[str, HostArray]) -> None:
        for name, vector in living.items():
            if len(vector):
                vector[...] = self.device.from_host(saved[name])

    def checkpoint(self) -> Checkpoint:
        """Return a copy of the state in host memory; raises `Diverged` when it is not finite."""
        counters = Counters(
            spec_digest=self.spec.digest,
            step=self.step,
            optimizer_step=self.optimizer_step,
            loss_sum=float(self._loss_sum),
            correct_count=int(self._correct_count),
            row_count=self._rows_seen,
            elapsed_seconds=self.elapsed_seconds,
            monitor=self.monitor,
        )
        averages = self._average.vectors if self._average else {}
        vectors = dict(self._vectors)
        for group, members in (("moment", self._optimizer.moments), ("average", averages), ("best", self._best)):
            vectors |= {f"{group}.{name}": vector for name, vector in members.items()}
        return Checkpoint(counters, {name: self._finite(vector) for name, vector in vectors.items() if len(vector)})

    def trained(self) -> TrainedModel:
        """Return a copy of the model to keep and of the optimizer's state; raises `Diverged` when it is not finite."""
        vectors = {name: self._finite(vector) for name, vector in (self._best or self._scored).items()}
        moments = {name: self._finite(vector) for name, vector in self._optimizer.moments.items()}
        return TrainedModel(self._model(vectors), moments, self.optimizer_step)

    def predictor(self) -> Predictor:
        """Return a predictor on the living weights, or on their average where there is one."""
        return Predictor(self.device, self._model(self._scored), _EVALUATION_ROWS)

    @property
    def _scored(self) -> Mapping[str, Array]:
        return self._average.vectors if self._average else self._vectors

    def _model(self, vectors: Mapping[str, Array]) -> Model:
        spec = self.spec
        loss, scaling = spec.loss, self.examples.scaling
        return Model(spec.model, spec.task, loss.name, **vectors, scaling=scaling, huber_delta=loss.huber_delta)

    def _finite(self, vector: Array) -> HostArray:
        host = self.device.to_host(vector)
        if not np.isfinite(host).all():
            raise Diverged(f"the parameters are not finite after step {self.step}; try a smaller learning rate")
        return host

    @np.errstate(all="ignore")  # what overflows is found in a report or a checkpoint, and ends the run with a reason
    def learn(self, batches: Batches, epoch: int, first: int, rows: int) -> None:
        """Make one step on ``rows`` rows from place ``first`` of ``epoch``'s order."""
        run, xp, spec = self._pass, self.device.xp, self.spec
        rate = self.learning_rate(self.step)
        scale = (rate if self._rate_in_gradient else 1.0) / rows
        gradients = run.gradients
        if self._gradient_sum is not None:
            gradients = self._gradient_sum
            gradients.fill(0)
        for start in range(0, rows, self.capacity):
            count = min(self.capacity, rows - start)
            inputs = run.inputs(count)
            piece = batches.read(epoch, first + start, count, inputs)
            targets = self._task.rows(piece.targets)
            if self._mixing:
                self._mixing(inputs, targets, mixing_share(spec.seed, self.step, start, spec.loss.mixup_alpha))
            outputs = run.forward(count, self.step, start)
            if self._task.counts_hits:
                self._task.count_hits(outputs, piece.targets, self._correct_count)
            self._loss(outputs, targets, piece.weights, run.output_gradient(count), self._loss_sum, scale)
            run.backward(count)
            if self._gradient_sum is not None:
                xp.add(gradients, run.gradients, out=gradients)
        self._move(gradients, rate)
        self._rows_seen += rows
        self.step += 1
        self.optimizer_step += 1

    def _move(self, gradients: Array, rate: float) -> None:
        if self._clipping:
            self._clipping(gradients)
        if decay := self.spec.optimizer.weight_decay:
            for weight in self._weights:
                self.device.xp.multiply(weight, 1.0 - rate * decay, out=weight)
        self._optimizer.update(1.0 if self._rate_in_gradient else rate, self.optimizer_step)
        if self._average:
            self._average.update(self._vectors, self.step)

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of step number ``step``."""
        schedule = self.spec.schedule
        share = schedule.shape.share(step, self.spec.step_count(self.examples.row_count))
        return schedule.learning_rate * share * self.monitor.rate_share

    def report(self, epoch: int) -> MetricsRecorded:
        """Return the means since the last report and start new ones: the run's one wait for the device.

        Raises `Diverged` as `metrics` does.
        """
        loss = float(self._loss_sum) / self._rows_seen
        accuracy = int(self._correct_count) / self._rows_seen if self._task.counts_hits else None
        metrics = self.metrics("train", epoch, loss, accuracy)
        self._loss_sum.fill(0)
        self._correct_count.fill(0)
        self._rows_seen = 0
        return metrics

    def metrics(self, split: str, epoch: int, loss: float, accuracy: float | None) -> MetricsRecorded:
        """Return a report at the current step; raises `Diverged` when the loss is not finite."""
        if not isfinite(loss):
            raise Diverged(f"the {split} loss is {loss} at step {self.step}; try a smaller learning rate")
        return MetricsRecorded(
            split=split,
            step=self.step,
            step_count=self.spec.step_count(self.examples.row_count),
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
            self._best = {name: vector.copy() for name, vector in self._scored.items()}

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


def train(state: TrainingState) -> Generator[Event, None, None]:
    """Train ``state`` to the end of its spec, yielding `StepEnded` after every step, reports just before it.

    Rows are visited in an order that depends on (seed, epoch) alone. A run resumed from a checkpoint taken at
    any `StepEnded` repeats the rest bit for bit, but for a time limit. Raises `Diverged`.
    """
    spec, validation = state.spec, state.examples.validation
    row_count, size = len(state.examples.train), spec.rows_per_step
    steps_per_epoch = -(-row_count // size)
    predictor = state.predictor() if validation else None
    time_spent = _Stopwatch(state.elapsed_seconds)
    with Batches(state.device, spec, state.examples, state.capacity, state.step) as batches:
        while state.step < spec.epoch_count * steps_per_epoch:
            if reason := state.reason_to_stop():
                yield StoppedEarly(state.step, reason)
                return
            epoch, index = divmod(state.step, steps_per_epoch)
            first = index * size
            state.learn(batches, epoch, first, min(size, row_count - first))
            last = index + 1 == steps_per_epoch
            epochs_done = epoch + last
            if last or state.step % spec.metrics_interval_steps == 0:
                yield state.report(epochs_done)
            due = epochs_done % spec.validation.interval_epochs == 0 or epochs_done == spec.epoch_count
            if last and due and validation and predictor:
                *_, counts = evaluate(predictor, validation)
                scores = state.metrics("validation", epochs_done, counts.loss, counts.accuracy)
                yield scores
                state.take_note(scores)
            if spec.time_limit_seconds:
                state.elapsed_seconds = time_spent()
            yield StepEnded(state.step, epochs_done)


class _Stopwatch:
    def __init__(self, elapsed_seconds: float) -> None:
        self._start = time.monotonic() - elapsed_seconds

    def __call__(self) -> float:
        return time.monotonic() - self._start


def _under(group: str, vectors: Mapping[str, HostArray]) -> dict[str, HostArray]:
    prefix = f"{group}."
    return {name.removeprefix(prefix): vector for name, vector in vectors.items() if name.startswith(prefix)}
