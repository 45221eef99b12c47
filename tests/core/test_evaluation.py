"""Prediction and exact evaluation of a model."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from mlpd.core.data.datasets import Dataset
from mlpd.core.devices.arrays import Cpu
from mlpd.core.models.metrics import FaultyRows, evaluate
from mlpd.core.models.model import Model
from mlpd.core.models.predictor import Predictor
from mlpd.core.network.architecture import ModelSpec
from mlpd.core.network.losses import LOSSES, Huber, SigmoidCrossEntropy, SoftmaxCrossEntropy
from mlpd.core.network.network import initial_parameters
from mlpd.core.network.scaling import Scaling
from mlpd.core.network.tasks import TASKS
from mlpd.core.spec.split import SPLITS, largest_block_count

from ..conftest import needs_compiler
from .family import FAMILY, finish, noise, run

SPEC = ModelSpec.plain((5, 7, 3), input_scale=0.5)
MODEL = Model(
    SPEC,
    "multiclass",
    SoftmaxCrossEntropy(),
    initial_parameters(SPEC.layers(), "he_normal", 1, "float32"),
    np.zeros(0, np.float32),
    Scaling(None, 0.5),
)


def rows(count=40):
    random = np.random.default_rng(2)
    return Dataset(random.integers(0, 256, (count, 5), np.uint8), random.integers(0, 3, count).astype(np.uint8))


def plain_outputs(inputs):
    w1, b1, w2, b2 = np.split(MODEL.parameters.astype(float), np.cumsum([35, 7, 21]))
    return np.maximum(inputs * 0.5 @ w1.reshape(5, 7) + b1, 0) @ w2.reshape(7, 3) + b2


@pytest.mark.parametrize("capacity", [1, 7, 40, 100])
def test_outputs_are_those_of_a_plain_float64_network(capacity, device):
    inputs = rows().inputs
    assert np.allclose(Predictor(device, MODEL, capacity).outputs(inputs), plain_outputs(inputs), atol=1e-3)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32", "int64"])
def test_the_same_rows_in_another_type_give_the_same_bits(dtype, device):
    inputs = rows().inputs
    predictor = Predictor(device, MODEL, 16)
    assert np.array_equal(predictor.outputs(inputs.astype(dtype)), predictor.outputs(inputs))


def test_standardised_inputs_are_shifted_and_scaled(device):
    inputs = rows().inputs
    shift, factor = inputs.mean(axis=0), 1 / inputs.std(axis=0)
    model = replace(MODEL, spec=replace(SPEC, input_scale=1.0), scaling=Scaling(shift, factor))
    scaled = replace(MODEL, spec=replace(SPEC, input_scale=1.0), scaling=Scaling(None, 1.0))
    found = Predictor(device, model, 16).outputs(inputs)
    assert np.allclose(found, Predictor(Cpu(), scaled, 16).outputs((inputs - shift) * factor), atol=1e-5)


def test_evaluation_counts_exactly(device):
    data = rows()
    *_, counts = evaluate(Predictor(device, MODEL, 16), data, include_confusion=True, include_scores=True)
    outputs = plain_outputs(data.inputs)
    predicted = outputs.argmax(axis=1)
    confusion = np.zeros((3, 3), int)
    np.add.at(confusion, (data.targets, predicted), 1)
    shares = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    assert counts.row_count == 40
    assert counts.correct_count == int((predicted == data.targets).sum())
    assert counts.confusion is not None
    assert np.array_equal(counts.confusion, confusion)
    loss = -np.log(shares[np.arange(40), data.targets]).mean()
    assert counts.loss == pytest.approx(loss, rel=1e-4)
    assert counts.scores is not None
    assert counts.scores.values["log_loss"] == pytest.approx(loss, rel=1e-4)
    assert counts.scores.values["accuracy"] == counts.accuracy


def test_confusion_and_scores_can_each_be_asked_for_alone():
    predictor, data = Predictor(Cpu(), MODEL, 16), rows()
    *_, both = evaluate(predictor, data, include_confusion=True, include_scores=True)
    *_, first = evaluate(predictor, data, include_confusion=True)
    *_, second = evaluate(predictor, data, include_scores=True)
    assert both.scores == second.scores
    assert first.confusion is not None
    assert both.confusion is not None
    assert first.confusion.tolist() == both.confusion.tolist()
    assert (first.scores, second.confusion) == (None, None)


def scored(name, device):
    """Return the counts of a trained model of the family on its validation rows, its outputs, and the rows."""
    case = FAMILY[name]
    data, state = case.validation, case.start()
    assert data
    finish(state)
    model = state.trained().model
    *_, counts = evaluate(Predictor(device, model, 16), data, include_confusion=True, include_scores=True)
    assert counts.row_count == len(data)
    return counts, Predictor(Cpu(), model, 1000).outputs(data.inputs), data


@pytest.mark.parametrize(("name", "predicted"), [("regression", np.copy), ("huber", np.copy), ("poisson", np.exp)])
def test_numbers_are_scored_by_their_errors(name, predicted, device):
    counts, outputs, data = scored(name, device)
    errors = predicted(outputs) - data.targets
    assert (counts.correct_count, counts.accuracy, counts.confusion) == (None, None, None)
    assert counts.scores.values["mean_squared_error"] == pytest.approx((errors**2).mean(), rel=1e-5)


@pytest.mark.parametrize("name", ["binary", "weighted rows"])
def test_classes_are_scored_by_their_hits(name, device):
    counts, outputs, data = scored(name, device)
    predicted = outputs.argmax(axis=1) if name == "weighted rows" else (outputs[:, 0] > 0).astype(int)
    assert counts.correct_count == (predicted == data.targets).sum() == counts.confusion.trace()
    assert counts.scores.values["accuracy"] == counts.accuracy
    assert counts.confusion.sum(axis=1).tolist() == np.bincount(data.targets).tolist()
    assert counts.confusion.sum(axis=0).tolist() == np.bincount(predicted, minlength=len(counts.confusion)).tolist()


def test_labels_are_scored_by_rows_that_are_right_in_all(device):
    counts, outputs, data = scored("multilabel", device)
    assert counts.correct_count == ((outputs > 0) == data.targets).all(axis=1).sum()
    assert counts.scores.values["accuracy"] == counts.accuracy
    assert counts.confusion is None


def test_the_last_validation_of_a_run_is_the_evaluation_of_its_model():
    case = run()
    state = case.start()
    scores = [event for event in finish(state) if getattr(event, "split", "") == "validation"][-1]
    assert case.validation
    *_, counts = evaluate(Predictor(Cpu(), state.trained().model, 512), case.validation)
    assert (scores.loss, scores.accuracy) == (counts.loss, counts.accuracy)


@needs_compiler
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize(
    "name", ["sgd", "layer norm", "averaged batch norm", "binary", "regression", "standardised", "dropout"]
)
def test_validations_of_a_compiled_run_are_evaluations_of_its_model_whoever_computes_them(name, split, kernels):
    validation = noise(FAMILY[name].spec.task, rows=1030, dtype=FAMILY[name].data.inputs.dtype.name, seed=9)
    case = replace(FAMILY[name], validation=validation).compiled(split, 1)
    case = case.but(block_count=min(3, largest_block_count(case.spec, split)), epoch_count=2)
    found = []
    for thread_count in (1, 2):
        state = case.start()
        events = finish(state, thread_count=thread_count, kernels=kernels)
        found.append([event for event in events if getattr(event, "split", "") == "validation"])
    assert found[0] == found[1]
    *_, counts = evaluate(Predictor(Cpu(), state.trained().model, 512), validation)
    assert found[0][-1].loss == pytest.approx(counts.loss, rel=1e-5)
    assert found[0][-1].accuracy == pytest.approx(counts.accuracy, abs=2e-3)


def test_evaluation_leaves_weights_and_smoothing_of_training_out():
    """Two models of the same weights have the same validation loss, however they were trained."""
    case = run(epoch_count=1)
    smooth = FAMILY["smoothed"].but(epoch_count=1)
    losses = []
    for each in (case, smooth):
        state = each.start()
        *_, counts = evaluate(Predictor(Cpu(), state.trained().model, 512), noise(rows=20))
        losses.append(counts.loss)
    assert losses[0] == losses[1]


def test_threads_can_share_a_model():
    inputs = rows(2000).inputs
    expected = Predictor(Cpu(), MODEL, 32).outputs(inputs).tobytes()
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda _: Predictor(Cpu(), MODEL, 32).outputs(inputs).tobytes(), range(8))
        assert set(found) == {expected}


def test_evaluation_can_be_stopped_after_any_batch():
    first = next(evaluate(Predictor(Cpu(), MODEL, 16), rows()))
    assert (first.row_count, first.confusion, first.scores) == (16, None, None)


def test_validation_measures_the_loss_that_is_trained():
    model = replace(MODEL, task="regression", loss=Huber(0.25))
    targets = np.random.default_rng(3).normal(size=(40, 3)).astype(np.float32)
    (*_, counts) = evaluate(Predictor(Cpu(), model, 16), Dataset(rows().inputs, targets))
    distance = np.abs(plain_outputs(rows().inputs) - targets)
    values = np.where(distance < 0.25, distance**2 / 2, 0.25 * (distance - 0.125))
    assert counts.loss == pytest.approx(values.mean(), rel=1e-4)


def test_a_label_is_a_yes_above_a_half():
    model = replace(MODEL, task="multilabel", loss=SigmoidCrossEntropy())
    decided = plain_outputs(rows().inputs) > 0
    soft = np.where(decided, 0.75, 0.25).astype(np.float32)
    (*_, counts) = evaluate(Predictor(Cpu(), model, 16), Dataset(rows().inputs, soft), include_scores=True)
    assert counts.scores
    assert counts.accuracy == counts.scores.values["accuracy"] == 1.0


def test_a_model_that_overflows_gives_what_it_gives_without_a_warning(device):
    predictor = Predictor(device, replace(MODEL, parameters=MODEL.parameters * np.float32(1e30)), 16)
    assert not np.isfinite(predictor.outputs(rows().inputs)).all()
    *_, counts = evaluate(predictor, rows())
    assert not np.isfinite(counts.loss)


@pytest.mark.parametrize(
    "name", ["multiclass", "binary", "multilabel", "regression", "huber", "mean_absolute", "poisson"]
)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_output_that_is_not_finite_always_shows_in_the_loss_and_its_row_is_known(name, bad, device):
    task = name if name in TASKS else "regression"
    loss = TASKS[task].losses[0]() if name in TASKS else LOSSES[name]()
    width = 1 if task == "binary" else 3
    spec = ModelSpec.plain((width, width))
    parameters = np.concatenate([np.eye(width).ravel(), np.zeros(width)]).astype(np.float32)
    repeats = replace(MODEL, spec=spec, task=task, loss=loss, parameters=parameters)
    repeats = replace(repeats, scaling=Scaling(None, 1.0))
    inputs = np.ones((40, width), np.float32)
    targets = np.arange(40) % width if TASKS[task].has_classes else np.zeros((40, width), np.float32)
    predictor = Predictor(device, repeats, 16)
    *_, counts = evaluate(predictor, Dataset(inputs, targets), include_scores=True)
    assert (counts.faulty, bool(counts.scores)) == (FaultyRows(), True)
    for row in (3, 17, 39):
        inputs[row] = bad
    *_, counts = evaluate(predictor, Dataset(inputs, targets), include_scores=True)
    assert not np.isfinite(counts.loss)
    assert counts.faulty == FaultyRows(3, (3, 17, 39))
    assert counts.scores is None
