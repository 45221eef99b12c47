"""Shards of a network: together they are the network, and whoever works on them, the bits are the same."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mlpd.core.architecture import ModelSpec
from mlpd.core.arrays import Cpu
from mlpd.core.batches import Reader, RowFormat
from mlpd.core.blas import mkl_path
from mlpd.core.helpers import _GO, _WELCOME, HelperLost, Watch, Worker, _finished, _leaves
from mlpd.core.rules import find_violations
from mlpd.core.shard import make_shards
from mlpd.core.sharding import Layout, best_blas, best_shard_count, largest_shard_count, shard_parts
from mlpd.core.shared import SharedCpu, create_memory
from mlpd.core.training import MetricsRecorded, StepEnded, train
from threadpoolctl import threadpool_info

from .family import AUGMENTATION, FAMILY, INPUTS, SPEC, finish, needs_mkl, run, vectors

CAN_BE_CUT = {name: case for name, case in FAMILY.items() if largest_shard_count(case.spec.model, "cpu") > 1}
DEEP = run(
    layer_sizes=(INPUTS, 9, 7, 8, 3), activations=("relu", "tanh", "gelu"), dropout_rates=(0.2, 0.0, 0.1), batch_size=32
)
HELPED = {
    "deep": DEEP.but(shard_count=2),
    "three": DEEP.but(shard_count=3),
    **{
        name: CAN_BE_CUT[name].but(shard_count=2)
        for name in ("sgd", "clipped and averaged", "accumulated batch norm", "mixed up", "augmented", "weighted rows")
    },
    **({"mkl": DEEP.but(shard_count=2, blas="mkl")} if mkl_path() else {}),
}


def finish_alone(case, step_count):
    """Make steps without helpers; return what is learnt."""
    state = case.start()
    with Reader(state.device, state.spec, state.examples, state.team.slates, state.step) as reader:
        for _ in range(step_count):
            state.learn(reader)
    assert state.team.helped_piece_count == 0
    return vectors(state)


def endless(case):
    """Return ``case`` with so many epochs that helpers come before the last."""
    return case.unvalidated().but(epoch_count=100_000, metrics_interval_steps=10**6)


def train_until_helped(state, piece_count):
    """Train until helpers have taken part in so many pieces."""
    events = train(state)
    while state.team.helped_piece_count < piece_count:
        next(events)
    return events


@pytest.mark.parametrize("case", CAN_BE_CUT.values(), ids=CAN_BE_CUT)
@pytest.mark.parametrize(
    ("count", "blas"), [(2, "default"), (3, "default"), *(pytest.param(n, "mkl", marks=needs_mkl) for n in (1, 3))]
)
def test_shards_together_train_the_network(case, count, blas):
    case = case.but(model=replace(case.spec.model, dtype="float64"))
    states = [case.start(), case.but(shard_count=count, blas=blas).start()]
    events, cut_events = map(finish, states)
    assert [type(event) for event in events] == [type(event) for event in cut_events]
    for event, other in zip(events, cut_events, strict=True):
        if isinstance(event, MetricsRecorded):
            assert other.loss == pytest.approx(event.loss, rel=1e-6)
            assert (other.step, other.accuracy) == (event.step, pytest.approx(event.accuracy))
    whole, cut = map(vectors, states)
    for name in whole:
        np.testing.assert_allclose(np.frombuffer(cut[name]), np.frombuffer(whole[name]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", HELPED.values(), ids=HELPED)
def test_who_works_on_a_shard_makes_no_difference(case):
    state = endless(case).start()
    events = train_until_helped(state, 40)
    for event in events:
        if isinstance(event, StepEnded):
            break
    events.close()
    assert vectors(state) == finish_alone(endless(case), state.step)


@pytest.mark.parametrize("case", CAN_BE_CUT.values(), ids=CAN_BE_CUT)
@pytest.mark.parametrize(
    ("count", "blas"), [(2, "default"), *(pytest.param(n, "mkl", marks=needs_mkl) for n in (1, 2))]
)
def test_a_run_in_shards_resumes_bit_for_bit(case, count, blas):
    case = case.but(shard_count=count, blas=blas)
    whole = case.start()
    events = train(whole)
    for event in events:
        if isinstance(event, StepEnded) and event.step == 3:
            break
    resumed = case.restore(whole.checkpoint())
    assert finish(resumed) == list(events)
    assert vectors(resumed) == vectors(whole)


def test_a_checkpoint_is_of_the_whole_network():
    """But for its digest, one of a run in shards is one of a run in one piece."""
    case = CAN_BE_CUT["clipped and averaged"]
    states = [case.but(shard_count=count).start() for count in (1, 3)]
    whole, cut = (state.checkpoint().vectors for state in states)
    assert {name: vector.tobytes() for name, vector in cut.items()} == {
        name: vector.tobytes() for name, vector in whole.items()
    }


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("normalization", ["none", "batch"])
@pytest.mark.parametrize("statistics", [False, True])
def test_every_value_of_a_vector_is_in_one_shard(count, normalization, statistics):
    layers = ModelSpec((5, 9, 7, 4), ("relu", "gelu"), (0.5, 0.0), 0.1, normalization).layers()
    layout = Layout(layers, [shard_parts(layers, shard, count) for shard in range(count)], "F", statistics=statistics)
    whole = np.arange(1.0, layout.size + 1)
    parts = [np.zeros(size) for size in layout.sizes]
    layout.split(whole, parts)
    assert np.array_equal(np.sort(np.concatenate(parts)), whole)
    joined = np.zeros(layout.size)
    layout.join(parts, joined)
    assert np.array_equal(joined, whole)


@needs_mkl
def test_one_mkl_serves_where_each_shard_has_a_thread():
    def best(threads, **changes):
        return best_blas(run(**changes).spec, threads)

    assert best(1) == best(4, shard_count=2) == "mkl"
    assert best(4) == best(1, device="cuda") == "default"
    assert best(2, augmentation=AUGMENTATION) == "mkl"


def test_shards_are_as_many_as_pay():
    def best(threads=4, **changes):
        return best_shard_count(run(**changes).spec, threads)

    wide = {"layer_sizes": (784, 532, 10), "activations": ("relu",), "dropout_rates": (0.0,), "batch_size": 128}
    assert best() == 1
    assert best(**wide) == 4
    assert best(1, **wide) == 1
    assert best(**wide | {"normalization": "layer"}) == 1
    assert best(**wide | {"device": "cuda"}) == 1
    assert best(**wide | {"layer_sizes": (784, 532), "activations": (), "dropout_rates": ()}) == 1
    assert best(**wide | {"layer_sizes": (90000, 3, 10)}) == 3
    assert best(augmentation=FAMILY["augmented"].spec.augmentation, **wide) == 3


@pytest.mark.parametrize(
    ("changes", "most"),
    [({}, 8), ({"normalization": "layer"}, 1), ({"device": "cuda"}, 1), ({"layer_sizes": (INPUTS, 500, 400, 3)}, 64)],
)
def test_a_network_has_a_largest_number_of_shards(changes, most):
    for count in (0, 1, most, most + 1):
        spec = run(shard_count=count, **changes).spec
        found = [violation for violation in find_violations(spec, None, None) if violation.field == "shard_count"]
        assert len(found) == (not 1 <= count <= most)
        assert all(f"between 1 and {most}" in violation.description for violation in found)


def children():
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_lost_helper_ends_the_run_and_nothing_hangs():
    before = children()
    events = train_until_helped(endless(DEEP.but(shard_count=2)).start(), 5)
    (helper,) = children() - before
    os.kill(helper, signal.SIGKILL)
    with pytest.raises(HelperLost, match="helper 1 ended with status -9"):
        list(events)
    assert children() == before


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_run_that_breaks_off_in_a_step_leaves_no_helper():
    before = children()
    state = endless(DEEP.but(shard_count=2)).start()
    events = train_until_helped(state, 5)
    state.team.slates[0].targets.setflags(write=False)
    state.team.slates[1].targets.setflags(write=False)
    with pytest.raises(ValueError, match="read-only"):
        list(events)
    assert children() == before


def test_threads_of_the_matrix_library_come_back():
    def threads():
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    before = threads()
    events = train(DEEP.but(shard_count=2).start())
    next(events)
    assert set(threads()) == {1}
    events.close()
    assert threads() == before


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("piece_count", [0, 5], ids=["before it is ready", "while it works"])
def test_a_helper_ends_with_the_process_that_it_helps(piece_count, tmp_path):
    code = (
        "import os, signal; from tests.core.test_shards import *;"
        f"events = train_until_helped(endless(DEEP.but(shard_count=2)).start(), {piece_count}); next(events);"
        "print(*children(), flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    answer = tmp_path / "children"
    with answer.open("w") as file:
        killed = subprocess.run([sys.executable, "-c", code], stdout=file, check=False)
    assert killed.returncode == -signal.SIGKILL
    helper = Path(f"/proc/{int(answer.read_text())}")
    for _ in range(10**4):
        if not helper.exists() or "(zombie)" in (helper / "status").read_text():
            return
        threading.Event().wait(0.001)
    raise AssertionError("the helper lives on")


def test_help_is_left_alone_for_a_while_where_the_processor_is_lost():
    watch = Watch()

    def wants_help_after_computing():
        while not watch.wants_help():
            pass
        for _ in range(16):
            with watch:
                sum(range(2_000))
        return watch.wants_help()

    assert watch.wants_help()
    pauses = []
    for _ in range(9):
        for _ in range(16):
            with watch:
                threading.Event().wait(0.004)
        pauses.append(next(count for count in range(10_000) if watch.wants_help()))
    assert pauses == [8, 16, 32, 64, 128, 256, 512, 1024, 1024]
    for _ in range(16):
        with watch:
            sum(range(2_000))
        watch.note_wait(1.0)  # without giving up the processor
    assert not watch.wants_help()
    assert next(count for count in range(2_000) if watch.wants_help()) == 1023
    # On a busy machine this thread, too, may lose its processor for a while.
    assert any(wants_help_after_computing() for _ in range(100))


def test_a_helper_that_is_to_visit_comes_now_and_then_and_stays_away_when_nothing_is_ordered():
    case = DEEP.but(shard_count=2)
    device = SharedCpu(create_memory(2**20))
    form = RowFormat.of(case.spec, case.examples())
    helper = Worker(device, make_shards(device, case.spec, form)[1], 1, lambda: None)
    signals = helper.signals

    def wait(order):
        thread = threading.Thread(target=helper.wait_for_order, args=[order], daemon=True)
        thread.start()
        return thread

    def visits(enough, seconds=30.0):
        deadline = time.monotonic() + seconds
        while helper._idle_visits < enough and time.monotonic() < deadline:
            pass
        return helper._idle_visits

    signals[_WELCOME] = 1
    thread = wait(2)
    assert visits(3) >= 3
    assert signals[_leaves(1)] > 0
    signals[_GO] = 2
    thread.join(10)
    assert not thread.is_alive()
    thread = wait(3)
    assert visits(16) == visits(17, seconds=0.5) == 16  # in a row
    signals[_GO] = 3
    thread.join(10)
    assert not thread.is_alive()


def test_a_run_goes_on_alone_where_no_process_can_be_started(monkeypatch):
    case = DEEP.but(shard_count=2)
    expected = finish(case.start())
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    state = case.start()
    assert finish(state) == expected
    assert state.team.helped_piece_count == 0


def test_memory_is_shared_where_there_are_no_anonymous_files(monkeypatch):
    monkeypatch.delattr(os, "memfd_create", raising=False)
    state = endless(DEEP.but(shard_count=2)).start()
    train_until_helped(state, 5).close()


def test_shared_memory_has_an_end():
    device = SharedCpu(create_memory(2**16))
    device.zeros((64, 48), np.float64)
    with pytest.raises(MemoryError, match="65,536 bytes are used up"):
        device.zeros((64, 64), np.float64)


def test_there_is_a_place_for_every_signal_of_as_many_workers_as_there_can_be():
    signals = SharedCpu(create_memory(2**16)).signals()
    last = _finished(largest_shard_count(ModelSpec.plain((1, 1000, 1)), "cpu") - 1)
    signals[last] = 7
    assert signals.has(last, 7)
    assert not signals.has(last - 1, 1)


def test_arrays_are_where_another_process_finds_them():
    file = create_memory(2**16)
    first, second = SharedCpu(os.dup(file)), SharedCpu(file)
    for shape, dtype in ((3, "float32"), ((), "int64"), ((2, 5), "float64")):
        ours, theirs = (device.zeros(shape, dtype) for device in (first, second))
        ours[...] = 7
        assert (theirs == 7).all()
        assert theirs.shape == np.zeros(shape).shape
    assert isinstance(first, Cpu)
    signals, others = first.signals(), second.signals()
    signals.write_note([1.5, 2.0])
    signals[3] = 4
    assert others.has(3, 4)
    assert not others.has(3, 5)
    assert others.read_note(2) == [1.5, 2.0]


def test_the_number_of_shards_is_part_of_what_determines_a_run():
    digests = {replace(SPEC, shard_count=count).digest for count in (1, 2, 3)}
    assert len(digests) == 3
