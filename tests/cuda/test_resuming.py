"""Compiled runs on CUDA that stop, and go on there or elsewhere."""

from dataclasses import replace

import pytest
from mlpd.core.state_file import StateFileError
from mlpd.core.training.environment import check_environment
from mlpd.core.training.events import StepEnded
from mlpd.core.training.loop import train

from ..core.family import FAMILY, events_of, finish, vectors

pytestmark = pytest.mark.cuda


@pytest.mark.parametrize("name", ["adamw", "accumulated", "clipped and averaged"])
def test_a_compiled_run_that_is_resumed_after_any_step_ends_with_the_same_bits(cuda, cuda_kernels, name):
    case = FAMILY[name].compiled("units", 1).but(device="cuda", epoch_count=1)
    whole = case.start(cuda)
    events, checkpoints = [], []
    for event in events_of(whole, kernels=cuda_kernels):
        events.append(event)
        if isinstance(event, StepEnded):
            checkpoints.append((len(events), whole.checkpoint()))
    assert len(checkpoints) > 2
    for count, checkpoint in checkpoints:
        resumed = case.restore(checkpoint, cuda)
        check_environment(checkpoint, resumed.environment)
        assert finish(resumed, kernels=cuda_kernels) == events[count:]
        assert vectors(resumed) == vectors(whole)


@pytest.mark.parametrize("name", ["adamw", "accumulated"])
def test_chunks_of_steps_do_not_change_the_bits(cuda, cuda_kernels, name):
    case = FAMILY[name].compiled("units", 1).but(device="cuda")
    ends = []
    for seconds in (0.0, 100.0):
        state = case.start(cuda)
        assert list(train(state, kernels=cuda_kernels, chunk_seconds=seconds))
        ends.append(vectors(state))
    assert ends[0] == ends[1]


def test_a_compiled_checkpoint_moves_between_devices_but_is_of_another_environment(cuda, cuda_kernels):
    """Its spec names its device, so the state of one is refused by the other; the numbers are the same."""
    case = FAMILY["adamw"].compiled("units", 1).but(epoch_count=1)
    on_cuda = case.but(device="cuda")
    state = on_cuda.start(cuda)
    finish(state, kernels=cuda_kernels)
    checkpoint = state.checkpoint()
    with pytest.raises(StateFileError, match="the checkpoint must be of spec "):
        case.restore(checkpoint)
    own = replace(checkpoint.counters, spec_digest=case.spec.digest)
    moved = case.restore(replace(checkpoint, counters=own))
    with pytest.raises(StateFileError, match="the checkpoint must be of this environment, "):
        check_environment(checkpoint, moved.environment)
    assert {name: vector.tobytes() for name, vector in moved.checkpoint().vectors.named().items()} == {
        name: vector.tobytes() for name, vector in checkpoint.vectors.named().items()
    }
