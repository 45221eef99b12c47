"""Runs are the same bits twice, and resumed after any step."""

from contextlib import closing
from dataclasses import replace
from itertools import pairwise

import pytest
from mlpd.core.devices.arrays import Cpu
from mlpd.core.state_file import StateFileError
from mlpd.core.training.checkpoint import load_checkpoint, save_checkpoint
from mlpd.core.training.events import MetricsRecorded, StepEnded

from .family import FAMILY, events_of, finish, run, vectors


@pytest.mark.parametrize("case", FAMILY.values(), ids=FAMILY)
def test_the_same_spec_gives_the_same_bits(case):
    outcomes = []
    for _ in range(2):
        state = case.start()
        outcomes.append((finish(state), vectors(state)))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][0]


@pytest.mark.parametrize("case", FAMILY.values(), ids=FAMILY)
def test_a_run_resumed_after_any_step_repeats_the_rest_bit_for_bit(case, tmp_path):
    """From each step to the next, and so from any to the last, and from the middle to the last at once."""
    whole = case.start()
    events, saved = [], []
    for event in events_of(whole):
        events.append(event)
        if isinstance(event, StepEnded):
            path = tmp_path / f"{event.step}.safetensors"
            saved.append((len(events), path, save_checkpoint(path, whole.checkpoint())))
    assert len(saved) == whole.step
    for (seen, path, digest), (later, _, expected) in pairwise(saved):
        state, again = case.restore(load_checkpoint(path, digest.sha256)), []
        with closing(events_of(state)) as rest:
            for event in rest:
                again.append(event)
                if isinstance(event, StepEnded):
                    break
        assert again == events[seen:later]
        assert save_checkpoint(tmp_path / "again", state.checkpoint()) == expected
    for seen, path, digest in (saved[len(saved) // 2], saved[-1]):
        state = case.restore(load_checkpoint(path, digest.sha256))
        assert finish(state) == events[seen:]
        assert vectors(state) == vectors(whole)
        assert save_checkpoint(path, state.checkpoint()) == saved[-1][2]


@pytest.mark.parametrize("case", FAMILY.values(), ids=FAMILY)
def test_another_seed_gives_other_bits(case):
    states = [case.but(seed=seed).start() for seed in (1, 2)]
    for state in states:
        finish(state)
    assert vectors(states[0]) != vectors(states[1])


def test_a_checkpoint_of_another_spec_is_refused():
    case = run()
    checkpoint = case.start().checkpoint()
    with pytest.raises(StateFileError, match="must be of spec"):
        case.but(seed=6).restore(checkpoint)


def test_a_checkpoint_is_a_copy_that_later_steps_leave_alone():
    state = run().start()
    checkpoint = state.checkpoint()
    before = {name: vector.tobytes() for name, vector in checkpoint.vectors.named().items()}
    finish(state)
    assert {name: vector.tobytes() for name, vector in checkpoint.vectors.named().items()} == before


def test_a_restored_run_leaves_its_checkpoint_alone():
    case = FAMILY["stopped early"]
    checkpoint = case.start().checkpoint()
    before = {name: vector.tobytes() for name, vector in checkpoint.vectors.named().items()}
    finish(case.restore(checkpoint, Cpu()))
    assert {name: vector.tobytes() for name, vector in checkpoint.vectors.named().items()} == before


@pytest.mark.parametrize("runner", ["plain", "compiled"])
@pytest.mark.parametrize("name", ["standardised", "augmented", "weighted rows"])
def test_rows_of_the_other_byte_order_train_to_the_same_bits(name, runner, kernels):
    case, found = FAMILY[name], []
    assert case.validation
    for dtype in "<f4", ">f4":
        data, validation = (replace(rows, inputs=rows.inputs.astype(dtype)) for rows in (case.data, case.validation))
        own = replace(case, data=data, validation=validation).but(runner=runner)
        state = own.start()
        events = finish(state, kernels=kernels)
        found.append((vectors(state), [event for event in events if isinstance(event, MetricsRecorded)]))
    assert found[1] == found[0]
