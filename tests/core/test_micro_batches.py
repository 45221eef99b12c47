"""What a row is and learns does not depend on how its step is cut into micro-batches; only sums of gradients are rounded.

So runs of any batch size draw the same on every runner and device, each of which cuts steps in its own way.
"""

from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlpd.core.devices.arrays import ByColumns, Cpu
from mlpd.core.spec import split
from mlpd.core.spec.training import LossSpec

from ..conftest import needs_compiler
from .family import AUGMENTATION, FAMILY, ROWS, brought_steps, events_of, run

MIXED = LossSpec(label_smoothing=0.1, mixup_alpha=0.4)
DROPPED = {"input_dropout_rate": 0.2, "dropout_rates": (0.5, 0.25)}
DRAWN = {
    "dropped": run(**DROPPED, weighted=True),
    "mixed": run(loss=MIXED, weighted=True),
    "mixed whole numbers": run(loss=MIXED, data_type="int64", input_dropout_rate=0.2),
    "mixed and dropped": run(loss=MIXED, **DROPPED, standardize_inputs=True, input_scale=1.0, data_type="float16"),
    "augmented": run(augmentation=AUGMENTATION, input_dropout_rate=0.2),
    "augmented and mixed": run(augmentation=AUGMENTATION, loss=MIXED, input_dropout_rate=0.2),
}


@contextmanager
def micro_batches_of(rows):
    """Cut steps into micro-batches of up to so many rows."""
    with pytest.MonkeyPatch.context() as patch:
        for name in split._MICRO_BATCH:
            patch.setitem(split._MICRO_BATCH, name, (rows, 2**22))
        yield


@pytest.mark.parametrize("name", DRAWN)
@settings(max_examples=15, deadline=None)
@given(
    batch_size=st.integers(1, ROWS), rows=st.integers(1, ROWS), chunk_count=st.integers(1, 3), compiled=st.booleans()
)
def test_the_rows_of_a_step_are_the_same_however_it_is_cut(name, batch_size, rows, chunk_count, compiled):
    case, device = DRAWN[name].but(batch_size=batch_size, epoch_count=2), ByColumns() if compiled else Cpu()
    whole = brought_steps(case, Cpu())
    with micro_batches_of(rows):
        assert brought_steps(case, device, chunk_count) == whole


@pytest.mark.parametrize("name", DRAWN)
def test_a_device_brings_the_rows_of_a_step_however_it_is_cut(name, device):
    case = DRAWN[name].but(batch_size=33)
    whole = brought_steps(case, Cpu())
    for rows in (5, 32, 33):
        with micro_batches_of(rows):
            assert brought_steps(case, device) == whole


def outcome(case, rows, **choices):
    """Return the losses of a run and the weights it ends with, in micro-batches of up to so many rows."""
    with micro_batches_of(rows):
        state = case.start()
        losses = [event.loss for event in events_of(state, **choices) if hasattr(event, "loss")]
        return losses, state.trained().model.parameters


def assert_close(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-5)


CUT = {
    name: case.but(batch_size=ROWS // 2, epoch_count=2)
    for name, case in (DRAWN | FAMILY).items()
    if name not in ("lion", "accumulated batch norm")  # the sign of a gradient may be one of rounding errors
}


@pytest.mark.parametrize("name", CUT)
def test_a_run_learns_the_same_but_for_rounding_however_its_steps_are_cut(name):
    whole = outcome(CUT[name], ROWS)
    for rows in (1, 16, 34):
        assert_close(outcome(CUT[name], rows), whole)


@needs_compiler
@pytest.mark.parametrize("name", ["dropped", "mixed and dropped", "augmented and mixed", "clipped and averaged"])
@pytest.mark.parametrize("split_by", ["units", "rows"])
def test_a_compiled_run_learns_what_a_plain_one_does_however_both_are_cut(name, split_by, kernels):
    plain = outcome(CUT[name], ROWS)
    for rows, blocks in ((3, 2), (16, 3), (ROWS, 2)):
        assert_close(outcome(CUT[name].compiled(split_by, blocks), rows, kernels=kernels), plain)
