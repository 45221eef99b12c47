"""Training as a generator of frozen events; closing it stops the run, and nothing is lost but the run's time."""

from collections.abc import Generator
from dataclasses import dataclass
from math import isfinite

import numpy as np
from mlpd.core.arrays import Array, Device
from mlpd.core.checkpoint import Checkpoint, CheckpointError, Counters
from mlpd.core.data import Dataset
from mlpd.core.losses import OneHot, SoftmaxCrossEntropy
from mlpd.core.metrics import evaluate
from mlpd.core.model import Classifier, Model
from mlpd.core.network import Pass, initial_parameters, multilayer_perceptron, views
from mlpd.core.optimizers import Adam, Optimizer, Sgd
from mlpd.core.random import permutation
from mlpd.core.schedules import Schedule, constant, warmup_cosine
from mlpd.core.spec import ScheduleSpec, SgdSpec, TrainingSpec

# A larger batch runs in pieces of this many rows whose gradients are summed, so that memory does not
# grow with it and a piece's activations stay near the processor.
_PIECE_ROWS = 512
_PIECE_VALUES = 2**22  # of the widest layer
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
    """Mean loss (nats) and accuracy: of the training rows since the last report, or of all validation rows.

    ``step`` and ``epoch`` are counts of what is done.
    """

    split: str
    step: int
    step_count: int
    epoch: int
    epoch_count: int
    loss: float
    accuracy: float
    learning_rate: float


Event = StepEnded | MetricsRecorded


class TrainingState:
    """All that changes in a run. Not for use by two threads; `initial` and `restore` make one."""

    def __init__(self, device: Device, spec: TrainingSpec, row_count: int, parameters: Array) -> None:
        xp = device.xp
        self.device, self.spec, self.row_count = device, spec, row_count
        sizes = spec.model.layer_sizes
        capacity = _piece_rows(spec)
        layers = multilayer_perceptron(sizes)
        self.step = 0
        self._pass = Pass(device, layers, sizes[0], parameters, capacity, trains=True)
        self._gradient_sum = xp.zeros_like(parameters) if spec.batch_size > capacity else None
        self._weights = [own[0] for own in views(parameters, layers) if own]
        self._optimizer = _optimizer(device, spec, parameters)
        self._schedule = _schedule(spec.schedule, spec.step_count(row_count))
        self._loss = SoftmaxCrossEntropy(device, sizes[-1], capacity, parameters.dtype)
        self._one_hot = OneHot(device, sizes[-1], capacity)
        self._predicted = xp.empty((capacity,), dtype=xp.int64)
        self._hits = xp.empty((capacity,), dtype=xp.int64)
        self._hit_sum, self._correct_count = (xp.zeros((), dtype=xp.int64) for _ in range(2))
        self._loss_sum = xp.zeros((), dtype=xp.float64)
        self._rows_seen = 0

    @classmethod
    def initial(cls, device: Device, spec: TrainingSpec, row_count: int) -> "TrainingState":
        """Return the state before the first step on ``row_count`` rows."""
        parameters = initial_parameters(spec.model.layer_sizes, spec.model.initializer, spec.seed)
        return cls(device, spec, row_count, device.from_host(parameters))

    @classmethod
    def restore(cls, device: Device, spec: TrainingSpec, row_count: int, checkpoint: Checkpoint) -> "TrainingState":
        """Return the state that `checkpoint` gave; raises `CheckpointError` for one of another spec."""
        counters = checkpoint.counters
        if counters.spec_digest != spec.digest:
            raise CheckpointError(f"the checkpoint must be of spec {spec.digest}, got {counters.spec_digest}")
        state = cls(device, spec, row_count, device.from_host(checkpoint.vectors["parameters"].copy()))
        for name, vector in state._optimizer.state.items():
            vector[...] = device.from_host(checkpoint.vectors[name])
        state.step, state._rows_seen = counters.step, counters.row_count
        state._loss_sum.fill(counters.loss_sum)
        state._correct_count.fill(counters.correct_count)
        return state

    def checkpoint(self) -> Checkpoint:
        """Return a copy of the state in host memory; raises `Diverged` when it is not finite."""
        counters = Counters(
            spec_digest=self.spec.digest,
            step=self.step,
            loss_sum=float(self._loss_sum),
            correct_count=int(self._correct_count),
            row_count=self._rows_seen,
        )
        state = {name: self.device.to_host(vector) for name, vector in self._optimizer.state.items()}
        return Checkpoint(counters, {"parameters": self.model().parameters, **state})

    def model(self) -> Model:
        """Return a copy of the model in host memory; raises `Diverged` when it is not finite."""
        parameters = self.device.to_host(self._pass.parameters)
        if not np.isfinite(parameters).all():
            raise Diverged(f"the parameters are not finite after step {self.step}; try a smaller learning rate")
        return Model(self.spec.model.layer_sizes, self.spec.model.input_scale, parameters)

    def classifier(self) -> Classifier:
        """Return a classifier on the living parameters."""
        model = Model(self.spec.model.layer_sizes, self.spec.model.input_scale, self._pass.parameters)
        return Classifier(self.device, model, _EVALUATION_ROWS)

    def learn(self, batch: "_Batch") -> None:
        """Make one step on a mini-batch."""
        run, xp = self._pass, self.device.xp
        gradients = run.gradients
        if self._gradient_sum is not None:
            gradients = self._gradient_sum
            gradients.fill(0)
        for start in range(0, batch.rows, run.capacity):
            rows = min(run.capacity, batch.rows - start)
            labels = batch.read(start, rows, run.inputs(rows))
            logits = run.forward(rows)
            self._count(logits, labels, rows)
            targets = self._one_hot(labels)
            self._loss(logits, targets, run.output_gradient(rows), self._loss_sum, 1.0 / batch.rows)
            run.backward(rows)
            if self._gradient_sum is not None:
                xp.add(gradients, run.gradients, out=gradients)
        rate = self._schedule(self.step)
        if decay := self.spec.optimizer.weight_decay:
            for weight in self._weights:
                xp.multiply(weight, 1.0 - rate * decay, out=weight)
        self._optimizer.update(run.parameters, gradients, rate, self.step)
        self._rows_seen += batch.rows
        self.step += 1

    def report(self, epoch: int) -> MetricsRecorded:
        """Return the means since the last report and start new ones: the run's one wait for the device.

        Raises `Diverged` as `metrics` does.
        """
        loss = float(self._loss_sum) / self._rows_seen
        metrics = self.metrics("train", epoch, loss, int(self._correct_count) / self._rows_seen)
        self._loss_sum.fill(0)
        self._correct_count.fill(0)
        self._rows_seen = 0
        return metrics

    def metrics(self, split: str, epoch: int, loss: float, accuracy: float) -> MetricsRecorded:
        """Return a report at the current step; raises `Diverged` when the loss is not finite."""
        if not isfinite(loss):
            raise Diverged(f"the {split} loss is {loss} at step {self.step}; try a smaller learning rate")
        return MetricsRecorded(
            split=split,
            step=self.step,
            step_count=self.spec.step_count(self.row_count),
            epoch=epoch,
            epoch_count=self.spec.epoch_count,
            loss=loss,
            accuracy=accuracy,
            learning_rate=self._schedule(self.step - 1),
        )

    def _count(self, logits: Array, labels: Array, rows: int) -> None:
        xp, predicted, hits = self.device.xp, self._predicted[:rows], self._hits[:rows]
        xp.argmax(logits, axis=1, out=predicted)
        xp.equal(predicted, labels, out=hits)
        xp.sum(hits, out=self._hit_sum)
        xp.add(self._correct_count, self._hit_sum, out=self._correct_count)


def train(state: TrainingState, data: Dataset, validation: Dataset | None) -> Generator[Event, None, None]:
    """Train ``state`` to the end of its spec, yielding `StepEnded` after every step, reports just before it.

    Rows are visited in an order that depends on (seed, epoch) alone. A run resumed from a checkpoint taken at
    any `StepEnded` repeats the rest bit for bit. Raises `Diverged`.
    """
    spec = state.spec
    steps_per_epoch = spec.steps_per_epoch(state.row_count)
    reader = _Reader(state, data)
    classifier = state.classifier() if validation else None
    while state.step < spec.step_count(state.row_count):
        epoch, done = divmod(state.step, steps_per_epoch)
        reader.shuffle(epoch)
        for index in range(done, steps_per_epoch):
            state.learn(reader.batch(index))
            last = index + 1 == steps_per_epoch
            epochs_done = epoch + last
            if last or state.step % spec.metrics_interval_steps == 0:
                yield state.report(epochs_done)
            if last and validation and classifier:
                *_, counts = evaluate(classifier, validation)
                yield state.metrics("validation", epochs_done, counts.loss, counts.accuracy)
            yield StepEnded(state.step, epochs_done)


class _Reader:
    """Brings rows to the device in an epoch's order; data stay in their own type until they are gathered."""

    def __init__(self, state: TrainingState, data: Dataset) -> None:
        spec, xp = state.spec, state.device.xp
        self.device, self.scale = state.device, spec.model.input_scale
        self.inputs = state.device.from_host(data.inputs)
        self.labels = state.device.from_host(data.labels.astype(np.int64))
        capacity = _piece_rows(spec)
        self.gathered = xp.empty((capacity, data.inputs.shape[1]), dtype=data.inputs.dtype)
        self.gathered_labels = xp.empty((capacity,), dtype=xp.int64)
        self.order: Array | None = None
        self._seed, self._batch_size, self._row_count = spec.seed, spec.batch_size, state.row_count

    def shuffle(self, epoch: int) -> None:
        """Draw the epoch's order; a batch of all rows needs none."""
        if self._batch_size < self._row_count:
            self.order = self.device.from_host(permutation(self._seed, epoch, self._row_count))

    def batch(self, index: int) -> "_Batch":
        """Return the epoch's mini-batch number ``index``."""
        start = index * self._batch_size
        return _Batch(self, start, min(self._batch_size, self._row_count - start))


@dataclass(frozen=True)
class _Batch:
    """Rows ``first`` to ``first + rows`` of an epoch's order."""

    reader: _Reader
    first: int
    rows: int

    def read(self, start: int, rows: int, inputs: Array) -> Array:
        """Write ``rows`` scaled rows to ``inputs`` and return their labels (rows,) int64."""
        reader, xp = self.reader, self.reader.device.xp
        chosen = slice(self.first + start, self.first + start + rows)
        if reader.order is None:
            raw, labels = reader.inputs[chosen], reader.labels[chosen]
        else:
            raw, labels, order = reader.gathered[:rows], reader.gathered_labels[:rows], reader.order[chosen]
            reader.device.gather(reader.inputs, order, raw)
            reader.device.gather(reader.labels, order, labels)
        xp.multiply(raw, reader.scale, out=inputs, dtype=inputs.dtype)
        return labels


def _piece_rows(spec: TrainingSpec) -> int:
    return min(spec.batch_size, _PIECE_ROWS, max(1, _PIECE_VALUES // max(spec.model.layer_sizes)))


def _optimizer(device: Device, spec: TrainingSpec, parameters: Array) -> Optimizer:
    kind = spec.optimizer.kind
    if isinstance(kind, SgdSpec):
        return Sgd(device, parameters, kind.momentum, kind.nesterov)
    return Adam(device, parameters, kind.beta1, kind.beta2, kind.epsilon)


def _schedule(schedule: ScheduleSpec, step_count: int) -> Schedule:
    if schedule.kind == "warmup_cosine":
        return warmup_cosine(schedule.learning_rate, schedule.warmup_steps, step_count)
    return constant(schedule.learning_rate)
