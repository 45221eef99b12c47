"""Tasks: targets as rows of numbers, which outputs hit them, and rows that are mixed."""

import numpy as np
import pytest
from mlpd.core.network.losses import MeanSquared, SigmoidCrossEntropy, SoftmaxCrossEntropy
from mlpd.core.network.tasks import TASKS, MixUp, OutputKind, mixing_share

OUTPUTS = np.array([[1.0, 3.0, 3.0], [-1.0, -2.0, -3.0], [0.5, 0.0, -0.5], [2.0, 1.0, 4.0]])


def prepared(name, device, targets, outputs=3, smoothing=0.0):
    task = TASKS[name](device, outputs, 10, np.float64, smoothing)
    return task, device.from_host(TASKS[name].prepare(targets, "float64"))


def hits(name, device, outputs, targets):
    task, on_device = prepared(name, device, targets, outputs.shape[1])
    total = device.xp.zeros((), dtype=device.xp.int64)
    for _ in range(2):
        task.count_hits(device.from_host(outputs), on_device, total)
    return int(total) / 2


def rows(name, device, targets, outputs=3, smoothing=0.0):
    task, on_device = prepared(name, device, targets, outputs, smoothing)
    spread = device.xp.empty((len(targets), outputs), dtype=device.xp.float64)
    task.spread(on_device, spread)
    return device.to_host(spread).tolist()


def test_class_indices_become_one_hot_rows(device):
    assert rows("multiclass", device, np.array([2, 0])) == [[0, 0, 1], [1, 0, 0]]
    assert rows("binary", device, np.array([1, 0]), 1) == [[1], [0]]


def test_numbers_stay_as_they_are(device):
    for name in ("multilabel", "regression"):
        assert rows(name, device, np.array([[0.0, 0.5, 1.0]], np.float32)) == [[0, 0.5, 1]]


def test_smoothing_shares_out_its_part_among_the_classes(device):
    """Szegedy et al. 2016 (arXiv:1512.00567), section 7; a yes or no has two classes."""
    assert rows("multiclass", device, np.array([1]), 3, 0.3) == [pytest.approx([0.1, 0.8, 0.1])]
    assert rows("binary", device, np.array([1, 0]), 1, 0.2) == [pytest.approx([0.9]), pytest.approx([0.1])]
    for labels in (1, 2, 10):
        found = rows("multilabel", device, np.eye(labels)[:1], labels, 0.1)
        assert found == [pytest.approx([0.95] + [0.05] * (labels - 1))]


def test_the_largest_output_wins_and_the_first_of_equals(device):
    assert hits("multiclass", device, OUTPUTS, np.array([1, 0, 0, 2])) == 4
    assert hits("multiclass", device, OUTPUTS, np.array([2, 1, 0, 0])) == 1


def test_log_odds_above_zero_are_a_yes(device):
    outputs = np.array([[0.0], [1e-9], [-3.0], [5.0]])
    assert hits("binary", device, outputs, np.array([0, 1, 0, 1])) == 4
    assert hits("binary", device, outputs, np.array([1, 0, 0, 1])) == 2


def test_a_row_of_labels_is_right_if_all_are(device):
    targets = (OUTPUTS > 0).astype(np.float32)
    assert hits("multilabel", device, OUTPUTS, targets) == 4
    targets[1, 2] = 1
    assert hits("multilabel", device, OUTPUTS, targets) == 3


def test_decisions_are_classes_or_rows_of_yes_and_no():
    assert TASKS["multiclass"].classes(OUTPUTS).tolist() == [1, 0, 0, 2]
    assert TASKS["binary"].classes(np.array([[0.5], [0.0], [-0.5]])).tolist() == [1, 0, 0]
    assert TASKS["multilabel"].classes(OUTPUTS).tolist() == [[1, 1, 1], [0, 0, 0], [1, 0, 0], [1, 1, 1]]


@pytest.mark.parametrize("count", [1, 2, 7])
def test_mix_up_mixes_each_row_with_the_next(count, device):
    random = np.random.default_rng(2)
    inputs, targets = random.normal(size=(count + 1, 5)), random.normal(size=(count + 1, 3))
    mixed = [device.from_host(values.copy()) for values in (inputs, targets)]
    (x, t), (after, its) = ([values[part] for values in mixed] for part in (slice(count), slice(count, None)))
    MixUp(device, 5, 3, 8, np.float64, np.float64)(x, t, after, its, 0.7, 0.3)
    for found, values in zip(mixed, (inputs, targets), strict=True):
        assert np.allclose(device.to_host(found)[:count], 0.7 * values[:count] + 0.3 * values[1:])


@pytest.mark.parametrize("alpha", [0.1, 0.4, 1.0])
def test_shares_are_drawn_from_the_folded_beta_distribution(alpha):
    """Its variance about a half is that of Beta(alpha, alpha): 1 / (4 (2 alpha + 1))."""
    shares = np.array([mixing_share(1, step, alpha) for step in range(3000)])
    assert shares.min() >= 0.5
    assert shares.max() <= 1
    assert ((shares - 0.5) ** 2).mean() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)
    assert abs(np.corrcoef(shares[1:], shares[:-1])[0, 1]) < 0.06


def test_a_share_depends_on_seed_and_step_alone():
    assert mixing_share(1, 2, 0.4) == mixing_share(1, 2, 0.4)
    assert len({mixing_share(*of, 0.4) for of in ((1, 2), (2, 2), (1, 3))}) == 3


def test_every_task_names_its_losses():
    assert {name: kind.losses[0] for name, kind in TASKS.items()} == {
        "multiclass": SoftmaxCrossEntropy,
        "binary": SigmoidCrossEntropy,
        "multilabel": SigmoidCrossEntropy,
        "regression": MeanSquared,
    }


@pytest.mark.parametrize(
    ("name", "classes", "predictions"),
    [("multiclass", 3, 3), ("binary", 2, 2), ("multilabel", 0, 3), ("regression", 0, 3)],
)
def test_a_task_says_how_many_classes_and_predictions_there_are(name, classes, predictions):
    outputs = 1 if name == "binary" else 3
    assert (TASKS[name].class_count(outputs), TASKS[name].prediction_count(outputs)) == (classes, predictions)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_gives_every_output_that_it_says_it_has(name):
    outputs = OUTPUTS[:, :1] if name == "binary" else OUTPUTS
    predictions = np.zeros((4, TASKS[name].prediction_count(outputs.shape[1])))
    found = {kind: TASKS[name].output(kind, outputs, predictions) for kind in TASKS[name].output_kinds}
    assert found[OutputKind.LOGITS] is outputs
    assert found[TASKS[name].output_kinds[0]] is predictions
    if name != "regression":
        assert found[OutputKind.CLASSES].tolist() == TASKS[name].classes(outputs).tolist()
