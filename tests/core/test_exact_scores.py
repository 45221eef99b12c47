"""Scores of outputs whose probabilities a float can't tell apart, and numbers that one answer gives twice."""

from math import exp, log1p

import numpy as np
import pytest
from mlpd.core.data.datasets import Dataset
from mlpd.core.devices.arrays import Cpu
from mlpd.core.models.metrics import evaluate
from mlpd.core.models.model import Model
from mlpd.core.models.predictor import Predictor
from mlpd.core.network.architecture import ModelSpec
from mlpd.core.network.losses import BufferedLoss, Poisson, SigmoidCrossEntropy
from mlpd.core.network.scaling import Scaling
from mlpd.core.network.tasks import TASKS


def model_that_repeats(task, width, loss=None, dtype="float32"):
    """Return a model whose outputs are its inputs."""
    spec = ModelSpec.plain((width, width), dtype=dtype)
    parameters = np.concatenate([np.eye(width).ravel(), np.zeros(width)]).astype(dtype)
    statistics = np.zeros(0, dtype)
    return Model(spec, task, loss or TASKS[task].losses[0](), parameters, statistics, Scaling(None, 1.0))


def scored(task, outputs, targets, *, device=None, **options):
    """Return all that an evaluation says of ``outputs``, with its scores."""
    outputs = np.array(outputs, np.float32)
    predictor = Predictor(device or Cpu(), model_that_repeats(task, outputs.shape[1], **options), 16)
    *_, counts = evaluate(
        predictor, Dataset(outputs, np.array(targets)), include_confusion=task != "multilabel", include_scores=True
    )
    return counts, counts.scores


@pytest.mark.parametrize("z", [-20.0, -200.0, 3e4])
def test_the_log_loss_of_a_confident_error_is_its_loss(z, device):
    """-log(sigmoid(-20)) is 20: what a float32 sigmoid rounds to 0 is not the least number of its type."""
    wrong = int(z < 0)
    for task, outputs, target in (
        ("binary", [[z]], [wrong]),
        ("multilabel", [[z]], [[float(wrong)]]),
        ("multiclass", [[0.0, z, -5.0]], [1 if z < 0 else 0]),
    ):
        counts, scores = scored(task, outputs, target, device=device)
        assert scores.values["log_loss"] == pytest.approx(abs(z), rel=1e-3)
        assert scores.values["log_loss"] == pytest.approx(counts.loss, rel=1e-6)


@pytest.mark.parametrize("z", [9.0, 15.0, 30.0, 80.0])
def test_the_loss_of_a_confident_answer_is_not_lost_in_rounding(z, device):
    for task, outputs, target in (("binary", [[z], [-z]], [1, 0]), ("multilabel", [[z, -z]], [[1.0, 0.0]])):
        counts, scores = scored(task, outputs, target, device=device)
        assert counts.loss == pytest.approx(log1p(exp(-z)), rel=1e-6, abs=0)
        assert scores.values["log_loss"] == pytest.approx(log1p(exp(-z)), rel=1e-12, abs=0)
        assert scores.values["brier"] == pytest.approx((exp(-z) / (1 + exp(-z))) ** 2, rel=1e-12, abs=0)
    counts, scores = scored("multiclass", [[z, 0.0, 0.0]], [0])
    miss = 2 * exp(-z) / (1 + 2 * exp(-z))
    assert counts.loss == pytest.approx(miss, abs=1e-6)
    assert scores.values["log_loss"] == pytest.approx(log1p(2 * exp(-z)), rel=1e-12, abs=0)
    assert scores.values["brier"] == pytest.approx(1.5 * miss**2, rel=1e-12, abs=0)
    assert scores.values["calibration_error"] == pytest.approx(miss, rel=1e-12, abs=0)


def test_soft_labels_have_the_log_loss_that_is_their_loss():
    counts, scores = scored("multilabel", [[30.0, -3.0], [0.5, -60.0]], np.array([[0.9, 0.2], [0.5, 0.75]], np.float32))
    assert scores.values["log_loss"] == pytest.approx(counts.loss, rel=1e-6)


def test_numbers_have_the_squared_error_that_is_their_loss():
    counts, scores = scored("regression", [[1.5, 2.0], [0.0, -7.0]], np.array([[1.0, 2.0], [3.0, 4.0]], np.float32))
    assert scores.values["mean_squared_error"] == pytest.approx(counts.loss, rel=1e-6)


def test_outputs_that_round_to_one_probability_still_have_an_order():
    outputs = np.array([-40.0, -30.0, -20.0, 20.0, 30.0, 40.0])
    labels = np.array([0, 1, 1, 0, 0, 1])
    pairs = [(low, high) for low in outputs[labels == 0] for high in outputs[labels == 1]]
    area = sum(low < high for low, high in pairs) / len(pairs)
    assert area not in {0, 0.5, 1}
    assert scored("binary", outputs[:, None], labels)[1].values["roc_auc"] == area
    assert scored("multilabel", outputs[:, None], labels[:, None].astype(np.uint8))[1].values["macro_roc_auc"] == area
    two = np.stack([-outputs / 2, outputs / 2], axis=1)
    assert scored("multiclass", two, labels)[1].values["roc_auc"] == area
    three = np.concatenate([np.zeros((6, 1)), outputs[:, None], np.full((6, 1), -90.0)], axis=1)
    _, scores = scored("multiclass", three, labels)
    assert [own.roc_auc for own in scores.classes] == [area, area, None]


def test_rows_with_one_probability_are_ties_however_their_outputs_lie():
    """Of each row, class 0 has the same odds: the others are the same in another order, and all are shifted."""
    outputs = np.array([[2.0, 0.0, 1.0, -1.5], [2.0, -1.5, 1.0, 0.0], [12.0, 11.0, 10.0, 8.5]])
    _, scores = scored("multiclass", outputs, [0, 1, 0])
    assert scores.classes[0].roc_auc == 0.5


def test_a_class_is_ranked_by_its_odds_against_all_others():
    """Its output alone, or the distance to the largest, would put the rows in another order."""
    outputs = np.array([[3.0, 2.9, 2.9], [1.0, -5.0, -5.0], [2.0, 2.5, -9.0], [2.0, 2.4, 2.4]])
    labels = np.array([1, 0, 0, 2])
    shares = np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)
    assert shares[:, 0].argsort().tolist() == [3, 0, 2, 1]
    assert scored("multiclass", outputs, labels)[1].classes[0].roc_auc == 1


@pytest.mark.parametrize(
    ("task", "outputs", "targets"),
    [
        ("binary", [[1e-9], [-1e-9], [0.0]], [1, 0, 0]),
        ("multiclass", [[1e-9, 2e-9, -3.0], [2e-9, 1e-9, -3.0], [1.0, 1.0, 0.0]], [1, 0, 0]),
        ("multiclass", [[0.0, 1e-9]], [1]),
        ("multilabel", [[1e-9, -1e-9, 0.0]], [[1.0, 0.0, 0.0]]),
    ],
)
def test_one_answer_has_one_accuracy(task, outputs, targets, device):
    """Decisions are made on outputs; as probabilities they would be equal."""
    counts, scores = scored(task, outputs, targets, device=device)
    assert counts.accuracy == scores.values["accuracy"] == 1
    assert scores.values["weighted_recall"] == 1
    assert scores.values.get("label_accuracy", 1) == 1
    assert all(value == 1 for name, value in scores.values.items() if name.startswith("top_"))
    assert task == "multilabel" or counts.confusion.trace() == counts.row_count


def test_a_label_that_the_models_type_rounds_to_a_half_is_counted_once():
    counts, scores = scored("multilabel", [[1.0], [-1.0]], np.array([[0.5 + 1e-12], [0.5 + 1e-12]]))
    assert counts.accuracy == scores.values["accuracy"]


@pytest.mark.parametrize("task", ["binary", "multilabel", "multiclass"])
def test_small_probabilities_are_served_beside_large_ones(task):
    outputs = np.array([[-20.0], [20.0], [80.0]], np.float32)
    if task == "multiclass":
        outputs = np.concatenate([np.zeros_like(outputs), outputs], axis=1)
    shares = model_that_repeats(task, outputs.shape[1]).predictions(outputs)
    assert shares.dtype == np.float32
    yes = [exp(-20) / (1 + exp(-20)), 1, 1]
    no = [1, exp(-20) / (1 + exp(-20)), exp(-80)]
    expected = np.array(yes)[:, None] if task == "multilabel" else np.stack([no, yes], axis=1)
    np.testing.assert_allclose(shares, expected, rtol=1e-6)


def test_means_beyond_the_models_type_have_scores_of_their_own():
    """exp(80) squared is no float32; the scores of a model are not in its type."""
    counts, scores = scored("regression", [[80.0]], [[0.0]], loss=Poisson())
    assert counts.loss == pytest.approx(exp(80), rel=1e-5)
    assert scores.values["mean_squared_error"] == pytest.approx(exp(160), rel=1e-9)


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e9 + 0.3])
def test_the_r2_of_a_constant_target_does_not_hang_on_the_rounding_of_its_mean(value):
    targets = np.full((11, 1), value)
    _, scores = scored("regression", np.full((11, 1), 0.25), targets)
    assert scores.values["r2"] == 0


def test_the_loss_of_a_sigmoid_is_exact_on_both_sides(device):
    xp = device.xp
    for z, t in ((25.0, 1.0), (-25.0, 0.0), (25.0, 0.0), (-25.0, 1.0)):
        loss, total = BufferedLoss(device, SigmoidCrossEntropy(), 1, 1, np.float32), xp.zeros((), dtype=xp.float64)
        outputs, targets = (device.from_host(np.array([[value]], np.float32)) for value in (z, t))
        loss(outputs, targets, None, xp.empty((1, 1), dtype=xp.float32), total, 1.0)
        assert float(total) == pytest.approx(np.logaddexp(0, (1 - 2 * t) * z), rel=1e-6, abs=0)
