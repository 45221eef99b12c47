"""Scores against scikit-learn, and what it does not have against plain loops."""

import numpy as np
import pytest
from mlpd.core.models.scores import Scorer

metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")

AVERAGES = ("macro", "weighted")
RATIOS = ("precision", "recall", "f1")


def scored(task, classes, targets, outputs, batch=17):
    scorer = Scorer(task, classes)
    for start in range(0, len(targets), batch):
        scorer.add(targets[start : start + batch], outputs[start : start + batch])
    return scorer.scores()


def log_odds(shares):
    return np.log(shares) - np.log1p(-shares)


def drawn(classes, rows=400, seed=6, *, ties=False):
    random = np.random.default_rng(seed)
    targets = random.integers(0, classes, rows)
    logits = random.normal(size=(rows, classes)) + 1.2 * np.eye(classes)[targets]
    if ties:
        logits = np.round(logits)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares = exponentials / np.sort(exponentials).sum(axis=1, keepdims=True)  # equal in whatever order the rest is
    return targets, logits, shares


def means(targets, predicted, **options):
    return {
        f"{average}_{name}": getattr(metrics, f"{name}_score")(
            targets, predicted, average=average, zero_division=0, **options
        )
        for average in AVERAGES
        for name in RATIOS
    }


def classwise(found):
    return np.array([[row.row_count, row.precision, row.recall, row.f1] for row in found.classes])


def expected_classwise(targets, predicted, **options):
    precision, recall, f1, count = metrics.precision_recall_fscore_support(
        targets, predicted, average=None, zero_division=0, **options
    )
    return np.stack([count, precision, recall, f1], axis=1)


def calibration_error(confidence, hits):
    """Guo et al. 2017, equation 3, over bins [0, 1/15), [1/15, 2/15), ..., [14/15, 1]."""
    total = 0.0
    for k in range(15):
        inside = [i for i, share in enumerate(confidence) if k == min(int(share * 15), 14)]
        if inside:
            total += len(inside) * abs(np.mean([hits[i] for i in inside]) - np.mean([confidence[i] for i in inside]))
    return total / len(confidence)


def top_accuracy(targets, shares, count):
    """A row is right if fewer than ``count`` classes are more probable than its own, or as probable and first."""
    right = 0
    for target, row in zip(targets, shares, strict=True):
        order = sorted(range(len(row)), key=lambda k: (-row[k], k))
        right += target in order[:count]
    return right / len(targets)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("classes", [3, 7])
def test_multiclass_scores_are_those_of_scikit_learn(classes, ties):
    targets, logits, shares = drawn(classes, ties=ties)
    predicted = shares.argmax(axis=1)
    found = scored("multiclass", classes, targets, logits)
    expected = means(targets, predicted) | {
        "accuracy": metrics.accuracy_score(targets, predicted),
        "log_loss": metrics.log_loss(targets, shares),
        "brier": metrics.brier_score_loss(targets, shares, scale_by_half=False),
        "macro_roc_auc": metrics.roc_auc_score(targets, shares, multi_class="ovr"),
        "calibration_error": calibration_error(shares.max(axis=1), predicted == targets),
    }
    expected |= {f"top_{k}_accuracy": top_accuracy(targets, shares, k) for k in (2, 3, 5) if k < classes}
    assert found.values == pytest.approx(expected)
    assert np.allclose(classwise(found), expected_classwise(targets, predicted))
    areas = [metrics.roc_auc_score(targets == k, shares[:, k]) for k in range(classes)]
    assert [row.roc_auc for row in found.classes] == pytest.approx(areas)


@pytest.mark.parametrize("count", [2, 3])
def test_top_accuracy_without_ties_is_that_of_scikit_learn(count):
    targets, logits, shares = drawn(5)
    found = scored("multiclass", 5, targets, logits).values[f"top_{count}_accuracy"]
    assert found == pytest.approx(metrics.top_k_accuracy_score(targets, shares, k=count))


@pytest.mark.parametrize("ties", [False, True])
def test_binary_scores_are_those_of_scikit_learn(ties):
    targets, _, shares = drawn(2)
    if ties:
        first = np.clip(np.round(shares[:, :1] * 16), 1, 15) / 16
        shares = np.concatenate([first, 1 - first], axis=1)
    found = scored("binary", 2, targets, log_odds(shares[:, 1:]))
    predicted = (shares[:, 1] > 0.5).astype(int)
    area = metrics.roc_auc_score(targets, shares[:, 1])
    expected = means(targets, predicted) | {
        "accuracy": metrics.accuracy_score(targets, predicted),
        "log_loss": metrics.log_loss(targets, shares[:, 1]),
        "brier": metrics.brier_score_loss(targets, shares[:, 1]),
        "roc_auc": area,
        "macro_roc_auc": area,
        "calibration_error": calibration_error(shares.max(axis=1), predicted == targets),
    }
    assert found.values == pytest.approx(expected)
    assert np.allclose(classwise(found), expected_classwise(targets, predicted))


def test_one_output_and_two_classes_score_alike():
    targets, logits, _ = drawn(2)
    one = scored("binary", 2, targets, logits[:, 1:] - logits[:, :1])
    assert one.values == pytest.approx(scored("multiclass", 2, targets, logits).values)


def test_multilabel_scores_are_those_of_scikit_learn():
    random = np.random.default_rng(3)
    targets = random.integers(0, 2, (300, 4)).astype(np.float32)
    shares = np.clip(0.3 * targets + random.uniform(0, 0.7, targets.shape), 1e-6, 1 - 1e-6)
    predicted = shares > 0.5
    found = scored("multilabel", 4, targets, log_odds(shares))
    expected = means(targets, predicted) | {
        "accuracy": metrics.accuracy_score(targets, predicted),
        "label_accuracy": 1 - metrics.hamming_loss(targets, predicted),
        "log_loss": np.mean([metrics.log_loss(targets[:, k], shares[:, k]) for k in range(4)]),
        "brier": np.mean([metrics.brier_score_loss(targets[:, k], shares[:, k]) for k in range(4)]),
        "macro_roc_auc": metrics.roc_auc_score(targets, shares, average="macro"),
    }
    assert found.values == pytest.approx(expected)
    assert np.allclose(classwise(found), expected_classwise(targets, predicted))


def test_a_label_above_a_half_is_a_yes():
    found = scored("multilabel", 2, np.array([[0.55, 0.45], [0.5, 1.0]]), np.array([[0.2, -0.2], [0.0, 2.0]]))
    assert [row.row_count for row in found.classes] == [1, 1]
    assert found.values["accuracy"] == 1


@pytest.mark.parametrize("outputs", [1, 3])
def test_regression_scores_are_those_of_scikit_learn(outputs):
    random = np.random.default_rng(3)
    targets = random.normal(size=(200, outputs))
    predictions = targets + 0.3 * random.normal(size=targets.shape)
    assert scored("regression", outputs, targets, predictions).values == pytest.approx(
        {
            "mean_squared_error": metrics.mean_squared_error(targets, predictions),
            "root_mean_squared_error": np.sqrt(metrics.mean_squared_error(targets, predictions)),
            "mean_absolute_error": metrics.mean_absolute_error(targets, predictions),
            "r2": metrics.r2_score(targets, predictions),
        }
    )


@pytest.mark.parametrize("error", [0.0, 0.5])
def test_the_r2_of_a_constant_target_is_that_of_scikit_learn(error):
    targets = np.stack([np.full(9, 2.0), np.arange(9.0)], axis=1)
    predictions = targets + np.array([error, 0.1])
    found = scored("regression", 2, targets, predictions).values["r2"]
    assert found == pytest.approx(metrics.r2_score(targets, predictions))


def test_the_last_bins_of_the_calibration_error_are_apart():
    """Confidences of 0.9 that are right and of 0.99 and 1 that are wrong do not make up for each other."""
    logits = np.stack([log_odds(np.array([0.9, 0.9, 0.99, 1 - 1e-9])), np.zeros(4)], axis=1)
    found = scored("multiclass", 2, np.array([0, 0, 1, 1]), logits)
    assert found.values["calibration_error"] == pytest.approx((2 * 0.1 + 0.99 + 1) / 4)


def test_means_are_over_the_classes_that_occur_or_were_said_to():
    targets, logits, _ = drawn(4)
    targets = np.minimum(targets, 1)
    logits[:, 3] = -100
    predicted = logits.argmax(axis=1)
    found = scored("multiclass", 4, targets, logits)
    expected = means(targets, predicted, labels=[0, 1, 2])
    assert {name: found.values[name] for name in expected} == pytest.approx(expected)
    assert [row.roc_auc is None for row in found.classes] == [False, False, True, True]
    assert found.values["macro_roc_auc"] == pytest.approx(np.mean([row.roc_auc for row in found.classes[:2]]))


def test_a_ratio_without_a_denominator_is_zero():
    found = scored("multiclass", 3, np.array([0, 0, 1]), np.eye(3)[[0, 0, 0]])
    assert (found.classes[1].precision, found.classes[1].recall, found.classes[1].f1) == (0, 0, 0)
    assert (found.classes[2].row_count, found.classes[2].recall) == (0, 0)


def test_a_truth_of_probability_zero_in_any_type_has_a_finite_loss():
    found = scored("multiclass", 2, np.array([1]), np.array([[1e4, -1e4]], np.float32))
    assert found.values["log_loss"] == 2e4


def test_scores_do_not_depend_on_how_rows_are_cut():
    targets, logits, _ = drawn(4)
    assert scored("multiclass", 4, targets, logits, batch=1) == scored("multiclass", 4, targets, logits, batch=1000)


def test_one_class_alone_has_no_area():
    found = scored("binary", 2, np.ones(3, int), np.array([[-1.4], [0.8], [2.2]], np.float32))
    assert "roc_auc" not in found.values
    assert [own.roc_auc for own in found.classes] == [None, None]
