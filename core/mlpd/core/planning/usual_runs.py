"""Compiles the kernels of usual runs and predictions before these are asked for."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from mlpd.core.data.augmentation import AugmentationSpec
from mlpd.core.devices.arrays import ByColumns
from mlpd.core.execution.compiled import CompiledRunner
from mlpd.core.models.metrics import EVALUATION_ROWS
from mlpd.core.models.model import Model
from mlpd.core.models.predictor import CompiledPredictor
from mlpd.core.network.architecture import ModelSpec, parameter_count, statistic_count
from mlpd.core.optimization.optimizers import Adam, Sgd
from mlpd.core.planning.explanation import noise
from mlpd.core.plans.plan import Variant
from mlpd.core.spec.split import best_blocks
from mlpd.core.spec.training import LossSpec, OptimizerSpec, ScheduleSpec, TrainingSpec
from mlpd.core.steps.examples import Examples
from mlpd.core.steps.program import Blocks
from mlpd.core.training.validation import Validation

_ROWS = 1024
_IMAGES = AugmentationSpec(28, 28, 1.0, 10.0, 0.1, 0.1, 0.5, 2.0)


def usual_runs() -> Iterator[tuple[TrainingSpec, str]]:
    """Yield specs and types of inputs; together, the networks have all that those of the presets have."""
    wide = ModelSpec.plain((784, 532, 10), input_scale=1 / 255)
    dropping = replace(wide, dropout_rates=(0.3,))
    deep = ModelSpec.plain((784, 1024, 512, 10), input_scale=1 / 255)
    narrow = ModelSpec.plain((50, 256, 128, 2), standardize_inputs=True)
    adamw = OptimizerSpec(Adam(), weight_decay=0.1)
    optimizers = OptimizerSpec(Sgd()), OptimizerSpec(Adam()), adamw
    runs: list[tuple[ModelSpec, OptimizerSpec, dict[str, Any], str]] = [
        (dropping, adamw, {"loss": LossSpec(label_smoothing=0.05)}, "uint8"),
        (deep, adamw, {"loss": LossSpec(label_smoothing=0.05), "augmentation": _IMAGES}, "uint8"),
    ]
    for optimizer in optimizers:
        runs += [(model, optimizer, {}, dtype) for model, dtype in ((wide, "uint8"), (narrow, "float32"))]
    for model, optimizer, changes, dtype in runs:
        spec = TrainingSpec(
            model=model,
            train_dataset="",
            train_sha256="",
            batch_size=128,
            epoch_count=1,
            optimizer=optimizer,
            schedule=ScheduleSpec(0.01),
            seed=0,
            device="cpu",
            metrics_interval_steps=1,
            runner="compiled",
            **changes,
        )
        split, block_count = best_blocks(spec)
        yield replace(spec, split=split, block_count=block_count), dtype


def compile_usual_runs(directory: Path) -> None:
    """Fill ``directory`` with the kernels of usual runs and predictions; raises `OSError` and `RunnerUnavailable`."""
    for spec, dtype in usual_runs():
        examples = noise(spec, _ROWS, dtype)
        step = Variant(spec.batch_size, 0, is_first=True, is_last=True, flushes=False)
        with closing(CompiledRunner(Blocks(ByColumns(), spec, examples), 1, directory)) as runner:
            runner.load(step)
            runner.load(step._replace(flushes=True))
        scorer = Validation(ByColumns(), spec, examples.train, examples.scaling)
        with closing(CompiledRunner(scorer, 1, directory)) as runner:
            runner.load(step._replace(rows=EVALUATION_ROWS))
        _predict(spec, examples, directory)


def _predict(spec: TrainingSpec, examples: Examples, directory: Path) -> None:
    """Compile the kernels of predictions for one row, a few and many."""
    layers = spec.model.layers()
    parameters, statistics = (
        np.zeros(count, spec.model.dtype) for count in (parameter_count(layers), statistic_count(layers))
    )
    model = Model(spec.model, spec.task, spec.loss.kind, parameters, statistics, examples.scaling)
    with closing(CompiledPredictor(model, EVALUATION_ROWS, kernels=directory)) as predictor:
        for rows in (1, 2, EVALUATION_ROWS):
            predictor.forward(examples.train.inputs[:rows])
