"""Standardised inputs: every column of mean 0 and deviation 1, whatever its size; constant ones zero."""

from dataclasses import replace
from fractions import Fraction
from math import copysign, sqrt

import numpy as np
import pytest
from mlpd.core.data.datasets import Dataset
from mlpd.core.devices.arrays import Cpu
from mlpd.core.models.model import load_model, save_model
from mlpd.core.models.predictor import Predictor
from mlpd.core.network.architecture import ModelSpec
from mlpd.core.network.scaling import Scaling
from mlpd.core.optimization.optimizers import Adam
from mlpd.core.spec.training import LossSpec, OptimizerSpec, ScheduleSpec
from mlpd.core.steps.examples import NothingToLearn

from ..conftest import needs_compiler
from .family import AUGMENTATION, Run, finish, run
from .strict_namespace import StrictCpu

RANDOM = np.random.default_rng(12)
NORMAL = RANDOM.normal(size=100)
NOW = 1_700_000_000_000_000_000
COLUMNS = {
    "nanoseconds half a millisecond apart": NOW + 500_000 * RANDOM.integers(0, 2, 100),
    "nanoseconds one apart": NOW + RANDOM.integers(0, 2, 100),
    "whole numbers of every size": RANDOM.integers(-(2**63), 2**63 - 1, 100),
    "whole numbers that differ by their range": RANDOM.permutation(np.arange(100) % 2 * (2**63 - 1) - 1),
    "small numbers beside a large one": np.where(np.arange(100) < 1, 1e9, NORMAL),
    "1e-50": 1e-50 * NORMAL,
    "1e-50 and far from zero": 1e-40 + 1e-50 * NORMAL,
    "1e-170": 1e-170 * NORMAL,
    "1e-310": 1e-310 * NORMAL,
    "1e300": 1e300 * NORMAL,
    "the whole range": np.where(NORMAL > 0, 1.7e308, -1.7e308),
    "the range of float32": (3e38 * np.sign(NORMAL)).astype(np.float32),
    "the smallest of float32": (1e-44 * RANDOM.integers(0, 9, 100)).astype(np.float32),
    "a mean far above the deviation": 1e6 + 1e-9 * NORMAL,
    "two neighbours": np.where(NORMAL > 0, 0.1, np.nextafter(0.1, 1)),
    "two neighbours in float32": np.where(NORMAL > 0, 7e7, 7e7 + 8).astype(np.float32),
    "int32 far from zero": (2_000_000_000 + RANDOM.integers(0, 3, 100)).astype(np.int32),
}


def exact(column):
    """Return the standardised column, exact but for a last root."""
    values = [Fraction(value) for value in column.tolist()]
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / len(values)
    return np.array([copysign(sqrt((value - mean) ** 2 / variance), value - mean) for value in values])


def scaled(scaling, inputs, dtype, device=None):
    device = device or Cpu()
    out = device.xp.zeros(inputs.shape, dtype=dtype)
    scaling.on(device)(device.xp, device.from_host(scaling.moved(inputs)), out)
    return device.to_host(out)


def standardised(inputs, dtype="float32", device=None):
    scaling = Scaling.of(ModelSpec.plain((inputs.shape[1], 2), standardize_inputs=True), inputs)
    return scaled(scaling, inputs, dtype, device)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_of_any_size_is_standardised(name, dtype):
    column = COLUMNS[name]
    found = standardised(column[:, None], dtype)[:, 0].astype(float)
    assert abs(found.mean()) < 1e-6
    assert found.std() == pytest.approx(1, abs=1e-6)
    assert np.allclose(found, exact(column), atol=1e-6)


@pytest.mark.parametrize("kind", ["i", "f"])
def test_columns_of_all_sizes_stand_beside_each_other(kind, device):
    columns = [c for c in COLUMNS.values() if (c.dtype.kind == "f") == (kind == "f")]
    inputs = np.stack([*columns, *columns[:1]], axis=1)
    inputs[:, -1] = inputs[0, 0]
    alone = [standardised(column[:, None].astype(inputs.dtype))[:, 0] for column in columns]
    found = standardised(inputs, device=device)
    assert np.allclose(found[:, :-1], np.stack(alone, axis=1), atol=1e-6)
    assert not found[:, -1].any()


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e-320, 1e300, -1.7e308, 3e38, 5, NOW, -(2**63)])
def test_a_constant_column_is_zero_in_every_row_and_stays_so(value):
    inputs = np.full((37, 2), value)
    inputs[:, 1] = np.arange(37)
    scaling = Scaling.of(ModelSpec.plain((2, 2), standardize_inputs=True), inputs)
    other = inputs.copy()
    other[:, 0] = 1
    for rows in (inputs, other):
        for dtype in ("float32", "float64"):
            assert not scaled(scaling, rows, dtype)[:, 0].any()


def test_rows_far_from_those_of_training_are_far_and_of_the_right_sign():
    inputs = np.array([[NOW], [NOW + 2]])
    scaling = Scaling.of(ModelSpec.plain((1, 2), standardize_inputs=True), inputs)
    other = np.array([[-(2**63)], [2**63 - 1], [NOW + 1]])
    expected = [-(2.0**63) - NOW - 1, 2.0**63 - NOW - 1, 0]
    assert np.allclose(scaled(scaling, other, "float64")[:, 0], expected, rtol=1e-12)
    assert np.allclose(scaled(scaling, other.astype(float), "float64")[:2, 0], expected[:2], rtol=1e-12)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "float16", "float32", "float64"])
def test_usual_columns_are_scaled_where_they_lie(dtype):
    inputs = RANDOM.integers(0, 256, (200, 4)).astype(dtype)
    scaling = Scaling.of(ModelSpec.plain((4, 2), standardize_inputs=True), inputs)
    assert scaling.moved(inputs) is inputs
    assert np.array_equal(np.asarray(scaling.shift), inputs.astype(float).mean(axis=0))


CLOCK = NOW + 500_000 * RANDOM.integers(0, 2, (70, 3))
TELLING = Dataset(CLOCK, (CLOCK.sum(axis=1) // 500_000) % 2)
LEARNER = run(
    layer_sizes=(3, 16, 2),
    activations=("tanh",),
    dropout_rates=(0.0,),
    standardize_inputs=True,
    input_scale=1.0,
    batch_size=16,
    epoch_count=60,
    optimizer=OptimizerSpec(Adam()),
    schedule=ScheduleSpec(0.03),
)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"loss": LossSpec(mixup_alpha=0.2)},
        pytest.param({"runner": "compiled", "block_count": 2}, marks=needs_compiler),
        pytest.param({"runner": "compiled", "split": "rows", "block_count": 3}, marks=needs_compiler),
    ],
)
def test_what_is_learnt_of_such_columns_is_predicted_after_saving(tmp_path, kernels, changes):
    case = Run(LEARNER.unvalidated().but(**changes).spec, TELLING)
    state = case.start()
    finish(state, kernels=kernels)
    trained = state.trained()
    digest = save_model(tmp_path / "model", trained.model, {}, 1, {})
    model = load_model(tmp_path / "model", digest.sha256)
    outputs = Predictor(Cpu(), model, 16).outputs(CLOCK)
    assert outputs.tobytes() == Predictor(Cpu(), trained.model, 16).outputs(CLOCK).tobytes()
    assert (outputs.argmax(axis=1) == TELLING.targets).mean() == 1
    again = replace(case, data=TELLING).restore(state.checkpoint())
    assert again.trained().model.sha256 == trained.model.sha256


def test_such_columns_give_the_same_bits_in_the_portable_subset():
    case = Run(LEARNER.unvalidated().spec, TELLING)
    states = [case.start(device) for device in (Cpu(), StrictCpu())]
    assert finish(states[0]) == finish(states[1])
    assert states[0].trained().model.sha256 == states[1].trained().model.sha256


def test_augmented_images_of_any_size_are_those_of_a_usual_one():
    case = run(augmentation=AUGMENTATION, standardize_inputs=True, input_scale=1.0).unvalidated()
    usual = case.data.inputs.astype(float)
    usual[:, 3] = 7
    losses = []
    for inputs in (usual, usual * 2.0**-200, usual * 2.0**900):
        state = replace(case, data=Dataset(inputs, case.data.targets)).start()
        losses.append([event.loss for event in finish(state) if hasattr(event, "loss")])
    assert np.allclose(losses[1], losses[0], rtol=1e-4)
    assert np.allclose(losses[2], losses[0], rtol=1e-4)


@pytest.mark.parametrize(("size", "scale"), [(1e-50, 1.0), (1e-30, 1e-20)])
def test_inputs_that_one_factor_leaves_nothing_of_end_a_run_before_its_first_step(size, scale):
    case = run(data_type="float64", input_scale=scale).unvalidated()
    small = replace(case, data=Dataset(case.data.inputs * size, case.data.targets))
    with pytest.raises(NothingToLearn, match="inputs times input_scale must be at least 1"):
        small.examples()
    Run(replace(small.spec, model=replace(small.spec.model, dtype="float64")), small.data).examples()
