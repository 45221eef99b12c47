"""Which rows are held out: as ever where that leaves every class something, and always so that it does."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlpd.core.data.datasets import Dataset
from mlpd.core.data.splits import held_out_rows, train_class_counts
from mlpd.core.random import Purpose, bits
from mlpd.core.spec.training import ValidationSpec
from mlpd.core.steps.examples import Examples

from .family import run


def targets_of(row_counts, seed=0):
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(row_counts)), row_counts))


def evenly(targets, count, seed):
    """Every so many of the rows, sorted by class, whatever that leaves of a class."""
    order = np.lexsort((bits(seed, Purpose.SPLIT, 0, len(targets)), targets))
    return np.sort(order[(2 * np.arange(count) + 1) * len(targets) // (2 * count)])


@pytest.mark.parametrize(
    ("row_counts", "fraction"),
    [((9, 1), 0.5), ((1, 9), 0.5), ((5, 5), 0.8), ((1, 40, 0, 2, 1), 0.6), ((1, 1, 1, 9), 0.6)],
)
@pytest.mark.parametrize("seed", range(5))
def test_every_class_keeps_a_row_to_train_on(row_counts, fraction, seed):
    targets = targets_of(row_counts)
    case = run(validation=ValidationSpec(fraction=fraction), seed=seed)
    examples = Examples.of(case.spec, Dataset(np.zeros((len(targets), 20), np.uint8), targets), None)
    assert examples.validation is not None
    assert len(examples.validation) == round(fraction * len(targets))
    assert np.array_equal(np.unique(examples.train.targets), np.unique(targets))


@given(st.lists(st.integers(0, 12), min_size=1, max_size=6).filter(lambda counts: sum(counts) > 1), st.data())
def test_counts_tell_beforehand_what_the_choice_leaves(row_counts, data):
    rows, present = sum(row_counts), sum(count > 0 for count in row_counts)
    count = data.draw(st.integers(0, max(rows - present, 0)))
    targets = targets_of(row_counts)
    chosen = held_out_rows(targets, count, 3)
    assert len(np.unique(chosen)) == count
    left = np.bincount(np.delete(targets, chosen), minlength=len(row_counts)).tolist()
    assert left == train_class_counts(row_counts, count)
    assert all(some >= 1 for some, all_rows in zip(left, row_counts, strict=True) if all_rows)
    usual = evenly(targets, count, 3)
    if set(targets) == set(np.delete(targets, usual)):
        assert np.array_equal(chosen, usual)


def test_a_choice_that_leaves_every_class_something_is_what_it_always_was():
    assert held_out_rows(np.arange(12) % 3, 4, 1).tolist() == [3, 5, 7, 10]
    targets = targets_of((500, 300, 150, 50))
    for fraction in (0.1, 0.25, 0.5, 0.9):
        count = round(fraction * len(targets))
        assert np.array_equal(held_out_rows(targets, count, 7), evenly(targets, count, 7))


def test_counts_of_more_rows_than_can_be_held_out_leave_one_of_each_class():
    assert train_class_counts((5, 0, 5), 9) == [1, 0, 1]
