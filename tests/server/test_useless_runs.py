"""Runs that could learn nothing are refused or fail; those that have learnt nothing say so. Over the wire."""

import numpy as np
import pytest
from grpc import StatusCode
from mlpd.core.data.splits import held_out_rows
from mlpd.v1 import trainer_service_pb2 as pb
from mlpd.v1 import types_pb2 as types
from safetensors.numpy import save

from .conftest import refused, rings_spec, upload_messages
from .test_capabilities import array, finished, spec_of

RANDOM = np.random.default_rng(5)
X = RANDOM.normal(size=(40, 4)).astype(np.float32)
HALVES = (np.arange(40) % 2).astype(np.int64)
NOW = 1_700_000_000_000_000_000
CLOCK = NOW + 500_000 * RANDOM.integers(0, 2, (200, 2))
HELD_OUT_ALONE = np.isin(np.arange(40), held_out_rows(HALVES, 10, 2)).astype(np.float64)


@pytest.fixture(scope="module", autouse=True)
def data(stubs):
    files: dict[str, dict[str, np.ndarray]] = {
        "alternating": {"inputs": X, "labels": HALVES},
        "nine-and-one": {"inputs": X[:10], "labels": (np.arange(10) == 4).astype(np.int64)},
        "five-and-five": {"inputs": X[:10], "labels": HALVES[:10]},
        "two-and-one": {"inputs": X[:3], "labels": (np.arange(3) == 1).astype(np.int64)},
        "held-out-weights": {"inputs": X, "labels": HALVES, "weights": HELD_OUT_ALONE},
        "odd-weights": {"inputs": X, "labels": HALVES, "weights": 1.0 * HALVES},
        "huge-weights": {"inputs": X, "labels": HALVES, "weights": np.full(40, 1e100)},
        "clock": {"inputs": CLOCK, "labels": (CLOCK.sum(axis=1) // 500_000) % 2},
        "tiny": {"inputs": X.astype(np.float64) * 1e-50, "labels": HALVES},
        "one-row": {"inputs": X[:1], "targets": X[:1, :2]},
    }
    for name, tensors in files.items():
        stubs.datasets.UploadDataset(upload_messages(name, save(tensors)))


NORMALISED = types.ModelSpec(normalization="batch")


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (spec_of("alternating", 4, 8, 2, model=NORMALISED, batch_size=1), "spec.batch_size"),
        (spec_of("one-row", 4, 8, 2, model=NORMALISED, batch_size=None), "spec.train_dataset"),
        (spec_of("five-and-five", 4, 8, 2, batch_size=None, validation_fraction=0.9), "spec.validation_fraction"),
        (spec_of("alternating", 4, 8, 3, loss=pb.Loss(class_weights=[0, 0, 1])), "spec.loss.class_weights"),
        (spec_of("alternating", 4, 8, 2, loss=pb.Loss(class_weights=[1e308, 1e308])), "spec.loss.class_weights"),
        (spec_of("alternating", 4, 8, 2, model=types.ModelSpec(input_scale=1e-300)), "spec.model.input_scale"),
    ],
)  # fmt: skip
def test_a_run_that_could_learn_nothing_is_refused_by_name(stubs, spec, field):
    refusal = refused(stubs.train, spec)
    assert (refusal.code, refusal.fields) == (StatusCode.INVALID_ARGUMENT, [field])


@pytest.mark.parametrize("weights", [np.full(40, 1e308), np.full(40, 1e200), np.full(40, 1e-320)])
def test_weights_that_do_not_add_up_are_refused_with_their_data_set(stubs, weights):
    content = save({"inputs": X, "labels": HALVES, "weights": weights})
    refusal = refused(stubs.datasets.UploadDataset, upload_messages("unsummable", content))
    assert refusal.code == StatusCode.INVALID_ARGUMENT
    assert "weights must add up to between 1e-150 and 1e+150" in refusal.message


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (spec_of("held-out-weights", 4, 8, 2, batch_size=10, validation_fraction=0.25), "must not all be 0, got 30 zeros"),
        (spec_of("odd-weights", 4, 8, 2, loss=pb.Loss(class_weights=[1, 1])), "must be above 0 in at least 2 classes, got 1"),
        (spec_of("tiny", 4, 8, 2), "inputs times input_scale must be at least"),
    ],
)  # fmt: skip
def test_a_run_whose_rows_leave_nothing_to_learn_fails_before_its_first_step(stubs, spec, reason):
    job = stubs.train(spec)
    events = stubs.events(job.name)
    error = events[-1].state_changed.error
    assert (error.code, reason in error.message) == (StatusCode.FAILED_PRECONDITION.value[0], True), error
    assert b"NOTHING_TO_LEARN" in error.SerializeToString()
    assert not any(event.HasField("metrics_recorded") for event in events)


def test_the_only_row_of_a_class_stays_in_training(stubs):
    job = finished(stubs, spec_of("nine-and-one", 4, 8, 2, batch_size=None, validation_fraction=0.5))
    assert job.spec.batch_size == 5


def test_balanced_classes_have_the_same_share_of_the_rows_to_train_on(stubs):
    spec = spec_of("nine-and-one", 4, 8, 2, batch_size=5, validation_fraction=0.5, loss=pb.Loss(balanced_classes=True))
    job = finished(stubs, spec)
    assert list(job.spec.loss.class_weights) == pytest.approx([5 / 8, 5 / 2])


def test_times_in_nanoseconds_are_learnt_and_predicted(stubs):
    model = types.ModelSpec(standardize_inputs=True)
    job = finished(stubs, spec_of("clock", 2, 16, 2, model=model, epoch_count=80))
    inputs = types.Tensor(data_type=types.DATA_TYPE_INT64, shape=CLOCK.shape, data=CLOCK.astype("<i8").tobytes())
    request = pb.EvaluateRequest(model=job.model_version, dataset="datasets/clock")
    assert stubs.trainer.Evaluate(request).correct_count == 200
    wanted = [pb.OUTPUT_KIND_CLASSES]
    answer = stubs.trainer.Predict(pb.PredictRequest(model=job.model_version, inputs=inputs, outputs=wanted))
    assert np.array_equal(array(answer.classes), (CLOCK.sum(axis=1) // 500_000) % 2)


def warnings_of(stubs, job):
    events = [event.message_logged for event in stubs.events(job.name)]
    return [event.message for event in events if event.severity == pb.MessageLogged.SEVERITY_WARNING]


def test_a_finite_but_useless_end_is_published_with_a_warning(stubs):
    wild = rings_spec(
        model=types.ModelSpec(layer_sizes=[2, 32, 3], activations=["tanh"]),
        optimizer=pb.Optimizer(sgd=pb.Optimizer.Sgd()),
        schedule=pb.Schedule(learning_rate=1e8),
    )
    (warning,) = warnings_of(stubs, finished(stubs, wild))
    assert warning.startswith("the model is no better than one that ignores its inputs: its loss on 600 rows")
    assert warnings_of(stubs, finished(stubs, rings_spec(epoch_count=20))) == []
