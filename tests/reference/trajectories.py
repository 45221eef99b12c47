"""One small problem, trained by us with every optimizer that others have too; losses step by step."""

from dataclasses import replace

import numpy as np
from mlpd.core.data.datasets import Dataset
from mlpd.core.devices.arrays import Cpu
from mlpd.core.network.architecture import ModelSpec
from mlpd.core.optimization.optimizers import AdaGrad, Adam, Optimizer, RmsProp, Sgd
from mlpd.core.spec.training import OptimizerSpec, ScheduleSpec, TrainingSpec
from mlpd.core.steps.examples import Examples
from mlpd.core.training.events import MetricsRecorded
from mlpd.core.training.loop import train
from mlpd.core.training.state import TrainingState

SIZES = (20, 16, 12, 4)
ROWS, BATCH_SIZE, EPOCHS = 160, 32, 40
STEPS = EPOCHS * ROWS // BATCH_SIZE
SEED = 7
CASES: dict[str, tuple[Optimizer, float, float]] = {  # optimizer, rate, weight decay
    "sgd": (Sgd(), 0.1, 0.0),
    "momentum": (Sgd(0.9), 0.02, 0.0),
    "nesterov": (Sgd(0.9, nesterov=True), 0.02, 0.0),
    "adam": (Adam(), 0.003, 0.0),
    "adamw": (Adam(), 0.003, 0.1),
    "rmsprop": (RmsProp(), 0.001, 0.0),
    "rmsprop momentum": (RmsProp(momentum=0.9), 0.0003, 0.0),
    "adagrad": (AdaGrad(), 0.02, 0.0),
}


def problem() -> Dataset:
    """Return four overlapping clouds of points."""
    random = np.random.default_rng(3)
    labels = random.integers(0, 4, ROWS)
    centres = random.normal(size=(4, SIZES[0]))
    return Dataset(centres[labels] + random.normal(size=(ROWS, SIZES[0])), labels)


def spec_of(case: str) -> TrainingSpec:
    """Return the run of a case, in float64."""
    kind, rate, decay = CASES[case]
    return TrainingSpec(
        model=replace(ModelSpec.plain(SIZES), activations=("relu", "tanh"), dtype="float64"),
        train_dataset="datasets/clouds",
        train_sha256="",
        batch_size=BATCH_SIZE,
        epoch_count=EPOCHS,
        optimizer=OptimizerSpec(kind, decay),
        schedule=ScheduleSpec(rate),
        seed=SEED,
        device="cpu",
        metrics_interval_steps=1,
    )


def our_losses(case: str) -> list[float]:
    """Return the mean loss of every mini-batch, before its step."""
    spec = spec_of(case)
    state = TrainingState.initial(Cpu(), spec, Examples.of(spec, problem(), None))
    return [event.loss for event in train(state) if isinstance(event, MetricsRecorded)]
