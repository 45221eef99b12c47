"""A finite end that is of no use is told apart from one that is."""

from dataclasses import replace

import numpy as np
import pytest
from mlpd.core.data.datasets import Dataset
from mlpd.core.devices.arrays import Cpu
from mlpd.core.network.losses import LOSSES, BufferedLoss, Poisson, SigmoidCrossEntropy
from mlpd.core.network.tasks import TASKS
from mlpd.core.optimization.optimizers import Adam, Sgd
from mlpd.core.spec.training import LossSpec, OptimizerSpec, ScheduleSpec
from mlpd.core.training import usefulness
from mlpd.core.training.usefulness import reason_to_doubt

from .family import Run, finish, run

RANDOM = np.random.default_rng(8)
X = RANDOM.normal(size=(200, 4)).astype(np.float32)
SUM = X.sum(axis=1)
TARGETS = {
    "multiclass": np.digitize(SUM, [-1, 1]),
    "binary": (SUM > 2).astype(int),
    "multilabel": (X[:, :3] > 0.5).astype(np.float32),
    "regression": 5 + np.stack([SUM, SUM**2, X[:, 0]], axis=1),
    "counts": RANDOM.poisson(np.exp(np.clip(X[:, :3], -2, 2))).astype(np.float32),
}
SMALL = run(
    layer_sizes=(4, 16, 3),
    activations=("relu",),
    dropout_rates=(0.0,),
    input_scale=1.0,
    batch_size=40,
    epoch_count=60,
    optimizer=OptimizerSpec(Adam()),
    schedule=ScheduleSpec(0.03),
).unvalidated()


def small(task="multiclass", **changes):
    loss = changes.get("loss", LossSpec(TASKS[task].losses[0]()))
    targets = TARGETS["counts" if isinstance(loss.kind, Poisson) else task]
    model = replace(SMALL.spec.model, layer_sizes=(4, 16, 1 if task == "binary" else 3))
    spec = replace(SMALL.spec, **{"task": task, "model": model, "loss": loss} | changes)
    return Run(spec, Dataset(X, targets))


def doubt(case):
    state = case.start()
    finish(state)
    return reason_to_doubt(Cpu(), case.spec, state.examples, state.trained().model)


LEARNT = {
    **{task: small(task) for task in ("multiclass", "binary", "multilabel")},
    "regression": small("regression"),
    **{name: small("regression", loss=LossSpec(LOSSES[name]())) for name in ("huber", "mean_absolute", "poisson")},
    "smoothed": small(loss=LossSpec(label_smoothing=0.5)),
    "smoothed and unbalanced": small("binary", loss=LossSpec(SigmoidCrossEntropy(), label_smoothing=0.5)),
    "mixed up": small(loss=LossSpec(mixup_alpha=1.0)),
    "weighted": small("binary", loss=LossSpec(SigmoidCrossEntropy(), class_weights=(1.0, 50.0))),
    "averaged": small(optimizer=OptimizerSpec(Adam(), average_decay=0.99)),
    "dropped out": small(model=replace(SMALL.spec.model, dropout_rates=(0.8,))),
    "normalised": small(model=replace(SMALL.spec.model, normalization="batch"), batch_size=33),
}


@pytest.mark.parametrize("case", LEARNT.values(), ids=LEARNT)
def test_what_has_learnt_is_not_doubted(case):
    assert doubt(case) == ""


@pytest.mark.parametrize("task", TASKS)
def test_a_rate_that_throws_the_weights_about_is_told(task):
    case = small(task, optimizer=OptimizerSpec(Sgd()), schedule=ScheduleSpec(1e8), epoch_count=1, batch_size=100)
    case = case.but(model=replace(case.spec.model, activations=("tanh",), dtype="float64"))
    assert doubt(case).startswith(
        (
            "the model is no better than one that ignores its inputs: its loss on 200 rows",
            "the model's outputs are the same",
        )
    )


def test_units_that_never_fire_again_are_told():
    state = small().start()
    state.blocks.read().current.parameters[64:80] = -1e6  # the biases of the hidden units
    model = state.trained().model
    assert reason_to_doubt(Cpu(), state.spec, state.examples, model).startswith(
        "the model's outputs are the same for all of 200 rows"
    )


def test_weights_that_do_not_move_are_told():
    assert "no better than" in doubt(small("regression", schedule=ScheduleSpec(1e-30)))


def test_the_weights_that_are_published_are_looked_at():
    """Here an average that has hardly left where it began."""
    slow = OptimizerSpec(Adam(), average_decay=0.999999)
    late = small("regression", optimizer=slow, epoch_count=2)
    assert "no better than" in doubt(late)


@pytest.mark.parametrize("kind", ["mean_absolute", "huber"])
def test_a_constant_is_told_where_the_mean_is_not_the_best_one(kind):
    """Of targets that are mostly 0, outputs of 0 have a far smaller loss than their mean."""
    targets = np.where(np.arange(200) % 10, 0.0, 100.0)[:, None] * np.ones(3)
    case = replace(small("regression", loss=LossSpec(LOSSES[kind]())), data=Dataset(X, targets))
    state = case.start()
    trained = state.trained().model
    constant = replace(trained, parameters=np.zeros_like(trained.parameters))
    said = reason_to_doubt(Cpu(), case.spec, state.examples, constant)
    assert said == "the model's outputs are the same for all of 200 rows that it was trained on"


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["mean_absolute", "huber"])
def test_a_model_that_beats_the_mean_but_not_the_median_is_told(kind, weighted, monkeypatch):
    """The median is 0; where the rows of 100 weigh more than all others, it is 100. Few values are sorted at once."""
    monkeypatch.setattr(usefulness, "_MEDIAN_VALUES", 300)
    high = np.arange(200) % 3 == 0
    weights = np.where(high, 10.0, 1.0).astype(np.float32) if weighted else None
    targets = np.where(high, 100.0, 0.0)[:, None] * np.ones(3)
    case = small("regression", loss=LossSpec(LOSSES[kind]()))
    case = replace(case, data=Dataset(X, targets, weights))
    state = case.start()
    trained = state.trained().model
    parameters = np.random.default_rng(7).normal(0, 0.1, len(trained.parameters)).astype(np.float32)
    parameters[-3:] = 90 if weighted else 10
    model = replace(trained, parameters=parameters)
    assert "no better than one that ignores its inputs" in reason_to_doubt(Cpu(), case.spec, state.examples, model)


def test_nothing_is_said_where_all_targets_are_alike():
    case = small("regression", schedule=ScheduleSpec(1e-30))
    assert doubt(replace(case, data=Dataset(X, np.ones((200, 3))))) == ""


def test_columns_that_were_moved_are_moved_once():
    case = small("regression", model=replace(SMALL.spec.model, standardize_inputs=True, dtype="float64"))
    assert doubt(replace(case, data=Dataset(X.astype(float) * 1e-60, TARGETS["regression"]))) == ""


@pytest.mark.parametrize("name", LOSSES)
def test_outputs_are_found_for_what_they_predict(name):
    shares = np.array([[0.2, 0.5, 0.3], [0.9, 0.05, 0.05]])
    loss = LOSSES[name]()
    outputs, predictions = loss.outputs_for(shares), np.empty_like(shares)
    loss.predict(np, outputs, predictions, np.empty((2, 1)))
    assert np.allclose(predictions, shares)


@pytest.mark.parametrize("task", TASKS)
def test_the_mean_target_is_the_best_constant(task):
    """But for losses that are not likelihoods; there it is one of them."""
    wanted = TARGETS[task].astype(float) if TARGETS[task].ndim > 1 else np.eye(3)[TARGETS[task]]
    wanted = wanted[:, 1:2] if task == "binary" else wanted
    kind = TASKS[task].losses[0]()
    loss = BufferedLoss(Cpu(), kind, wanted.shape[1], len(wanted), np.float64)
    best = kind.outputs_for(wanted.mean(axis=0, keepdims=True))
    sums = []
    for shift in (0, 0.01, -0.01):
        total, outputs = np.zeros(()), np.repeat(best, len(wanted), axis=0)
        outputs[:, 0] += shift
        loss(outputs, wanted, None, np.empty_like(outputs), total, 1.0)
        sums.append(float(total))
    assert sums[0] == min(sums)
