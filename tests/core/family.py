"""A family of small runs that between them use everything a spec can say, each with its data."""

from dataclasses import dataclass, replace

import numpy as np
from mlpd.core.data.augmentation import AugmentationSpec
from mlpd.core.data.datasets import Dataset
from mlpd.core.devices.arrays import Cpu
from mlpd.core.models.model import Model
from mlpd.core.network.architecture import ModelSpec, parameter_count, statistic_count
from mlpd.core.network.losses import Huber, MeanAbsolute, Poisson, SigmoidCrossEntropy
from mlpd.core.network.scaling import Scaling
from mlpd.core.network.tasks import TASKS as KINDS
from mlpd.core.network.tasks import mixing_share
from mlpd.core.optimization.optimizers import AdaGrad, Adam, Lion, RmsProp, Sgd
from mlpd.core.optimization.schedules import Exponential, Joined, OneCycle, Polynomial, Segment, Steps, WarmupCosine
from mlpd.core.plans.recording import RecordingDevice
from mlpd.core.spec.split import micro_batch_rows
from mlpd.core.spec.training import (
    EarlyStoppingSpec,
    LossSpec,
    OptimizerSpec,
    PlateauSpec,
    ScheduleSpec,
    TrainingSpec,
    ValidationSpec,
)
from mlpd.core.steps.batches import Feed, micro_batches
from mlpd.core.steps.examples import Examples
from mlpd.core.training.loop import train
from mlpd.core.training.state import TrainingState

ROWS = 70
INPUTS = 20  # images of 4 x 5
OUTPUTS = 3
MODEL = ModelSpec.plain((INPUTS, 9, 8, OUTPUTS), input_scale=1 / 255)
SPEC = TrainingSpec(
    model=MODEL,
    train_dataset="datasets/noise",
    train_sha256="",
    batch_size=16,
    epoch_count=3,
    optimizer=OptimizerSpec(Adam(), weight_decay=0.01),
    schedule=ScheduleSpec(0.01, WarmupCosine(3)),
    seed=5,
    device="cpu",
    metrics_interval_steps=2,
)
AUGMENTATION = AugmentationSpec(4, 5, 1.0, 10.0, 0.1, 0.1, 0.5, 2.0)
VALIDATION = ValidationSpec(dataset="datasets/other", sha256="")


def noise(task="multiclass", rows=ROWS, *, weighted=False, dtype="uint8", inputs=INPUTS, seed=1):
    """Return rows of which nothing can be learnt but by heart."""
    random = np.random.default_rng(seed)
    values = random.integers(0, 256, (rows, inputs)).astype(dtype)
    targets = {
        "multiclass": random.integers(0, OUTPUTS, rows),
        "binary": random.integers(0, 2, rows),
        "multilabel": random.integers(0, 2, (rows, OUTPUTS)).astype(np.float32),
        "regression": random.normal(size=(rows, OUTPUTS)),
        "counts": random.poisson(2.0, (rows, OUTPUTS)).astype(np.float32),
    }[task]
    weights = random.uniform(0.1, 3.0, rows).astype(np.float32) if weighted else None
    return Dataset(values, targets, weights)


def model_of(spec, task="multiclass", loss=None, scaling=None, seed=3):
    """Return a model of ``spec`` with random weights and statistics."""
    random, layers = np.random.default_rng(seed), spec.layers()
    parameters = random.normal(size=parameter_count(layers)).astype(spec.dtype)
    statistics = random.uniform(0.5, 2.0, statistic_count(layers)).astype(spec.dtype)
    scaling = scaling or Scaling(None, spec.input_scale)
    return Model(spec, task, loss or KINDS[task].losses[0](), parameters, statistics, scaling)


@dataclass(frozen=True)
class Run:
    """A spec, the rows to train on, and rows to validate on."""

    spec: TrainingSpec
    data: Dataset
    validation: Dataset | None = None

    def examples(self):
        return Examples.of(self.spec, self.data, self.validation)

    def start(self, device=None):
        return TrainingState.initial(device or Cpu(), self.spec, self.examples())

    def restore(self, checkpoint, device=None):
        return TrainingState.restore(device or Cpu(), self.spec, self.examples(), checkpoint)

    def but(self, **changes):
        return replace(self, spec=replace(self.spec, **changes))

    def compiled(self, split, block_count):
        return self.but(runner="compiled", split=split, block_count=block_count)

    def unvalidated(self):
        schedule = replace(self.spec.schedule, plateau=None)
        alone = self.but(validation=ValidationSpec(), early_stopping=None, schedule=schedule)
        return replace(alone, validation=None)


def run(*, task="multiclass", data=None, **changes):
    """Return the run of `SPEC` with ``changes``; `ModelSpec`'s fields among them are those of its model."""
    of_model = {name: changes.pop(name) for name in list(changes) if name in ModelSpec.__dataclass_fields__}
    targets = data or ("counts" if changes.get("loss") == LossSpec(Poisson()) else task)
    model = replace(SPEC.model, **of_model)
    if task == "binary":
        model = replace(model, layer_sizes=(*model.layer_sizes[:-1], 1))
    weighted = changes.pop("weighted", False)
    dtype = changes.pop("data_type", "uint8")
    held_out = changes.get("validation", ValidationSpec()).fraction > 0
    if not held_out:
        changes["validation"] = VALIDATION
    loss = KINDS[task].losses[0]()
    spec = replace(SPEC, model=model, task=task, **({"loss": LossSpec(loss)} | changes))
    other = None if held_out else noise(targets, 40, dtype=dtype, seed=2)
    return Run(spec, noise(targets, weighted=weighted, dtype=dtype), other)


def optimized(kind, rate=0.01, **choices):
    return {"optimizer": OptimizerSpec(kind, **choices), "schedule": ScheduleSpec(rate)}


JOINED = Joined((Segment(Polynomial(1.0, 0.1, 1.0), 3), Segment(Steps(4, 0.5), 6), Segment(Exponential(), 0)))

OPTIMIZERS: dict[str, Run] = {
    "adamw": run(),
    "sgd": run(**optimized(Sgd())),
    "momentum": run(**optimized(Sgd(0.9))),
    "nesterov": run(**optimized(Sgd(0.9, nesterov=True))),
    "rmsprop": run(**optimized(RmsProp(0.9))),
    "rmsprop with momentum": run(**optimized(RmsProp(0.9, momentum=0.5), 0.002)),
    "adagrad": run(**optimized(AdaGrad())),
    "lion": run(**optimized(Lion(), 0.001)),
    "clipped and averaged": run(**optimized(Sgd(0.9), clip_norm=0.5, average_decay=0.9)),
}
LAYERS: dict[str, Run] = {
    "layer norm": run(normalization="layer", activations=("gelu", "softplus")),
    "batch norm": run(normalization="batch", activations=("silu", "leaky_relu")),
    "dropout": run(input_dropout_rate=0.1, dropout_rates=(0.5, 0.25), activations=("tanh", "elu")),
    "all layers at once": run(
        normalization="batch", dropout_rates=(0.2, 0.0), activations=("sigmoid", "identity"), initializer="orthogonal"
    ),
    "averaged batch norm": run(normalization="batch", **optimized(Adam(), average_decay=0.99)),
    "accumulated batch norm": run(normalization="batch", batch_size=8, accumulation_steps=3, **optimized(Sgd(0.9))),
    "one layer": run(layer_sizes=(INPUTS, OUTPUTS), activations=(), dropout_rates=(), initializer="zeros"),
    "float64": run(dtype="float64", input_dropout_rate=0.1, normalization="layer"),
}
TASKS: dict[str, Run] = {
    "smoothed": run(loss=LossSpec(label_smoothing=0.1)),
    "mixed up": run(loss=LossSpec(mixup_alpha=0.3)),
    "weighted classes": run(loss=LossSpec(class_weights=(1.0, 2.0, 0.5))),
    "weighted rows": run(weighted=True, loss=LossSpec(label_smoothing=0.1, class_weights=(1.0, 2.0, 0.5))),
    "binary": run(task="binary", loss=LossSpec(SigmoidCrossEntropy(), class_weights=(1.0, 3.0))),
    "multilabel": run(task="multilabel", loss=LossSpec(SigmoidCrossEntropy(), label_smoothing=0.1, mixup_alpha=0.2)),
    "regression": run(task="regression", weighted=True),
    "huber": run(task="regression", loss=LossSpec(Huber(0.5))),
    "mean absolute": run(task="regression", loss=LossSpec(MeanAbsolute())),
    "poisson": run(task="regression", loss=LossSpec(Poisson())),
    "standardised": run(standardize_inputs=True, input_scale=1.0, data_type="float16"),
}
COURSES: dict[str, Run] = {
    "full batch": run(batch_size=ROWS),
    "accumulated": run(accumulation_steps=2),
    "held out": run(validation=ValidationSpec(fraction=0.25, interval_epochs=2)),
    "plateau": run(
        schedule=ScheduleSpec(0.05, OneCycle(), PlateauSpec(0.5, 1, 0.1)), validation=ValidationSpec(fraction=0.3)
    ),
    "stopped early": run(
        epoch_count=6, early_stopping=EarlyStoppingSpec(1, 0.0, "accuracy"), **optimized(Adam(), average_decay=0.9)
    ),
    "joined schedules": run(schedule=ScheduleSpec(0.01, JOINED)),
}
AUGMENTED: dict[str, Run] = {
    "augmented": run(augmentation=AUGMENTATION),
    "augmented full batch": run(augmentation=AUGMENTATION, batch_size=ROWS, data_type="float32"),
}
PLAIN: dict[str, Run] = OPTIMIZERS | LAYERS | TASKS | COURSES  # steps of these stay on the device
FAMILY: dict[str, Run] = PLAIN | AUGMENTED


def events_of(state, **choices):
    """Train, with a `StepEnded` after every step."""
    return train(state, chunk_seconds=0, **choices)


def finish(state, **choices):
    return list(events_of(state, **choices))


def vectors(state):
    """Return the bits of everything that a run has learnt."""
    trained = state.trained()
    own = {"parameters": trained.model.parameters, "statistics": trained.model.statistics, **trained.moments}
    return {name: vector.tobytes() for name, vector in own.items()}


def brought(case, device, first_step=0, chunk_count=1):
    """Yield the micro-batches of a run from a step on, and where their rows are on ``device`` until the next."""
    spec, examples, recording = case.spec, case.examples(), RecordingDevice(device)
    feed = Feed(recording, spec, examples, micro_batch_rows(spec), 1, chunk_count)
    recording.take()
    with feed.open(first_step):
        for batch in micro_batches(spec, len(examples.train), first_step):
            feed.begin(batch.epoch)
            if feed.is_staged:
                feed.stage(batch.epoch, batch.first)
            numbers: dict[str, float] = {"step": batch.step, "first": batch.first, "first_row": batch.start}
            if alpha := spec.loss.mixup_alpha:
                numbers["after"] = batch.after
                mix = mixing_share(spec.seed, batch.step, alpha)
                numbers |= {"mix": mix, "mix_rest": 1.0 - mix}
            for chunk in range(feed.chunk_count):
                feed.bring(0, batch.rows, chunk)
            for op in recording.take():
                op.call(device)(numbers)
            yield batch, feed.slots[0]


def brought_steps(case, device, chunk_count=1):
    """Return the bytes of the inputs, labels, targets and weights of each step."""
    found: dict[int, list[list[np.ndarray]]] = {}
    for batch, rows in brought(case, device, chunk_count=chunk_count):
        own = [array for array in (rows.inputs, rows.labels, rows.targets, rows.weights) if array is not None]
        found.setdefault(batch.step, []).append([device.to_host(array)[: batch.rows] for array in own])
    return [[np.concatenate(parts).tobytes() for parts in zip(*own, strict=True)] for own in found.values()]


def scaled(case, inputs):
    """Return rows as a network takes them, in host memory."""
    out = np.empty(inputs.shape, case.spec.model.dtype)
    case.examples().scaling(np, inputs, out)
    return out
