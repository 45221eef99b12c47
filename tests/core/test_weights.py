"""Weights of rows and classes that weigh nothing, too much or too little."""

import numpy as np
import pytest
from mlpd.core.data.datasets import DataError, Dataset, write_dataset
from mlpd.core.data.inspection import inspect_dataset
from mlpd.core.spec.training import LossSpec, ValidationSpec
from mlpd.core.steps.examples import NothingToLearn

from .family import ROWS, Run, noise, run

ZEROS = "must not all be 0, got 70 zeros"
SUM = r"must add up to between 1e-300 and 1e\+300, got"


def weighted(weights, targets=None, task="multiclass", **changes):
    case, data = run(task=task, **changes), noise(task)
    return Run(case.spec, Dataset(data.inputs, data.targets if targets is None else targets, weights))


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (weighted(None, np.zeros(ROWS, int), loss=LossSpec(class_weights=(0.0, 1.0, 1.0))), ZEROS),
        (weighted(np.zeros(ROWS), task="regression"), ZEROS),
        (weighted(1.0 * (np.arange(ROWS) % 3 == 0), np.arange(ROWS) % 3, loss=LossSpec(class_weights=(0.0, 1.0, 1.0))), ZEROS),
        (weighted(1.0 * (np.arange(ROWS) % 3 == 0), np.arange(ROWS) % 3), "must be above 0 in at least 2 classes, got 1"),
        (weighted(np.full(ROWS, 1e200), loss=LossSpec(class_weights=(1e200,) * 3)), f"{SUM} inf"),
        (weighted(np.full(ROWS, 1e308), task="regression"), f"{SUM} inf"),
        (weighted(np.full(ROWS, 1e-160), loss=LossSpec(class_weights=(1e-160,) * 3)), f"{SUM} 6.99"),
    ],
)  # fmt: skip
def test_weights_that_leave_nothing_to_learn_end_a_run_before_its_first_step(case, reason):
    with pytest.raises(NothingToLearn, match=reason):
        case.examples()


@pytest.mark.parametrize("task", ["regression", "multilabel", "multiclass"])
def test_weights_of_held_out_rows_alone_leave_nothing_to_learn(task):
    case = weighted(None, task=task, validation=ValidationSpec(fraction=0.25))
    by_row = {bytes(row): i for i, row in enumerate(case.data.inputs)}
    held_out = case.examples().validation
    weights = np.zeros(ROWS)
    weights[[by_row[bytes(row)] for row in held_out.inputs]] = 1
    with pytest.raises(NothingToLearn, match="must not all be 0, got 52 zeros"):
        Run(case.spec, Dataset(case.data.inputs, case.data.targets, weights)).examples()


@pytest.mark.parametrize("size", [1e-140, 1.0, 1e140])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_of_any_other_size_are_in_proportion(size, dtype):
    weights = np.random.default_rng(0).uniform(0.5, 2, ROWS)
    case = weighted(weights * size, loss=LossSpec(class_weights=(size, 2 * size, size)), dtype=dtype)
    expected = weights * np.array([1, 2, 1])[case.data.targets]
    found = case.examples().weights
    assert np.allclose(found[:, 0], expected / expected.mean(), rtol=1e-6)


def test_a_weight_that_is_nothing_beside_the_others_is_no_fault():
    weights = np.ones(ROWS)
    weights[3] = 1e-320
    found = weighted(weights, task="regression").examples().weights
    assert np.isfinite(found).all()
    assert found.mean() == pytest.approx(1)


@pytest.mark.parametrize(
    ("weights", "found"),
    [
        ([1e308, 1e308], "inf"),
        ([1e200, 1.0], r"1e\+200"),
        ([1e-320, 0.0], "9.99989e-321"),
        ([1e-200, 1e-200], "2e-200"),
    ],
)
def test_a_data_set_whose_weights_add_up_to_nothing_or_too_much_is_refused(tmp_path, weights, found):
    write_dataset(tmp_path / "data", Dataset(np.zeros((2, 3), np.uint8), np.arange(2), np.array(weights)))
    with pytest.raises(DataError, match=rf"weights must add up to between 1e-150 and 1e\+150, got {found}"):
        inspect_dataset(tmp_path / "data")
