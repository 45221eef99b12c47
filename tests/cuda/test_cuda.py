"""The core on CuPy, on a real device or an emulated one, against NumPy."""

from dataclasses import replace

import numpy as np
import pytest
from mlpd.core.arrays import Cpu, DeviceUnavailable, open_device
from mlpd.core.data import Dataset
from mlpd.core.metrics import evaluate
from mlpd.core.model import Classifier, Model
from mlpd.core.network import initial_parameters
from mlpd.core.spec import AdamSpec, ModelSpec, OptimizerSpec, ScheduleSpec, SgdSpec, TrainingSpec
from mlpd.core.training import Diverged, MetricsRecorded, StepEnded, TrainingState, train

pytestmark = pytest.mark.cuda

ROWS = 150
SIZES = (20, 24, 4)
KINDS: dict[str, SgdSpec | AdamSpec] = {
    "sgd": SgdSpec(),
    "momentum": SgdSpec(0.9),
    "nesterov": SgdSpec(0.9, nesterov=True),
    "adam": AdamSpec(),
}
SPEC = TrainingSpec(
    model=ModelSpec(SIZES, "he_normal", 1 / 255),
    train_dataset="datasets/train",
    train_sha256="",
    batch_size=16,
    epoch_count=5,
    optimizer=OptimizerSpec(AdamSpec(), 0.01),
    schedule=ScheduleSpec(0.02, "warmup_cosine", 1),
    seed=3,
    device="cuda",
    metrics_interval_steps=1,
)


@pytest.fixture(scope="module")
def cuda():
    try:
        device = open_device("cuda")
    except DeviceUnavailable as error:
        pytest.skip(str(error))
    yield device
    device.free()


def data(dtype="uint8"):
    random = np.random.default_rng(8)
    labels = random.integers(0, 4, ROWS).astype(np.uint8)
    centres = random.integers(60, 200, (4, SIZES[0]))
    inputs = np.clip(centres[labels] + random.integers(-50, 50, (ROWS, SIZES[0])), 0, 255)
    return Dataset(inputs.astype(dtype), labels)


def spec_of(kind, batch_size=16):
    return replace(SPEC, optimizer=OptimizerSpec(KINDS[kind], 0.01), batch_size=batch_size)


def test_the_device_tells_what_it_is(cuda):
    assert cuda.description().startswith("cuda:0 ")
    assert ", cupy " in cuda.description()


@pytest.mark.parametrize("initializer", ["he_normal", "he_uniform", "glorot_normal", "glorot_uniform"])
def test_initial_weights_are_the_same_bits(cuda, initializer):
    spec = replace(SPEC, model=replace(SPEC.model, initializer=initializer))
    on_device, on_host = (TrainingState.initial(device, spec, ROWS).model().parameters for device in (cuda, Cpu()))
    assert on_device.tobytes() == on_host.tobytes()


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "float16", "float32", "float64"])
def test_logits_of_every_type_agree_with_numpy(cuda, dtype):
    model, rows = Model(SIZES, 1 / 255, initial_parameters(SIZES, "he_normal", 1)), data(dtype)
    found, expected = (Classifier(device, model, 64).logits(rows.inputs) for device in (cuda, Cpu()))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch_size", [16, ROWS], ids=["shuffled", "full"])
@pytest.mark.parametrize("kind", KINDS)
def test_losses_agree_with_numpy_over_fifty_steps(cuda, kind, batch_size):
    spec = spec_of(kind, batch_size)
    runs = []
    for device in (cuda, Cpu()):
        state = TrainingState.initial(device, spec, ROWS)
        runs.append([event for event in train(state, data(), data()) if isinstance(event, MetricsRecorded)])
    found, expected = runs
    assert [(event.split, event.step) for event in found] == [(event.split, event.step) for event in expected]
    np.testing.assert_allclose([event.loss for event in found], [event.loss for event in expected], rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_is_the_run_that_never_stopped(cuda, kind):
    spec = spec_of(kind)
    whole = TrainingState.initial(cuda, spec, ROWS)
    events = train(whole, data(), data())
    for event in events:
        if isinstance(event, StepEnded) and event.step == 13:
            break
    resumed = TrainingState.restore(cuda, spec, ROWS, whole.checkpoint())
    rest = list(events)
    assert list(train(resumed, data(), data())) == rest
    assert resumed.model().parameters.tobytes() == whole.model().parameters.tobytes()


def test_a_checkpoint_moves_between_devices(cuda):
    state = TrainingState.initial(Cpu(), SPEC, ROWS)
    next(event for event in train(state, data(), None) if isinstance(event, StepEnded))
    checkpoint = state.checkpoint()
    moved = TrainingState.restore(cuda, SPEC, ROWS, checkpoint).checkpoint()
    assert moved.counters == checkpoint.counters
    assert all(moved.vectors[name].tobytes() == vector.tobytes() for name, vector in checkpoint.vectors.items())


def test_evaluation_agrees_with_numpy(cuda):
    model = Model(SIZES, 1 / 255, initial_parameters(SIZES, "he_normal", 1))
    (*_, found), (*_, expected) = (
        evaluate(Classifier(device, model, 64), data(), include_confusion=True) for device in (cuda, Cpu())
    )
    np.testing.assert_array_equal(found.confusion, expected.confusion)
    assert found.loss == pytest.approx(expected.loss, rel=1e-6)


def test_a_run_that_leaves_the_finite_numbers_says_so(cuda):
    spec = replace(spec_of("sgd"), model=ModelSpec((20, 24, 24, 4), "he_normal", 1e37))
    with pytest.raises(Diverged), np.errstate(all="ignore"):
        list(train(TrainingState.initial(cuda, spec, ROWS), data(), None))


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_neither_waits_nor_copies_nor_allocates(cuda, kind):
    cuda_on_cpu = pytest.importorskip("cuda_on_cpu", reason="only the emulator counts device work")
    spec = replace(spec_of(kind), metrics_interval_steps=1000)  # a report waits; a step must not
    state = TrainingState.initial(cuda, spec, ROWS)
    events = (event for event in train(state, data(), None) if isinstance(event, StepEnded))
    for _ in range(3):
        next(events)
    with cuda_on_cpu.measure() as work:
        next(events)
    assert work.h2d == work.d2h == work.syncs == work.mallocs == 0, work
