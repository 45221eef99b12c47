"""What must be the same bits on CuPy as on NumPy: everything drawn, gathered or saved."""

from dataclasses import replace

import numpy as np
import pytest
from mlpd.core.devices.arrays import Cpu
from mlpd.core.network.layers import Dropout
from mlpd.core.network.network import Backward, Pass, Weights
from mlpd.core.training.events import StepEnded

from ..core.family import FAMILY, brought, events_of, finish, run, vectors

pytestmark = pytest.mark.cuda


def test_the_device_tells_what_it_is(cuda):
    assert cuda.description().startswith("cuda:0 ")
    assert ", cupy " in cuda.description()


@pytest.mark.parametrize("count", [1, 4, 4095, 4096, 4097, 100_003])
@pytest.mark.parametrize(
    ("first", "counter"),
    [(0, (0, 0, 4)), (1, (0, 0, 4)), (2**53 + 3, (1, 2**33, 4)), (2**63 - 200_002, (0, 7, 5))],
)
def test_random_words_are_those_of_numpys_philox(cuda, first, counter, count):
    drawn = []
    for device in (cuda, Cpu()):
        out = device.xp.empty((count,), dtype=device.xp.uint64)
        device.fill_random(2**63 - 1, counter, first, out)
        drawn.append(device.to_host(out))
    assert np.array_equal(drawn[0], drawn[1])


@pytest.mark.parametrize("width", [1, 15, 16, 17, 300])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("first_row", [64, 65, 66, 67])
def test_masks_are_the_same_bits(cuda, width, dtype, first_row):
    masks = []
    for device in (cuda, Cpu()):
        nothing = device.xp.zeros(0, dtype=dtype)
        network = Pass(device, (Dropout(width, 0.3),), width, Weights(nothing, nothing), 9, Backward(seed=2**62))
        network.inputs(7)[...] = 1.0
        masks.append(device.to_host(network.forward(7, 2**33, first_row)).tobytes())
    assert masks[0] == masks[1]


@pytest.mark.parametrize("case", FAMILY.values(), ids=FAMILY)
def test_a_run_begins_with_the_same_bits(cuda, case):
    assert vectors(case.start(cuda)) == vectors(case.start())


@pytest.mark.parametrize("case", FAMILY.values(), ids=FAMILY)
def test_batches_are_the_same_bits(cuda, case):
    """Scaled, mixed, smoothed, dropped out or warped: each operation rounds alike on either."""
    read = []
    for device in (cuda, Cpu()):
        found = []
        for batch, rows in brought(case, device):
            arrays = [rows.inputs, rows.labels, rows.targets, *([] if rows.weights is None else [rows.weights])]
            found += [device.to_host(array)[: batch.rows].tobytes() for array in arrays]
        read.append(found)
    assert read[0] == read[1]


@pytest.mark.parametrize("case", FAMILY.values(), ids=FAMILY)
def test_a_run_resumed_in_the_middle_repeats_the_rest_bit_for_bit(cuda, case):
    whole = case.start(cuda)
    events = events_of(whole)
    for event in events:
        if isinstance(event, StepEnded) and event.step == 2:
            break
    resumed = case.restore(whole.checkpoint(), cuda)
    assert finish(resumed) == list(events)
    assert vectors(resumed) == vectors(whole)


@pytest.mark.parametrize("name", ["adamw", "batch norm", "stopped early", "clipped and averaged"])
def test_a_checkpoint_moves_between_devices(cuda, name):
    case = FAMILY[name]
    state = case.start()
    finish(state)
    checkpoint = state.checkpoint()
    moved = case.restore(checkpoint, cuda).checkpoint()
    assert replace(moved.counters, environment="") == replace(checkpoint.counters, environment="")
    assert {name: vector.tobytes() for name, vector in moved.vectors.named().items()} == {
        name: vector.tobytes() for name, vector in checkpoint.vectors.named().items()
    }


def test_a_saved_state_is_a_copy_that_later_steps_leave_alone(cuda):
    state = run().start(cuda)
    before = state.checkpoint().vectors.named()
    saved = {name: vector.tobytes() for name, vector in before.items()}
    finish(state)
    assert {name: vector.tobytes() for name, vector in before.items()} == saved
