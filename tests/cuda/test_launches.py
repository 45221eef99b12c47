"""How much a compiled step asks of the host and of the device, and that a graph computes what single launches do."""

from contextlib import closing

import pytest
from mlpd.core.cuda.compiler import CudaCompiler
from mlpd.core.cuda.runner import CudaRunner
from mlpd.core.execution.plain import PlainRunner
from mlpd.core.optimization.optimizers import FLUSH_STEPS, Adam, Sgd
from mlpd.core.spec.training import ScheduleSpec

from ..core.family import FAMILY, Run, noise, optimized, run, vectors

pytestmark = pytest.mark.cuda

SIZES = 784, 532, 10
# Optimizer, and launches of a step.
STEPS = {"sgd": (Sgd(), 3), "adam": (Adam(), 4)}


def case_of(kind, runner):
    case = run(layer_sizes=SIZES, activations=("relu",), dropout_rates=(0.0,), batch_size=128, **optimized(kind))
    case = Run(case.spec, noise(rows=128 * 8, inputs=SIZES[0])).unvalidated()
    return case.but(runner=runner, device="cuda", split="units" if runner == "compiled" else case.spec.split)


@pytest.mark.parametrize("name", STEPS)
def test_a_step_makes_few_launches_and_one_that_comes_again_is_a_graph(cuda, cuda_kernels, name):
    cuda_on_cpu = pytest.importorskip("cuda_on_cpu", reason="only the emulator counts device work")
    kind, expected = STEPS[name]
    state = case_of(kind, "compiled").start(cuda)
    with closing(CudaRunner(state.blocks, cuda, CudaCompiler(cuda_kernels))) as runner, state.blocks.feed.open(0):
        with cuda_on_cpu.measure() as one:
            state.make_steps(runner, 1)
        with cuda_on_cpu.measure() as captured:
            state.make_steps(runner, 1)
        with cuda_on_cpu.measure() as again:
            state.make_steps(runner, 1)
        with cuda_on_cpu.measure() as two:
            state.make_steps(runner, 2)
    plain = case_of(kind, "plain").start(cuda)
    with closing(PlainRunner(plain.blocks, cuda)) as runner, plain.blocks.feed.open(0):
        plain.make_steps(runner, 1)
        with cuda_on_cpu.measure() as call_by_call:
            plain.make_steps(runner, 1)
    launches = two.launches - one.launches
    print(f"{name}: {launches} launches a step; plain {call_by_call.launches} and {call_by_call.gemms} products")
    assert launches == expected, two
    assert two.gemms == two.graph_launches == 0, two
    assert (captured.graphs, captured.graph_launches, captured.launches) == (1, 1, 0), captured
    assert captured.replayed_launches == one.launches, captured
    assert (again.graphs, again.graph_launches, again.launches) == (0, 1, 0), again
    assert again.mallocs == again.syncs == again.d2h == again.d2d == again.memsets == 0, again
    assert again.h2d <= 1, again  # scalars, which change from step to step


def test_the_same_work_with_the_same_scalars_copies_only_its_rows(cuda, cuda_kernels):
    cuda_on_cpu = pytest.importorskip("cuda_on_cpu", reason="only the emulator counts device work")
    state = FAMILY["sgd"].compiled("units", 1).but(device="cuda").unvalidated().start(cuda)
    validation = FAMILY["sgd"].compiled("units", 1).but(device="cuda").start(cuda).validation
    with closing(CudaRunner(validation, cuda, CudaCompiler(cuda_kernels))) as runner:
        for _ in range(3):
            validation.run(runner, state.blocks.read_scored())
        with cuda_on_cpu.measure() as work:
            validation.run(runner, state.blocks.read_scored())
    assert (work.graph_launches, work.launches, work.mallocs) == (1, 0, 0), work
    assert work.h2d == 2, work  # of inputs, and of labels


# Copies to the device: of an epoch's order of rows, and of scalars where they change from step to step.
COPIES = {"sgd": 1, "adamw": 2}


@pytest.mark.parametrize("name", COPIES)
def test_an_epoch_is_one_launch_of_a_graph_wherever_it_begins(cuda, cuda_kernels, name):
    """An epoch of five steps begins anywhere between two steps that flush moments."""
    cuda_on_cpu = pytest.importorskip("cuda_on_cpu", reason="only the emulator counts device work")
    case = FAMILY[name].compiled("units", 1).but(device="cuda", epoch_count=6).unvalidated()
    if name == "sgd":
        case = case.but(schedule=ScheduleSpec(0.01))
    state = case.start(cuda)
    steps = case.spec.steps_per_epoch(len(case.data.inputs))
    assert steps % FLUSH_STEPS
    with closing(CudaRunner(state.blocks, cuda, CudaCompiler(cuda_kernels))) as runner:
        for _ in range(2):
            state.make_steps(runner, steps)
        for _ in range(3):
            with cuda_on_cpu.measure() as work:
                state.make_steps(runner, steps)
            assert (work.graph_launches, work.graphs, work.launches, work.gemms) == (1, 0, 0, 0), work
            assert work.mallocs == work.syncs == work.d2h == work.d2d == work.memsets == work.pageable == 0, work
            assert work.h2d == COPIES[name], work


def test_long_work_is_cut_into_parts_that_share_a_graph(cuda, cuda_kernels, monkeypatch):
    cuda_on_cpu = pytest.importorskip("cuda_on_cpu", reason="only the emulator counts device work")
    case = FAMILY["momentum"].compiled("units", 1).but(device="cuda", epoch_count=2).unvalidated()
    case = case.but(batch_size=10)
    steps = case.spec.steps_per_epoch(len(case.data.inputs))
    assert steps == 7
    ends = []
    for longest in (steps, 2):
        monkeypatch.setattr("mlpd.core.cuda.runner._LONGEST", longest)
        state = case.start(cuda)
        with closing(CudaRunner(state.blocks, cuda, CudaCompiler(cuda_kernels))) as runner, state.blocks.feed.open(0):
            state.make_steps(runner, steps)
            with cuda_on_cpu.measure() as work:
                state.make_steps(runner, steps)
        ends.append(vectors(state))
    assert ends[0] == ends[1]
    assert (work.graph_launches, work.graphs, work.launches) == (4, 1, 0), work


EPOCHS = 4  # from the second on as a graph
BOTH = ["sgd", "adamw", "momentum", "lion", "one layer", "huber", "weighted rows", "mixed up"]


@pytest.mark.parametrize("name", BOTH)
def test_a_graph_has_the_bits_of_single_launches(cuda, cuda_kernels, name):
    ends = []
    for launching in ("graph", "eager"):
        case = FAMILY[name].compiled("units", 1).but(device="cuda", epoch_count=EPOCHS).unvalidated()
        state = case.start(cuda)
        steps = case.spec.steps_per_epoch(len(case.data.inputs))
        with (
            closing(CudaRunner(state.blocks, cuda, CudaCompiler(cuda_kernels), launching)) as runner,
            state.blocks.feed.open(0),
        ):
            for _ in range(EPOCHS):
                state.make_steps(runner, steps)
        ends.append((vectors(state), float(state.blocks.totals.loss_sum)))
    assert ends[0] == ends[1]
