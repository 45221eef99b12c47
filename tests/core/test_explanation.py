"""What is told of a step: all its micro-batches, each as it is."""

import pytest
from mlpd.core.devices.arrays import Cpu
from mlpd.core.execution.opening import open_runner
from mlpd.core.optimization.optimizers import Adam
from mlpd.core.planning.explanation import explain
from mlpd.core.plans.runner import RunnerUnavailable

from ..conftest import needs_compiler
from .family import optimized, run


@needs_compiler
@pytest.mark.parametrize(("runner", "capacity"), [("plain", 512), ("compiled", 1024)])
def test_a_step_of_several_micro_batches_is_all_of_them(runner, capacity, kernels):
    """One row more makes another micro-batch, of one row; the optimizer's update comes once."""
    case = run(layer_sizes=(20, 64, 3), activations=("relu",), dropout_rates=(0.0,), runner=runner, **optimized(Adam()))

    def operations(batch_size):
        return explain(case.but(batch_size=batch_size).spec, 5000, "float32", 1, kernels).operations

    one, more, two = (operations(size) for size in (capacity, capacity + 1, 2 * capacity))
    assert one < more < 1.1 * one
    assert 1.8 * one < two < 2 * one


def test_a_runner_that_is_not_there_is_named():
    with pytest.raises(RunnerUnavailable, match="runner must be plain or compiled, got plian"):
        open_runner("plian", run().start().blocks, Cpu(), 1)
