"""The resolved spec: its canonical form, and every rule with its sentence."""

from dataclasses import replace

import pytest
from mlpd.core.data import DatasetInfo
from mlpd.core.spec import AdamSpec, ModelSpec, OptimizerSpec, ScheduleSpec, SgdSpec, TrainingSpec, find_violations

ROWS = DatasetInfo("", 0, 100, 4, "float32", (50, 50))
SPEC = TrainingSpec(
    model=ModelSpec((4, 8, 2), "he_normal", 1.0),
    train_dataset="datasets/a",
    train_sha256="0",
    batch_size=10,
    epoch_count=5,
    optimizer=OptimizerSpec(SgdSpec()),
    schedule=ScheduleSpec(0.1),
    seed=0,
    device="cpu",
    metrics_interval_steps=10,
)
NAN, INF = float("nan"), float("inf")


def with_layers(*sizes):
    return replace(SPEC, model=replace(SPEC.model, layer_sizes=sizes))


def with_optimizer(kind, decay=0.0):
    return replace(SPEC, optimizer=OptimizerSpec(kind, decay))


def with_warmup(steps):
    return replace(SPEC, schedule=ScheduleSpec(0.1, "warmup_cosine", steps))


@pytest.mark.parametrize("kind", [SgdSpec(0.9, nesterov=True), AdamSpec()])
def test_a_spec_survives_its_json(kind):
    spec = with_optimizer(kind, 0.1)
    assert TrainingSpec.from_json(spec.to_json()) == spec
    assert TrainingSpec.from_json(spec.to_json()).digest == spec.digest


def test_any_change_changes_the_digest():
    assert replace(SPEC, seed=1).digest != SPEC.digest
    assert with_optimizer(AdamSpec()).digest != SPEC.digest


def test_a_sound_spec_breaks_no_rule():
    assert find_violations(SPEC, ROWS, ROWS) == []


def test_the_last_batch_of_an_epoch_may_be_smaller():
    assert replace(SPEC, batch_size=30).step_count(100) == 20


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (with_layers(), "model.layer_sizes must have between 2 and 64 entries, input first, got 0"),
        (with_layers(*[4] * 65), "model.layer_sizes must have between 2 and 64 entries, input first, got 65"),
        (with_layers(4, 0, 2), "model.layer_sizes must be between 1 and 1000000 each, got 0"),
        (with_layers(4, -1, 2), "model.layer_sizes must be between 1 and 1000000 each, got -1"),
        (with_layers(4, 2**31, 2), "model.layer_sizes must be between 1 and 1000000 each, got 2147483648"),
        (with_layers(4, 10**5, 10**5, 2), "model.layer_sizes must give at most 100000000 parameters, got 10000800002"),
        (with_layers(5, 2), "model.layer_sizes must begin with 4, the width of train_dataset's rows, got 5"),
        (with_layers(4, 1), "model.layer_sizes must end with between 2 and 65536 classes, got 1"),
        (
            replace(SPEC, model=ModelSpec((4, 2), "he_normal", 0.0)),
            "model.input_scale must be finite and not 0, got 0.0",
        ),
        (
            replace(SPEC, model=ModelSpec((4, 2), "he_normal", NAN)),
            "model.input_scale must be finite and not 0, got nan",
        ),
        (replace(SPEC, batch_size=0), "batch_size must be between 1 and 100, got 0"),
        (replace(SPEC, batch_size=-1), "batch_size must be between 1 and 100, got -1"),
        (replace(SPEC, batch_size=101), "batch_size must be between 1 and 100, got 101"),
        (replace(SPEC, epoch_count=0), "epoch_count must be between 1 and 1000000, got 0"),
        (replace(SPEC, epoch_count=10**9), "epoch_count must be between 1 and 1000000, got 1000000000"),
        (replace(SPEC, metrics_interval_steps=0), "metrics_interval_steps must be at least 1, got 0"),
        (replace(SPEC, seed=-1), "seed must be between 0 and 2**63 - 1, got -1"),
        (with_optimizer(SgdSpec(1.0)), "optimizer.sgd.momentum must be at least 0 and below 1, got 1.0"),
        (
            with_optimizer(SgdSpec(0.0, nesterov=True)),
            "optimizer.sgd.nesterov must come with momentum above 0, got 0.0",
        ),
        (with_optimizer(AdamSpec(beta1=-0.1)), "optimizer.adam.beta1 must be at least 0 and below 1, got -0.1"),
        (with_optimizer(AdamSpec(beta2=NAN)), "optimizer.adam.beta2 must be at least 0 and below 1, got nan"),
        (with_optimizer(AdamSpec(epsilon=0.0)), "optimizer.adam.epsilon must be finite and above 0, got 0.0"),
        (with_optimizer(SgdSpec(), -1.0), "optimizer.weight_decay must be finite and at least 0, got -1.0"),
        (
            replace(SPEC, schedule=ScheduleSpec(0.0)),
            "schedule.learning_rate must be above 0 and at most 1e+09, got 0.0",
        ),
        (
            replace(SPEC, schedule=ScheduleSpec(INF)),
            "schedule.learning_rate must be above 0 and at most 1e+09, got inf",
        ),
        (with_warmup(50), "schedule.warmup_cosine.warmup_steps must be between 0 and 49, got 50"),
        (with_warmup(-1), "schedule.warmup_cosine.warmup_steps must be between 0 and 49, got -1"),
    ],
)
def test_every_rule_names_field_and_value(spec, sentence):
    assert [violation.description for violation in find_violations(spec, ROWS, None)] == [sentence]


def test_every_broken_rule_is_named_at_once():
    broken = replace(SPEC, batch_size=0, epoch_count=0, seed=-1)
    assert {violation.field for violation in find_violations(broken, ROWS, None)} == {
        "batch_size",
        "epoch_count",
        "seed",
    }


def test_data_of_one_class_can_not_be_trained_on():
    one = replace(ROWS, class_row_counts=(0, 100))
    assert [v.field for v in find_violations(SPEC, one, None)] == ["train_dataset"]


def test_validation_data_must_fit_the_model():
    other = replace(ROWS, input_size=5, class_row_counts=(1, 1, 98))
    sentences = [violation.description for violation in find_violations(SPEC, ROWS, other)]
    assert sentences == [
        "model.layer_sizes must begin with 5, the width of validation_dataset's rows, got 4",
        "model.layer_sizes must end with at least 3, the classes of validation_dataset, got 2",
    ]
