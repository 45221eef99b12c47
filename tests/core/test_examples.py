"""From data sets to examples: held out, weighted, scaled."""

import numpy as np
import pytest
from mlpd.core.data.splits import held_out_rows
from mlpd.core.network.architecture import ModelSpec
from mlpd.core.network.scaling import Scaling
from mlpd.core.network.tasks import TASKS
from mlpd.core.spec.training import LossSpec, ValidationSpec

from .family import ROWS, noise, run


def held_out(fraction=0.25, seed=5, **changes):
    case = run(validation=ValidationSpec(fraction=fraction), seed=seed, **changes)
    return case, case.examples()


def test_every_row_is_trained_on_or_held_out():
    case, examples = held_out(weighted=True)
    assert examples.validation is not None
    assert (len(examples.train), len(examples.validation), examples.row_count) == (52, 18, ROWS)
    rows = np.concatenate([examples.train.inputs, examples.validation.inputs])
    assert sorted(map(bytes, rows)) == sorted(map(bytes, case.data.inputs))
    assert case.spec.train_row_count(ROWS) == len(examples.train)


def test_rows_keep_their_targets_and_weights():
    case, examples = held_out(weighted=True)
    assert examples.validation is not None
    by_row = {bytes(row): index for index, row in enumerate(case.data.inputs)}
    for part in (examples.train, examples.validation):
        index = [by_row[bytes(row)] for row in part.inputs]
        assert np.array_equal(part.targets, case.data.targets[index])
        assert np.array_equal(part.weights, case.data.weights[index])


def test_the_choice_depends_on_the_seed_alone():
    choices = [held_out_rows(noise().targets, 20, seed) for seed in (1, 1, 2)]
    assert np.array_equal(choices[0], choices[1])
    assert not np.array_equal(choices[0], choices[2])


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5, 0.9])
def test_each_class_is_held_out_in_proportion(fraction):
    targets = np.repeat([0, 1, 2, 3], [500, 300, 150, 50])
    np.random.default_rng(0).shuffle(targets)
    chosen = held_out_rows(targets, round(fraction * 1000), 3)
    assert len(np.unique(chosen)) == round(fraction * 1000)
    found = np.bincount(targets[chosen], minlength=4)
    assert np.abs(found - fraction * np.array([500, 300, 150, 50])).max() <= 1


def test_rows_with_numbers_as_targets_are_held_out_at_random():
    targets = np.arange(1000.0)[:, None]
    chosen = held_out_rows(targets, 300, 3)
    assert len(np.unique(chosen)) == 300
    assert chosen.mean() == pytest.approx(500, abs=60)


@pytest.mark.parametrize("count", [1, 2, 999])
def test_any_number_of_rows_can_be_held_out(count):
    assert len(np.unique(held_out_rows(np.zeros(1000, int), count, 0))) == count


@pytest.mark.parametrize("task", ["multiclass", "binary"])
def test_row_weights_are_the_products_of_those_of_rows_and_classes_with_mean_one(task):
    factors = (1.0, 3.0, 0.5) if task == "multiclass" else (1.0, 3.0)
    loss = LossSpec(TASKS[task].losses[0](), class_weights=factors)
    case = run(task=task, weighted=True, loss=loss)
    weights = case.examples().weights
    expected = case.data.weights * np.array(factors)[case.data.targets]
    assert weights is not None
    assert (weights.shape, weights.dtype.name) == ((ROWS, 1), "float32")
    assert weights.mean() == pytest.approx(1)
    assert np.allclose(weights[:, 0], expected / expected.mean())


def test_held_out_rows_have_no_part_in_the_mean_weight():
    _, examples = held_out(weighted=True)
    assert examples.weights is not None
    assert examples.weights.mean() == pytest.approx(1)


def test_without_weights_there_are_none():
    assert run().examples().weights is None


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64", "int64"])
def test_standardised_inputs_have_mean_zero_and_deviation_one(dtype):
    inputs = noise(dtype=dtype, rows=500).inputs
    scaling = Scaling.of(ModelSpec.plain((20, 3), standardize_inputs=True), inputs)
    out = np.empty(inputs.shape, np.float32)
    scaling(np, inputs, out)
    assert np.abs(out.mean(axis=0)).max() < 1e-5
    assert np.abs(out.std(axis=0) - 1).max() < 1e-5


def test_a_constant_column_is_zero():
    inputs = np.random.default_rng(0).normal(size=(50, 3))
    inputs[:, 1] = 0.1
    inputs[:, 2] = 0
    scaling = Scaling.of(ModelSpec.plain((3, 2), standardize_inputs=True), inputs)
    out = np.empty((50, 3))
    scaling(np, inputs, out)
    assert not out[:, 1:].any()
    assert np.asarray(scaling.factor)[1:].tolist() == [0, 0]
    assert out[:, 0].std() == pytest.approx(1)


def test_statistics_of_columns_far_from_zero_keep_their_digits():
    inputs = 1e6 + np.random.default_rng(0).normal(size=(500, 2))
    scaling = Scaling.of(ModelSpec.plain((2, 2), standardize_inputs=True), inputs)
    assert np.allclose(1 / np.asarray(scaling.factor), inputs.std(axis=0), rtol=1e-9)


def test_statistics_are_those_of_the_rows_to_train_on():
    case, examples = held_out(standardize_inputs=True, input_scale=1.0)
    assert np.allclose(examples.scaling.shift, examples.train.inputs.mean(axis=0))
    assert not np.allclose(examples.scaling.shift, case.data.inputs.mean(axis=0))


def test_a_given_scale_is_a_factor():
    scaling = Scaling.of(ModelSpec.plain((3, 2), input_scale=0.5), np.ones((2, 3)))
    assert (scaling.shift, scaling.factor) == (None, 0.5)
