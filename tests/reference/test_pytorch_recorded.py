"""Our losses against those that PyTorch had on the same problem, as recorded."""

import json
from pathlib import Path

import numpy as np
import pytest

from .trajectories import CASES, STEPS, our_losses

RECORD = json.loads(Path(__file__).with_name("pytorch_losses.json").read_text())


def test_the_record_says_where_it_is_from_and_covers_every_case():
    assert {"pytorch", "python", "date", "command", "problem"} <= RECORD["provenance"].keys()
    assert RECORD["losses"].keys() == CASES.keys()
    assert {len(losses) for losses in RECORD["losses"].values()} == {STEPS} == {200}


@pytest.mark.parametrize("case", CASES)
def test_losses_agree_over_two_hundred_steps(case):
    np.testing.assert_allclose(our_losses(case), RECORD["losses"][case], rtol=0, atol=1e-4)


def test_no_two_optimizers_take_the_same_path():
    ends = [losses[-1] for losses in RECORD["losses"].values()]
    assert len(set(ends)) == len(ends)
    assert all(losses[-1] < losses[0] for losses in RECORD["losses"].values())
