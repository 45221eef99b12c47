"""Blocks of a network: together they are the network, and whoever works on them, the bits are the same."""

import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from mlpd.core.network.architecture import ModelSpec
from mlpd.core.plans.plan import share
from mlpd.core.spec.rules import find_violations
from mlpd.core.spec.split import SPLITS, best_blocks, largest_block_count
from mlpd.core.steps.partition import Layout, unit_parts
from mlpd.core.training.checkpoint import load_checkpoint, save_checkpoint
from mlpd.core.training.events import MetricsRecorded, StepEnded
from mlpd.core.training.loop import train
from mlpd.core.training.state import Diverged
from threadpoolctl import threadpool_info, threadpool_limits

from ..conftest import needs_compiler
from .family import FAMILY, INPUTS, ROWS, events_of, finish, noise, optimized, run, vectors

DEEP = run(
    layer_sizes=(INPUTS, 9, 7, 8, 3), activations=("relu", "tanh", "gelu"), dropout_rates=(0.2, 0.0, 0.1), batch_size=32
)
# Between them all that threads can get in each other's way with: exchanges, sums, clipping, orders, staged images.
SHARED = {
    "deep": DEEP,
    **{
        name: FAMILY[name]
        for name in (
            *("sgd", "clipped and averaged", "layer norm", "batch norm", "accumulated", "accumulated batch norm"),
            *("mixed up", "weighted rows", "full batch", "dropout", "augmented"),
        )
    },
}
# And all that a checkpoint can have.
SAVED = SHARED | {
    name: FAMILY[name]
    for name in (
        "nesterov",
        "rmsprop with momentum",
        "adagrad",
        "lion",
        "averaged batch norm",
        "plateau",
        "stopped early",
    )
}


def cuts(cases):
    """Return each of ``cases`` by each split that it can be cut by."""
    return [
        pytest.param(case, split, id=f"{name}-{split}")
        for name, case in cases.items()
        for split in SPLITS
        if largest_block_count(case.compiled(split, 1).spec, split) > 1
    ]


def cut(case, split, most):
    """Return ``case``, compiled, in as many blocks as it can be cut into, but no more than ``most``."""
    case = case.compiled(split, 1)
    return case.but(block_count=min(most, largest_block_count(case.spec, split)))


def assert_close(found, expected, tolerance):
    """Check that vectors are the same but for so much of the largest value in each."""
    assert found.keys() == expected.keys()
    for name, vector in expected.items():
        assert found[name].shape == vector.shape, name
        distance = np.abs(found[name] - vector).max()
        assert distance <= tolerance * max(np.abs(vector).max(), 1e-300), (name, distance)


@cache
def finished(name):
    """Train one of the family in float64, call by call; return what it reports and all that it ends with."""
    case = FAMILY[name]
    state = case.but(model=replace(case.spec.model, dtype="float64")).start()
    return finish(state), state.checkpoint()


TOGETHER = [
    (name, split, most)
    for name in FAMILY
    for split, most in (("units", 3), ("rows", 3), ("units", 1))
    if most > 1 or name in SHARED
]


@needs_compiler
@pytest.mark.parametrize(("name", "split", "most"), TOGETHER)
def test_blocks_together_train_the_network(name, split, most, kernels):
    case = FAMILY[name]
    case = cut(case.but(model=replace(case.spec.model, dtype="float64")), split, most)
    state, (expected, checkpoint) = case.start(), finished(name)
    events = finish(state, thread_count=2, kernels=kernels)
    assert [type(event) for event in events] == [type(event) for event in expected]
    for event, other in zip(events, expected, strict=True):
        if isinstance(event, MetricsRecorded):
            assert event.loss == pytest.approx(other.loss, rel=1e-11)
            assert replace(event, loss=0.0) == replace(other, loss=0.0)
        else:
            assert event == other
    found = state.checkpoint()
    assert_close(found.vectors.named(), checkpoint.vectors.named(), 1e-11)
    assert found.counters.correct_count == checkpoint.counters.correct_count


@needs_compiler
@pytest.mark.parametrize(("case", "split"), cuts(SHARED))
def test_who_works_on_a_block_makes_no_difference(case, split, kernels):
    outcomes = []
    for thread_count in (1, 2, 5):
        state = cut(case.but(epoch_count=1), split, 3).start()
        outcomes.append((finish(state, thread_count=thread_count, kernels=kernels), vectors(state)))
    assert all(outcome == outcomes[0] for outcome in outcomes[1:])


@needs_compiler
@pytest.mark.parametrize("split", SPLITS)
def test_a_busy_machine_makes_no_difference(split, kernels):
    """Threads lose their processors in the middle of anything."""
    case = cut(DEEP.but(epoch_count=30).unvalidated(), split, 3)
    alone, beside = case.start(), case.start()
    events = finish(alone, thread_count=1, kernels=kernels)
    busy = [
        subprocess.Popen([sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    try:
        for process in busy:
            assert process.stdout
            process.stdout.readline()  # it runs
        assert finish(beside, thread_count=4, kernels=kernels) == events
    finally:
        for process in busy:
            process.kill()
            process.communicate()
    assert vectors(beside) == vectors(alone)


@needs_compiler
@pytest.mark.parametrize(("case", "split"), cuts(SAVED))
def test_a_compiled_run_resumed_after_any_step_repeats_the_rest_bit_for_bit(case, split, kernels, tmp_path):
    """From each step to the next, and so from any to the last."""
    few_steps = case.but(epoch_count=2, batch_size=min(case.spec.batch_size * 3 // 2, ROWS))
    case, path = cut(few_steps, split, 2), tmp_path / "state"
    whole = case.start()
    events: list[list[Any]] = [[]]
    saved: list[tuple[Any, Any]] = [(whole.checkpoint(), None)]
    for event in events_of(whole, kernels=kernels):
        events[-1].append(event)
        if isinstance(event, StepEnded):
            digest = save_checkpoint(path, whole.checkpoint())
            saved.append((load_checkpoint(path, digest.sha256), digest))
            events.append([])
    assert len(saved) == whole.step + 1
    for (before, _), (_, digest), own in zip(saved[:-1], saved[1:], events[:-1], strict=True):
        state, again = case.restore(before), []
        with closing(events_of(state, thread_count=1, kernels=kernels)) as rest:
            for event in rest:
                again.append(event)
                if isinstance(event, StepEnded):
                    break
        assert again == own
        assert save_checkpoint(path, state.checkpoint()) == digest


@needs_compiler
@pytest.mark.parametrize("name", ["adamw", "clipped and averaged", "plateau", "accumulated", "augmented"])
@pytest.mark.parametrize("split", SPLITS)
def test_how_many_steps_are_made_at_a_time_makes_no_difference(name, split, kernels):
    case = cut(FAMILY[name], split, 2).but(epoch_count=12, metrics_interval_steps=4)
    outcomes = []
    for seconds in (0.0, 1e-3, 60.0):
        state = case.start()
        events = list(train(state, kernels=kernels, chunk_seconds=seconds))
        steps = [event.step for event in events if isinstance(event, StepEnded)]
        assert steps == sorted(set(steps))
        assert steps[-1] == state.step
        outcomes.append(([event for event in events if not isinstance(event, StepEnded)], vectors(state), len(steps)))
    assert outcomes[0][:2] == outcomes[1][:2] == outcomes[2][:2]
    assert outcomes[0][2] == case.spec.step_count(len(case.data))
    assert outcomes[2][2] < outcomes[0][2]


@pytest.mark.parametrize("name", ["clipped and averaged", "all layers at once", "layer norm", "stopped early"])
def test_a_checkpoint_is_of_the_whole_network(name):
    """But for its digest and its environment, one of a run in blocks is one of a run in one piece."""
    case = FAMILY[name]
    expected = case.start().checkpoint().vectors.named()
    for split in SPLITS:
        for most in (1, 2, 5):
            vectors_found = cut(case, split, most).start().checkpoint().vectors.named()
            assert vectors_found.keys() == expected.keys()
            for own, vector in expected.items():
                assert vectors_found[own].dtype == vector.dtype
                assert vectors_found[own].tobytes() == vector.tobytes()


@needs_compiler
@pytest.mark.parametrize("split", SPLITS)
def test_what_a_checkpoint_has_after_steps_is_what_is_restored(split, kernels):
    case = cut(FAMILY["stopped early"], split, 3)
    state = case.start()
    finish(state, kernels=kernels)
    saved = state.checkpoint()
    assert {
        "parameters",
        "best.parameters",
        "average.parameters",
        "moment.second_moment",
    } <= saved.vectors.named().keys()
    again = case.restore(saved).checkpoint()
    assert again.counters == saved.counters
    assert {name: own.tobytes() for name, own in again.vectors.named().items()} == {
        name: own.tobytes() for name, own in saved.vectors.named().items()
    }


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("normalization", ["none", "batch"])
@pytest.mark.parametrize("statistics", [False, True])
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_value_of_a_vector_is_in_one_block(count, normalization, statistics, order):
    layers = ModelSpec((5, 9, 7, 4), ("relu", "gelu"), (0.5, 0.0), 0.1, normalization).layers()
    layout = Layout(layers, [unit_parts(layers, block, count) for block in range(count)], order, statistics=statistics)
    whole = np.arange(1.0, layout.size + 1)
    parts = [np.zeros(size) for size in layout.sizes]
    layout.split(whole, parts)
    assert np.array_equal(np.sort(np.concatenate(parts)), whole)
    joined = np.zeros(layout.size)
    layout.join(parts, joined)
    assert np.array_equal(joined, whole)


@pytest.mark.parametrize("width", [1, 5, 64, 100])
@pytest.mark.parametrize("count", [1, 2, 3, 64])
def test_shares_are_as_equal_as_can_be_and_follow_each_other(width, count):
    shares = [share(width, block, count) for block in range(count)]
    assert [start for start, _ in shares] == [0, *(end for _, end in shares[:-1])]
    assert shares[-1][1] == width
    sizes = [end - start for start, end in shares]
    assert max(sizes) - min(sizes) <= 1


WIDE = {"layer_sizes": (784, 532, 10), "activations": ("relu",), "dropout_rates": (0.0,), "batch_size": 128}


def test_blocks_are_as_many_as_pay():
    def best(**changes):
        return best_blocks(run(**{"runner": "compiled"} | changes).spec)

    assert best()[1] == 1
    assert best(**WIDE) == ("units", 4)
    assert best(**WIDE, runner="plain") == ("units", 1)
    assert best(**WIDE, normalization="layer") == ("rows", 4)
    assert best(**WIDE, normalization="batch") == ("units", 4)
    assert best(**WIDE | {"layer_sizes": (784, 532), "activations": (), "dropout_rates": ()}) == ("rows", 4)
    assert best(**WIDE | {"batch_size": 32}) == ("units", 2)
    assert best(**WIDE | {"batch_size": 1024}) == ("rows", 4)  # less to add up than to copy for every block
    assert best(**WIDE | {"layer_sizes": (90000, 3, 10)}, normalization="batch") == ("units", 3)
    deep = {"layer_sizes": (20, *(64,) * 8, 3), "activations": ("relu",) * 8, "dropout_rates": (0.0,) * 8}
    assert best(**deep, batch_size=512) == ("rows", 2)  # less to add up than to exchange
    assert best(**deep, batch_size=512, normalization="batch")[0] == "units"


COMPILED = {"runner": "compiled"}


@pytest.mark.parametrize(
    ("changes", "split", "most"),
    [
        (COMPILED, "units", 8),
        (COMPILED, "rows", 16),
        (COMPILED | {"normalization": "layer"}, "units", 1),
        (COMPILED | {"normalization": "layer"}, "rows", 16),
        (COMPILED | {"normalization": "batch"}, "units", 8),
        (COMPILED | {"normalization": "batch"}, "rows", 1),
        (COMPILED | {"layer_sizes": (INPUTS, 500, 400, 3)}, "units", 64),
        (COMPILED | {"batch_size": 70}, "rows", 64),
        (COMPILED | {"batch_size": 2, "accumulation_steps": 3}, "rows", 6),
        (COMPILED | {"layer_sizes": (INPUTS, 3), "activations": (), "dropout_rates": ()}, "units", 1),
        ({}, "units", 1),
        ({}, "rows", 1),
        ({"device": "cuda"}, "units", 1),
    ],
)
def test_too_many_blocks_are_refused_by_name(changes, split, most):
    for count in (0, 1, most, most + 1):
        spec = run(split=split, block_count=count, **changes).spec
        assert largest_block_count(spec, split) == most
        found = find_violations(spec, None, None)
        assert [violation.field for violation in found] == ["block_count"] * (not 1 <= count <= most)
        for violation in found:
            assert violation.description.startswith(f"block_count must be between 1 and {most}, ")
            assert violation.description.endswith(f", got {count}")
            assert (f"blocks of {split}" if most > 1 else "the compiled runner") in violation.description


def test_runners_and_splits_that_there_are_none_of_are_refused_by_name():
    for changes, sentence in (
        ({"runner": "interpreted"}, "runner must be one of plain, compiled, got interpreted"),
        ({"split": "layers"}, "split must be one of units, rows, got layers"),
        (
            {"runner": "compiled", "device": "cuda", "block_count": 2},
            "block_count must be between 1 and 1, for blocks of units take the compiled runner on the CPU, a hidden ",
        ),
    ):
        (found,) = find_violations(run(**changes).spec, None, None)
        assert found.description.startswith(sentence)


@needs_compiler
def test_a_compiled_run_that_leaves_the_finite_numbers_says_so(kernels):
    for split in SPLITS:
        with pytest.raises(Diverged, match="try a smaller learning rate"):
            finish(cut(run(input_scale=1e37), split, 2).start(), kernels=kernels)


@needs_compiler
@pytest.mark.parametrize("end", ["finished", "closed", "diverged"])
def test_threads_end_with_the_run_and_those_of_the_matrix_library_come_back(end, kernels):
    def pools():
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    threads, before = set(threading.enumerate()), pools()
    case = run(input_scale=1e37) if end == "diverged" else FAMILY["augmented"]
    events = events_of(cut(case, "units", 3).start(), thread_count=3, kernels=kernels)
    if end == "diverged":
        with pytest.raises(Diverged):
            list(events)
    else:
        next(events)
        assert set(pools()) == {1}
        assert {f"compute-{number}" for number in (1, 2)} <= {thread.name for thread in threading.enumerate()}
        if end == "finished":
            list(events)
        else:
            events.close()
    assert set(threading.enumerate()) == threads
    assert pools() == before


@needs_compiler
def test_a_run_that_is_not_told_has_as_many_threads_as_products_have(kernels):
    with threadpool_limits(2, "blas"):
        events = events_of(cut(FAMILY["sgd"], "units", 3).start(), kernels=kernels)
    with threadpool_limits(2, "blas"), closing(events):
        next(events)
        assert sum(thread.name.startswith("compute-") for thread in threading.enumerate()) == 2  # one of each runner


@needs_compiler
@pytest.mark.parametrize("name", ["adamw", "sgd", "clipped and averaged", "dropout", "mixed up"])
@pytest.mark.parametrize("split", SPLITS)
def test_micro_batches_of_a_step_add_up_though_the_last_has_fewer_rows_than_there_are_blocks(name, split, kernels):
    """Steps of 512 and 2 rows, and one of 2 alone."""
    case = replace(FAMILY[name], data=noise(rows=1030)).unvalidated()
    case = case.but(batch_size=514, epoch_count=2, model=replace(case.spec.model, dtype="float64"))
    plain, state = case.start(), cut(case, split, 3).start()
    finish(plain)
    finish(state, thread_count=3, kernels=kernels)
    assert_close(state.checkpoint().vectors.named(), plain.checkpoint().vectors.named(), 1e-11)


@needs_compiler
def test_blocks_of_rows_that_get_none_leave_no_trace(kernels):
    """A last batch of one row, and blocks whose part of the parameters is empty."""
    small = run(
        task="binary", layer_sizes=(INPUTS, 1), activations=(), dropout_rates=(), dtype="float64", batch_size=23,
        accumulation_steps=3, epoch_count=4, **optimized(FAMILY["momentum"].spec.optimizer.kind, average_decay=0.5),
    )  # fmt: skip
    plain = small.start()
    finish(plain)
    for most in (3, 20):
        state = cut(small, "rows", most).start()
        finish(state, thread_count=2, kernels=kernels)
        assert_close(state.checkpoint().vectors.named(), plain.checkpoint().vectors.named(), 1e-11)


@needs_compiler
@pytest.mark.parametrize("most", [2, 5, 20])
def test_a_block_without_parameters_adds_nothing_to_the_norm_that_is_clipped(most, kernels):
    kind = FAMILY["momentum"].spec.optimizer.kind
    small = run(
        task="binary", layer_sizes=(INPUTS, 1), activations=(), dropout_rates=(), dtype="float64", epoch_count=4,
        **optimized(kind, 0.1, clip_norm=0.01),
    )  # fmt: skip
    plain, state = small.start(), cut(small, "rows", most).start()
    finish(plain)
    finish(state, kernels=kernels)
    assert_close(state.checkpoint().vectors.named(), plain.checkpoint().vectors.named(), 1e-11)
