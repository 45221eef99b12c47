"""Whatever breaks no rule can be trained, stopped after any step, and gone on with, bit for bit."""

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from mlpd.core.data.augmentation import AugmentationSpec
from mlpd.core.data.datasets import Dataset
from mlpd.core.data.inspection import DatasetInfo
from mlpd.core.devices.arrays import Cpu
from mlpd.core.models.metrics import evaluate
from mlpd.core.models.predictor import Predictor
from mlpd.core.network.activations import ACTIVATIONS
from mlpd.core.network.architecture import NORMALIZATIONS, ModelSpec, parameter_count
from mlpd.core.network.initializers import INITIALIZERS
from mlpd.core.network.losses import Huber
from mlpd.core.network.tasks import TASKS
from mlpd.core.optimization.optimizers import AdaGrad, Adam, Lion, RmsProp, Sgd
from mlpd.core.optimization.schedules import (
    Constant,
    Exponential,
    Joined,
    OneCycle,
    Polynomial,
    Segment,
    Steps,
    WarmupCosine,
)
from mlpd.core.spec.rules import find_violations
from mlpd.core.spec.split import SPLITS, largest_block_count
from mlpd.core.spec.training import (
    EarlyStoppingSpec,
    LossSpec,
    OptimizerSpec,
    PlateauSpec,
    ScheduleSpec,
    TrainingSpec,
    ValidationSpec,
)
from mlpd.core.steps.examples import Examples
from mlpd.core.training.events import StepEnded
from mlpd.core.training.state import Diverged, TrainingState

from ..conftest import SOAK, needs_compiler
from .family import events_of, finish

INPUTS, ROWS = 9, 23
FRACTION = st.sampled_from([0.0, 0.1, 0.5, 0.97])
OPTIMIZERS = st.one_of(
    st.builds(Sgd, FRACTION),
    st.just(Sgd(0.9, nesterov=True)),
    st.builds(Adam, FRACTION, FRACTION),
    st.builds(RmsProp, FRACTION, momentum=FRACTION),
    st.just(AdaGrad()),
    st.builds(Lion, FRACTION, FRACTION),
)
SIMPLE = st.one_of(
    st.just(Constant()),
    st.builds(Steps, st.integers(1, 5)),
    st.builds(Exponential, st.sampled_from([0.01, 1.0])),
    st.builds(Polynomial, st.sampled_from([0.5, 1.0, 3.0]), FRACTION, FRACTION),
    st.builds(WarmupCosine, st.integers(0, 4), FRACTION),
    st.builds(OneCycle, FRACTION, FRACTION, FRACTION),
)
SHAPES = SIMPLE | st.builds(
    Joined, st.lists(st.builds(Segment, SIMPLE, st.integers(0, 4)), min_size=1, max_size=3).map(tuple)
)
AUGMENTATIONS = st.builds(
    AugmentationSpec, st.just(3), st.just(3), FRACTION, st.just(20.0), FRACTION.filter(lambda x: x < 0.9), FRACTION, FRACTION
)  # fmt: skip


@st.composite
def specs(draw) -> TrainingSpec:
    task = draw(st.sampled_from(sorted(TASKS)))
    outputs = 1 if task == "binary" else 3
    hidden = draw(st.lists(st.integers(1, 6), max_size=3))
    each: dict[str, Any] = {"min_size": len(hidden), "max_size": len(hidden)}
    batch_norm = draw(st.sampled_from(sorted(NORMALIZATIONS)))
    model = ModelSpec(
        (INPUTS, *hidden, outputs),
        tuple(draw(st.lists(st.sampled_from(sorted(ACTIVATIONS)), **each))),
        tuple(draw(st.lists(FRACTION, **each))),
        draw(FRACTION),
        batch_norm,
        draw(st.sampled_from(sorted(INITIALIZERS))),
        1.0,
        draw(st.booleans()),
        draw(st.sampled_from(["float32", "float64"])),
    )
    kind = draw(st.sampled_from(TASKS[task].losses))
    loss = LossSpec(
        kind(draw(st.sampled_from([0.1, 1.0, 100.0]))) if kind is Huber else kind(),
        draw(FRACTION),
        draw(st.sampled_from([(), (1.0,) * max(outputs, 2), (0.0, *(2.0,) * max(outputs - 1, 1))])),
        draw(FRACTION),
    )
    return TrainingSpec(
        model=model,
        train_dataset="datasets/any",
        train_sha256="",
        batch_size=draw(st.integers(1, ROWS)),
        accumulation_steps=draw(st.integers(1, 3)),
        epoch_count=draw(st.integers(1, 3)),
        optimizer=OptimizerSpec(draw(OPTIMIZERS), draw(FRACTION), draw(st.sampled_from([0.0, 0.01, 5.0])), draw(FRACTION)),
        schedule=ScheduleSpec(0.01, draw(SHAPES), draw(st.none() | st.builds(PlateauSpec, st.just(0.5), st.just(1)))),
        seed=draw(st.integers(0, 2**63 - 1)),
        device="cpu",
        metrics_interval_steps=draw(st.integers(1, 9)),
        task=task,
        loss=loss,
        validation=ValidationSpec(fraction=draw(FRACTION), interval_epochs=draw(st.integers(1, 2))),
        augmentation=draw(st.none() | AUGMENTATIONS),
        early_stopping=draw(st.none() | st.builds(EarlyStoppingSpec, st.just(1))),
    )  # fmt: skip


def compiled(spec: TrainingSpec, split: str, block_count: int) -> TrainingSpec:
    """Return the spec, compiled, in as many blocks as it can be cut into, but no more than ``block_count``."""
    spec = replace(spec, runner="compiled", split=split)
    return replace(spec, block_count=min(block_count, largest_block_count(spec, split)))


def data_for(spec: TrainingSpec, dtype: str, weighted: bool) -> Dataset:
    random = np.random.default_rng(5)
    inputs = random.integers(0, 9, (ROWS, INPUTS)).astype(dtype)
    inputs[:, 0] = 4  # a column without any spread
    targets = random.integers(0, max(spec.model.layer_sizes[-1], 2), ROWS)
    if not TASKS[spec.task].has_classes:
        targets = random.integers(0, 2, (ROWS, spec.model.layer_sizes[-1])).astype(np.float32)
    return Dataset(inputs, targets, random.uniform(0, 2, ROWS) if weighted else None)


def info_of(data: Dataset) -> DatasetInfo:
    labels = data.targets.ndim == 1
    return DatasetInfo(
        sha256="",
        size_bytes=0,
        row_count=ROWS,
        input_size=INPUTS,
        dtype=data.inputs.dtype.name,
        target_dtype=data.targets.dtype.name,
        weighted=data.weights is not None,
        class_row_counts=tuple(np.bincount(data.targets.astype(int)).tolist()) if labels else (),
        target_size=0 if labels else data.targets.shape[1],
        target_range=(0.0, 1.0),
        whole_targets=True,
        input_range=(0.0, 8.0),
        whole_inputs=True,
        encoded_size=INPUTS,
    )


NUMBERS = st.sampled_from(["uint8", "float32", "float64", "int64"])
DIFFICULT = [HealthCheck.filter_too_much, HealthCheck.too_slow]


@settings(max_examples=80 * SOAK, suppress_health_check=DIFFICULT)
@given(specs(), NUMBERS, st.booleans(), st.integers(0, 40))
def test_a_spec_that_breaks_no_rule_trains_and_resumes(spec, dtype, weighted, stop_after):
    train_and_resume(spec, dtype, weighted, stop_after)


@needs_compiler
@settings(max_examples=15 * SOAK, suppress_health_check=DIFFICULT)
@given(
    st.builds(compiled, specs(), st.sampled_from(SPLITS), st.integers(1, 5)), NUMBERS, st.booleans(), st.integers(0, 40)
)
def test_a_compiled_run_trains_and_resumes_likewise(kernels, spec, dtype, weighted, stop_after):
    train_and_resume(spec, dtype, weighted, stop_after, kernels=kernels)


def train_and_resume(spec, dtype, weighted, stop_after, **choices):
    data = data_for(spec, dtype, weighted)
    assume(not find_violations(spec, info_of(data), None))
    assert TrainingSpec.from_json(spec.to_json()) == spec
    examples = Examples.of(spec, data, None)
    whole = TrainingState.initial(Cpu(), spec, examples)
    events, checkpoints = [], []
    try:
        for event in events_of(whole, **choices):
            events.append(event)
            if isinstance(event, StepEnded):
                checkpoints.append((len(events), whole.checkpoint()))
    except Diverged:
        return
    assert 1 <= len(checkpoints) <= spec.step_count(ROWS)
    seen, checkpoint = checkpoints[min(stop_after, len(checkpoints) - 1)]
    resumed = TrainingState.restore(Cpu(), spec, examples, checkpoint)
    assert finish(resumed, **choices) == events[seen:]
    trained = resumed.trained()
    assert trained.model.sha256 == whole.trained().model.sha256
    assert len(trained.model.parameters) == parameter_count(spec.model.layers())
    *_, counts = evaluate(Predictor(Cpu(), trained.model, 7), data, include_confusion=True, include_scores=True)
    assert counts.row_count == ROWS
    assert counts.scores is not None
