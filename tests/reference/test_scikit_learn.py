"""On scikit-learn's own data sets we are as good as its networks, but for noise."""

import pytest

from .scikit_learn import SEEDS, comparisons, in_noise, our_score, their_score

COMPARISONS = comparisons()


@pytest.mark.parametrize("problem", COMPARISONS.values(), ids=COMPARISONS)
def test_scores_are_those_of_scikit_learn_within_noise(problem):
    ours, theirs = ([score(problem, seed) for seed in SEEDS] for score in (our_score, their_score))
    print(f"ours {ours}, theirs {theirs}")
    assert in_noise(ours, theirs)
