"""Recorded calls: they are all there is, they give the bits of the formulas, and tasks keep out of each other's way."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from mlpd.core.devices.arrays import ByColumns, Cpu
from mlpd.core.execution.opening import open_runner
from mlpd.core.execution.plain import PlainRunner
from mlpd.core.network.activations import ACTIVATIONS
from mlpd.core.network.layers import Affine, BatchNorm, Dropout, LayerNorm, Linear
from mlpd.core.network.losses import LOSSES, BufferedLoss
from mlpd.core.network.network import Backward, Pass, Weights, initial_parameters, initial_statistics
from mlpd.core.network.tasks import TASKS, MixUp
from mlpd.core.optimization.optimizers import Average, Clipping, OptimizerState
from mlpd.core.plans.plan import Plan
from mlpd.core.plans.recording import (
    DEVICE_CALLS,
    ELEMENTWISE,
    REDUCTIONS,
    NotRecordable,
    RecordingDevice,
    Scalar,
)
from mlpd.core.spec.split import SPLITS, largest_block_count
from mlpd.core.steps.batches import cut as cut_steps
from mlpd.core.steps.program import work_of

from ..conftest import needs_compiler
from .family import FAMILY, noise, run
from .test_optimizers import RECURRENCES

UNARY = sorted({"absolute", "exp", "expm1", "log", "log1p", "negative", "sign", "sqrt", "tanh"})


def test_a_call_that_no_plan_has_is_refused_by_name():
    device = RecordingDevice(Cpu())
    for name in ("einsum", "where", "dot", "asarray", "cumsum", "matmul"):
        with pytest.raises(NotRecordable, match=rf"xp\.{name}$"):
            getattr(device.xp, name)
    assert device.take() == []


@pytest.mark.parametrize("name", sorted((ELEMENTWISE | REDUCTIONS) - {"copyto"}))
def test_a_call_that_would_make_an_array_is_refused_by_name(name):
    device, values = RecordingDevice(Cpu()), np.ones(3)
    with pytest.raises(NotRecordable, match=rf"xp\.{name} without out$"):
        getattr(device.xp, name)(*[values] * (1 if name in {*UNARY, *REDUCTIONS} else 2))
    assert device.take() == []


def test_an_option_that_no_plan_has_is_refused_by_name():
    xp, values = RecordingDevice(Cpu()).xp, np.ones(3)
    with pytest.raises(NotRecordable, match=r"xp\.add with where$"):
        xp.add(values, values, out=values, where=values > 0)
    with pytest.raises(NotRecordable, match=r"xp\.add with axis, keepdims$"):
        xp.add(values, values, out=values, keepdims=True, axis=0)
    xp.sum(values, axis=0, keepdims=True, out=values[:1])


def test_recording_makes_no_call_and_takes_note_of_all_in_their_order():
    device, random = RecordingDevice(Cpu()), np.random.default_rng(1)
    a, b, out = (random.normal(size=(4, 4)) for _ in range(3))
    before, names = [array.copy() for array in (a, b, out)], []
    for name in sorted(ELEMENTWISE | REDUCTIONS):
        if name == "copyto":
            device.xp.copyto(out, 0.0)
        elif name in REDUCTIONS:
            getattr(device.xp, name)(a, axis=1, out=out[0])
        else:
            getattr(device.xp, name)(*([a] if name in UNARY else [a, b]), out=out)
        names.append(name)
    for name in sorted(DEVICE_CALLS):
        getattr(device, name)(a, b, out)
        names.append(name)
    ops = device.take()
    assert [op.name for op in ops] == names
    assert all(np.shares_memory(op.out, out) for op in ops)
    assert [array.tobytes() for array in (a, b, out)] == [array.tobytes() for array in before]
    assert device.take() == []


def test_what_is_made_before_a_step_is_real():
    device = RecordingDevice(Cpu())
    for made in (device.xp.zeros((2, 3), dtype=device.xp.float32), device.zeros((2, 3), np.float32)):
        assert isinstance(made, np.ndarray)
        assert made.dtype == np.float32
    assert device.memory_order == Cpu().memory_order
    assert device.take() == []


def test_a_scalar_times_a_number_is_a_scalar_and_nothing_else_can_be_done_with_it():
    rate = Scalar("rate")
    assert (rate * 0.9).of({"rate": 0.1, "scale": 7.0}) == 0.1 * 0.9
    assert (rate * 0.5 * 3.0).of({"rate": 0.1}) == 0.1 * (0.5 * 3.0)
    assert rate.of({"rate": 3}) == 3
    assert isinstance(rate.of({"step": 1, "rate": 2**60 + 1}), int)
    assert rate * 1.0 == rate
    assert rate != Scalar("scale")
    assert len({rate, rate * 1.0, rate * 2.0, Scalar("rate", 2.0)}) == 2
    anything: Any = rate
    for impossible in (
        lambda: anything + 1.0,
        lambda: 1.0 - anything,
        lambda: float(anything),
        lambda: anything < 1.0,
        lambda: anything / 2,
    ):
        with pytest.raises(TypeError):
            impossible()
    with pytest.raises(KeyError, match="rate"):
        rate.of({"scale": 1.0})


def test_a_replayed_call_takes_the_scalars_of_its_step():
    device, out = RecordingDevice(Cpu()), np.ones(3)
    device.xp.multiply(out, Scalar("rate") * 2.0, out=out)
    device.xp.copyto(out[:1], 5.0)
    (first, second) = (op.call(Cpu()) for op in device.take())
    for rate in (3.0, 0.5):
        first({"rate": rate})
        second({})
    assert out.tolist() == [5.0, 6.0, 6.0]


def same_bits(run, numbers):
    """Check that ``run(device, scalar)`` leaves the same bits in the arrays it returns, at once and replayed.

    ``scalar(name)`` is a number at once, and what stands for it in a recording.
    """
    eager = run(Cpu(), lambda name: numbers[name])
    device = RecordingDevice(Cpu())
    recorded = run(device, Scalar)
    with np.errstate(all="ignore"):
        for op in device.take():
            op.call(Cpu())(numbers)
    for ours, theirs in zip(recorded, eager, strict=True):
        assert np.array(ours).tobytes() == np.array(theirs).tobytes()


LAYERS = {
    "affine": lambda width: Affine(width, 4),
    "linear": lambda width: Linear(width, 4),
    "dropout": lambda width: Dropout(width, 0.4),
    "layer norm": LayerNorm,
    "batch norm": BatchNorm,
} | ACTIVATIONS


@pytest.mark.parametrize("kind", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("adds", [False, True])
def test_a_layer_replayed_gives_the_bits_of_its_formulas(kind, dtype, adds):
    layers = (Affine(5, 7), kind(7), Affine(kind(7).width, 3))
    random = np.random.default_rng(3)
    x, dy = random.normal(size=(6, 5)), random.normal(size=(6, 3))

    def run(device, scalar):
        parameters = initial_parameters(layers, "he_normal", 1, dtype)
        statistics = initial_statistics(layers, dtype)
        network = Pass(device, layers, 5, Weights(parameters, statistics), 8, Backward(seed=9))
        network.gradients[...] = 1.0
        network.inputs(6)[...] = x
        network.output_gradient(6)[...] = dy
        outputs = network.forward(6, scalar("step"), scalar("first_row"))
        for _ in network.backward_parts(6, adds=adds, scale=0.5):
            pass
        return outputs, network.gradients, statistics, *(gradient[:6] for gradient in network._dx[1:])

    same_bits(run, {"step": 2**33, "first_row": 12})


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("weighted", [False, True])
def test_a_loss_replayed_gives_the_bits_of_its_formulas(name, weighted):
    random = np.random.default_rng(4)
    z, t, weights = random.normal(size=(7, 3)), random.uniform(size=(7, 3)), random.uniform(0, 3, (7, 1))

    def run(device, scalar):
        loss = BufferedLoss(device, LOSSES[name](), 3, 9, np.float64)
        gradient, total = np.zeros((7, 3)), np.array(0.25)
        loss(z, t, weights if weighted else None, gradient, total, scalar("scale"))
        return gradient, total, loss.of_rows(7)

    same_bits(run, {"scale": 0.3})


@pytest.mark.parametrize("optimizer", [case[0] for case in RECURRENCES.values()], ids=RECURRENCES)
@pytest.mark.parametrize("flushes", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_optimizer_replayed_gives_the_bits_of_its_formulas(optimizer, flushes, dtype):
    numbers = {**optimizer.factors(0.013, 4), **Average.factors(0.9, 4)}

    def run(device, scalar):
        random = np.random.default_rng(5)
        parameters, gradients, average = (random.normal(size=100).astype(dtype) for _ in range(3))
        moments = {name: random.uniform(1e-310, 1e-3, 100).astype(dtype) for name in optimizer.moments}
        Clipping(device, 0.5, parameters.dtype)(gradients)
        state = OptimizerState(device, optimizer, parameters, gradients, moments)
        state.update({name: scalar(name) for name in optimizer.factors(1.0, 0)}, flushing=1.0 if flushes else None)
        moved = Average(device, Weights(parameters, parameters[:0]), Weights(average, average[:0]))
        moved.update({name: scalar(name) for name in Average.factors(0.9, 0)})
        return parameters, average, *moments.values()

    same_bits(run, numbers)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_and_mixed_rows_replayed_give_the_bits_of_their_formulas(name):
    random = np.random.default_rng(6)
    outputs = 1 if name == "binary" else 3
    classes = random.integers(0, 2, 8)
    targets = classes if TASKS[name].has_classes else random.uniform(size=(8, outputs))
    z = random.normal(size=(8, outputs))

    def run(device, scalar):
        task = TASKS[name](device, outputs, 9, np.float64, 0.1)
        spread, hits, own = np.zeros((8, outputs)), np.array(1), TASKS[name].prepare(targets, "float64")
        inputs = z.copy()
        task.spread(own, spread)
        if task.counts_hits:
            task.count_hits(z, own, hits)
        mixing = MixUp(device, outputs, outputs, 9, np.float64, np.float64)
        mixing(inputs[:7], spread[:7], inputs[7:], spread[7:], scalar("mix"), scalar("mix_rest"))
        return spread, hits, inputs

    same_bits(run, {"mix": 0.7, "mix_rest": 0.3})


CASES = FAMILY | {"micro-batches": replace(run(batch_size=514), data=noise(rows=1030))}  # of 512 rows, and of 2


def cut(name, split, dtype="float64", most=3):
    """Return a case, compiled, in as many blocks as it can be cut into, but no more than ``most``."""
    case = CASES[name]
    case = case.compiled(split, 1).but(model=replace(case.spec.model, dtype=dtype))
    return case.but(block_count=min(most, largest_block_count(case.spec, split)))


@needs_compiler
@pytest.mark.parametrize(
    "name", ["adamw", "clipped and averaged", "batch norm", "dropout", "weighted rows", "micro-batches"]
)
@pytest.mark.parametrize("split", SPLITS)
def test_a_plan_replayed_call_by_call_agrees_with_compiled_code(name, split, kernels):
    """In the order of its tasks, step by step, of which the last has fewer rows."""
    case = cut(name, split)
    states = [case.start() for _ in range(2)]
    compiled = open_runner("compiled", states[0].blocks, Cpu(), 3, kernels)
    plain = PlainRunner(states[1].blocks, ByColumns())
    per_epoch = case.spec.steps_per_epoch(len(case.data))
    try:
        for state, runner in zip(states, (compiled, plain), strict=True):
            with state.blocks.feed.open(0):
                while state.step < per_epoch:
                    state.make_steps(runner, min(2, per_epoch - state.step))
    finally:
        compiled.close()
    found, expected = (state.checkpoint() for state in states)
    assert found.vectors.named().keys() == expected.vectors.named().keys()
    for own, vector in expected.vectors.named().items():
        distance = np.abs(found.vectors.named()[own] - vector).max()
        assert distance <= 1e-12 * max(np.abs(vector).max(), 1e-300), (own, distance)
    assert found.counters.loss_sum == pytest.approx(expected.counters.loss_sum, rel=1e-12)
    assert found.counters.correct_count == expected.counters.correct_count


@pytest.mark.parametrize("name", ["adamw", "clipped and averaged", "batch norm", "dropout", "weighted rows"])
@pytest.mark.parametrize("split", SPLITS)
def test_tasks_of_a_phase_may_be_done_in_any_order(name, split):
    """The bits are the same where the last task comes first, call by call."""

    class Reversed:
        def __init__(self, blocks):
            self.record_of, self.dtype, self.task_limit, self.kept = blocks.record, blocks.dtype, 1, blocks.kept

        def record(self, variant):
            plan = self.record_of(variant)
            return Plan(plan.prepare[::-1], [phase[::-1] for phase in plan.phases], plan.joins)

    case, outcomes = cut(name, split, "float32"), []
    for program in (lambda blocks: blocks, Reversed):
        state = case.start()
        runner = PlainRunner(program(state.blocks), ByColumns())
        for _ in range(6 // 2):
            state.make_steps(runner, 1)
        outcomes.append({name: vector.tobytes() for name, vector in state.checkpoint().vectors.named().items()})
    assert outcomes[0] == outcomes[1]


def touched(task):
    """Return the addresses of all bytes that a task's calls look at, and of all that they write."""
    looks, writes = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for op in task:
        looks += [addresses(operand) for operand in op.operands if isinstance(operand, np.ndarray)]
        writes.append(addresses(op.out))
        if op.name == "add_product":
            looks.append(writes[-1])
    return np.unique(np.concatenate(looks)), np.unique(np.concatenate(writes))


def addresses(array):
    places = np.int64(array.ctypes.data)
    for size, stride in zip(array.shape, array.strides, strict=True):
        places = np.add.outer(places, np.arange(size) * stride)
    return np.add.outer(places, np.arange(array.itemsize)).ravel()


def independent(tasks):
    """Whether no task writes what another looks at or writes."""
    writes = np.concatenate([writes for _, writes in tasks])
    owners = np.repeat(np.arange(len(tasks)), [len(writes) for _, writes in tasks])
    order = np.argsort(writes)
    writes, owners = writes[order], owners[order]
    if (writes[1:] == writes[:-1]).any():
        return False
    for number, (looks, _) in enumerate(tasks):
        places = np.minimum(np.searchsorted(writes, looks), len(writes) - 1)
        if ((writes[places] == looks) & (owners[places] != number)).any():
            return False
    return True


def together(one, other):
    """Return what two tasks touch that one thread does one after the other."""
    return tuple(np.unique(np.concatenate(both)) for both in zip(one, other, strict=True))


@pytest.mark.parametrize(
    ("name", "most"), [*((name, 3) for name in CASES), *((name, 1) for name in ("adamw", "accumulated", "mixed up"))]
)
@pytest.mark.parametrize("split", SPLITS)
def test_tasks_that_are_done_at_the_same_time_have_nothing_to_do_with_each_other(name, split, most):
    """In a phase, where the next rows are brought, and where a task goes on with the next micro-batch."""
    case = cut(name, split, "float32", most)
    state = case.start()
    blocks, spec = state.blocks, case.spec
    step_count = spec.steps_per_epoch(len(case.data))
    batches = cut_steps(spec, len(state.examples.train), 0, step_count)
    slots = np.arange(len(batches.rows)) % len(blocks.feed.slots)
    work = work_of(spec, batches, [0.1] * step_count, 0, slots)
    plans = []
    for variant in work.variants:
        plan = blocks.record(variant)
        prepare, *phases = [[touched(task) for task in tasks] for tasks in (plan.prepare, *plan.phases)]
        assert all(map(independent, (prepare, *phases)))
        assert len(prepare) + max(map(len, phases)) <= blocks.task_limit
        plans.append((plan, prepare, phases))
    for before, after in {*zip(work.which[:-1].tolist(), work.which[1:].tolist(), strict=True)}:
        (plan, _, phases), (_, prepare, following) = plans[before], plans[after]
        assert all(independent([*phase, *prepare]) for phase in phases[plan.free_phase :])
        if plan.joins:
            assert len(phases) > plan.free_phase + 1  # the rows are there before the next micro-batch begins
            assert independent([*map(together, phases[-1], following[0])])
