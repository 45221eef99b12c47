"""Every rule a spec must keep, with its sentence."""

from dataclasses import replace

import pytest
from mlpd.core.data.augmentation import AugmentationSpec
from mlpd.core.data.inspection import DatasetInfo
from mlpd.core.network.architecture import ModelSpec
from mlpd.core.network.losses import Huber, MeanSquared, Poisson, SigmoidCrossEntropy, SoftmaxCrossEntropy
from mlpd.core.optimization.optimizers import Adam, Sgd
from mlpd.core.optimization.schedules import WarmupCosine
from mlpd.core.spec.rules import find_violations
from mlpd.core.spec.training import (
    EarlyStoppingSpec,
    LossSpec,
    OptimizerSpec,
    PlateauSpec,
    ScheduleSpec,
    TrainingSpec,
    ValidationSpec,
)

LABELLED = DatasetInfo(
    *("", 0, 100, 4, "float32", (50, 50), "int64", 0, (0.0, 0.0)),
    whole_targets=True,
    weighted=False,
    input_range=(0.0, 1.0),
    whole_inputs=False,
    encoded_size=4,
)
MEASURED = replace(LABELLED, class_row_counts=(), target_dtype="float32", target_size=2, target_range=(0.0, 1.0))
SPEC = TrainingSpec(
    model=ModelSpec.plain((4, 8, 2)),
    train_dataset="datasets/a",
    train_sha256="0",
    batch_size=10,
    epoch_count=5,
    optimizer=OptimizerSpec(Sgd()),
    schedule=ScheduleSpec(0.1),
    seed=0,
    device="cpu",
    metrics_interval_steps=10,
)
VALIDATED = replace(SPEC, validation=ValidationSpec("datasets/b", "1"))
BINARY = replace(SPEC, task="binary", model=ModelSpec.plain((4, 8, 1)), loss=LossSpec(SigmoidCrossEntropy()))
REGRESSION = replace(SPEC, task="regression", loss=LossSpec(MeanSquared()))
MULTILABEL = replace(SPEC, task="multilabel", loss=LossSpec(SigmoidCrossEntropy()))
NAN, INF = float("nan"), float("inf")


def layers(*sizes, **choices):
    return replace(SPEC, model=ModelSpec.plain(sizes, **choices))


def model(**changes):
    return replace(SPEC, model=replace(SPEC.model, **changes))


def optimizer(kind=SPEC.optimizer.kind, **choices):
    return replace(SPEC, optimizer=OptimizerSpec(kind, **choices))


def schedule(shape, rate=0.1):
    return replace(SPEC, schedule=ScheduleSpec(rate, shape))


def plateau(**changes):
    return replace(VALIDATED, schedule=ScheduleSpec(0.1, plateau=PlateauSpec(**changes)))


def stopping(spec=VALIDATED, **changes):
    return replace(spec, early_stopping=EarlyStoppingSpec(**changes))


def loss(spec=SPEC, **changes):
    return replace(spec, loss=replace(spec.loss, **changes))


def images(**changes):
    return replace(SPEC, augmentation=AugmentationSpec(**({"image_height": 2, "image_width": 2} | changes)))


def sentences(spec, train=LABELLED, validation=None):
    return [violation.description for violation in find_violations(spec, train, validation)]


MODEL_RULES = [
    (layers(), "model.layer_sizes must have between 2 and 64 entries, input first, got 0"),
    (layers(*[4] * 65), "model.layer_sizes must have between 2 and 64 entries, input first, got 65"),
    (layers(4, 0, 2), "model.layer_sizes must be between 1 and 1000000 each, got 0"),
    (layers(4, -1, 2), "model.layer_sizes must be between 1 and 1000000 each, got -1"),
    (layers(4, 2**31, 2), "model.layer_sizes must be between 1 and 1000000 each, got 2147483648"),
    (layers(4, 10**5, 10**5, 2), "model.layer_sizes must give at most 100000000 parameters, got 10000800002"),
    (layers(5, 2), "model.layer_sizes must begin with 4, the width of train_dataset's rows, got 5"),
    (layers(4, 1), "model.layer_sizes must end with between 2 and 65536 classes, got 1"),
    (model(activations=()), "model.activations must have one entry, or 1, one a hidden layer, got 0"),
    (
        model(dropout_rates=(0.1, 0.1)),
        "model.dropout_rates must have one entry, or 1, one a hidden layer, got 2",
    ),
    (
        model(activations=("swish",)),
        "model.activations must be one of identity, relu, leaky_relu, tanh, sigmoid, softplus, elu, silu, gelu, got swish",
    ),
    (model(dropout_rates=(1.0,)), "model.dropout_rates must be at least 0 and below 1, got 1.0"),
    (model(dropout_rates=(NAN,)), "model.dropout_rates must be at least 0 and below 1, got nan"),
    (model(input_dropout_rate=-0.1), "model.input_dropout_rate must be at least 0 and below 1, got -0.1"),
    (model(normalization="group"), "model.normalization must be one of none, layer, batch, got group"),
    (
        model(initializer=""),
        (
            "model.initializer must be one of he_normal, he_uniform, glorot_normal, glorot_uniform, lecun_normal, "
            "lecun_uniform, orthogonal, zeros, got nothing"
        ),
    ),
    (model(dtype="float16"), "model.data_type must be one of float32, float64, got float16"),
    (model(input_scale=0.0), "model.input_scale must be finite and not 0, got 0.0"),
    (model(input_scale=NAN), "model.input_scale must be finite and not 0, got nan"),
    (
        model(input_scale=-1e-40),
        "model.input_scale must be between 1e-37 and 1e+38 in size for data_type float32, got 1e-40",
    ),
    (
        model(input_scale=1e300),
        "model.input_scale must be between 1e-37 and 1e+38 in size for data_type float32, got 1e+300",
    ),
    (
        layers(4, 8, 1, 2, normalization="layer"),
        "model.layer_sizes must have at least 2 units in hidden layers with layer normalization, got 1",
    ),
    (
        model(input_scale=0.5, standardize_inputs=True),
        "model.input_scale must be unset with standardize_inputs, got 0.5",
    ),
]
LOSS_RULES = [
    (replace(SPEC, task="poetry"), "task must be one of multiclass, binary, multilabel, regression, got poetry"),
    (loss(REGRESSION, kind=Huber(0.0)), "loss.huber_delta must be finite and above 0, got 0.0"),
    (loss(label_smoothing=1.0), "loss.label_smoothing must be at least 0 and below 1, got 1.0"),
    (loss(mixup_alpha=1.5), "loss.mixup_alpha must be at least 0 and at most 1, got 1.5"),
    (loss(kind=Huber()), "loss.kind must be one of softmax_cross_entropy for task multiclass, got huber"),
    (loss(class_weights=(1.0,)), "loss.class_weights must have 2 entries, one a class, got 1"),
    (
        loss(class_weights=(-1.0, 1.0)),
        "loss.class_weights must be finite and at least 0, got -1.0",
    ),
    (loss(class_weights=(0.0, 0.0)), "loss.class_weights must not all be 0, got 2 zeros"),
    (
        loss(class_weights=(0.0, 1.0)),
        "loss.class_weights must be above 0 for at least 2 of the 2 classes that train_dataset has rows of, got 1",
    ),
    (
        loss(class_weights=(1e308, 1e308)),
        "loss.class_weights must add up to between 1e-150 and 1e+150 over the rows to train on, got inf",
    ),
    (
        loss(class_weights=(1e-320, 1e-320)),
        "loss.class_weights must add up to between 1e-150 and 1e+150 over the rows to train on, got 9.99989e-319",
    ),
    (
        loss(REGRESSION, kind=Huber(1e-50)),
        "loss.huber_delta must be between 1e-37 and 1e+38 in size for data_type float32, got 1e-50",
    ),
    (loss(BINARY, class_weights=(1.0,)), "loss.class_weights must have 2 entries, one a class, got 1"),
]
RUN_RULES = [
    (replace(SPEC, batch_size=0), "batch_size must be between 1 and 100, got 0"),
    (replace(SPEC, batch_size=-1), "batch_size must be between 1 and 100, got -1"),
    (replace(SPEC, batch_size=101), "batch_size must be between 1 and 100, got 101"),
    (
        replace(SPEC, batch_size=80, validation=ValidationSpec(fraction=0.25)),
        "batch_size must be between 1 and 75, got 80",
    ),
    (
        replace(SPEC, model=replace(SPEC.model, normalization="batch"), batch_size=1),
        "batch_size must be between 2 and 100 with batch normalization, got 1",
    ),
    (
        replace(SPEC, batch_size=1, validation=ValidationSpec(fraction=0.99)),
        "validation_fraction must leave a row of each of 2 classes, got 1 of 100 rows to train on",
    ),
    (replace(SPEC, accumulation_steps=0), "accumulation_steps must be between 1 and 2147483648, got 0"),
    (replace(SPEC, epoch_count=0), "epoch_count must be between 1 and 1000000, got 0"),
    (replace(SPEC, epoch_count=10**9), "epoch_count must be between 1 and 1000000, got 1000000000"),
    (replace(SPEC, metrics_interval_steps=0), "metrics_interval_steps must be at least 1, got 0"),
    (replace(SPEC, seed=-1), "seed must be between 0 and 2**63 - 1, got -1"),
    (replace(SPEC, seed=2**63), "seed must be between 0 and 2**63 - 1, got 9223372036854775808"),
    (replace(SPEC, time_limit_seconds=-1.0), "time_limit must be at least 0 and at most 1e+09, got -1.0"),
    (
        replace(SPEC, validation=ValidationSpec(interval_epochs=0)),
        "validation_interval_epochs must be between 1 and 1000000, got 0",
    ),
    (
        replace(SPEC, validation=ValidationSpec(fraction=1.0)),
        "validation_fraction must be at least 0 and below 1, got 1.0",
    ),
    (
        replace(SPEC, validation=ValidationSpec(fraction=0.001)),
        "validation_fraction must leave rows on both sides, got 100 of 100 rows to train on",
    ),
    (
        replace(SPEC, validation=ValidationSpec("datasets/b", "1", 0.5)),
        "validation_fraction must be unset with validation_dataset, got 0.5",
    ),
    (stopping(SPEC), "early_stopping must come with validation_dataset or validation_fraction, got neither"),
    (stopping(patience=0), "early_stopping.patience must be at least 1, got 0"),
    (stopping(minimum_delta=-1.0), "early_stopping.minimum_delta must be finite and at least 0, got -1.0"),
    (stopping(metric="f1"), "early_stopping.metric must be one of loss, accuracy for task multiclass, got f1"),
    (images(image_height=1, image_width=4), "augmentation.image_height must be at least 2, got 1"),
    (images(image_height=4, image_width=1), "augmentation.image_width must be at least 2, got 1"),
    (
        images(image_width=3),
        "augmentation must give image_height * image_width = 4, the values in a row, got 2 * 3",
    ),
    (images(shift_pixels=-1.0), "augmentation.shift_pixels must be at least 0 and at most 10000, got -1.0"),
    (images(rotation_degrees=181.0), "augmentation.rotation_degrees must be at least 0 and at most 180, got 181.0"),
    (images(scale=1.0), "augmentation.scale must be at least 0 and at most 0.9, got 1.0"),
    (images(shear=11.0), "augmentation.shear must be at least 0 and at most 10, got 11.0"),
    (images(elastic_pixels=NAN), "augmentation.elastic_pixels must be at least 0 and at most 10000, got nan"),
    (
        images(elastic_smoothness_pixels=0.5),
        "augmentation.elastic_smoothness_pixels must be at least 1 and at most 10000, got 0.5",
    ),
]


@pytest.mark.parametrize(("spec", "sentence"), [*MODEL_RULES, *LOSS_RULES, *RUN_RULES])
def test_every_rule_names_field_and_value(spec, sentence):
    data = {"binary": LABELLED, "multiclass": LABELLED}.get(spec.task)
    assert sentences(spec, data) == [sentence]


@pytest.mark.parametrize(
    ("spec", "train", "sentence"),
    [
        (
            SPEC,
            replace(LABELLED, class_row_counts=(0, 100)),
            "train_dataset must have rows of at least 2 classes, got 1",
        ),
        (SPEC, MEASURED, "train_dataset must have class labels for task multiclass, got 2 numbers a row"),
        (
            BINARY,
            replace(LABELLED, class_row_counts=(1, 1, 98)),
            "train_dataset must have the classes 0 and 1 for task binary, got 3 classes",
        ),
        (
            REGRESSION,
            LABELLED,
            "train_dataset must have rows of numbers as targets for task regression, got class labels",
        ),
        (
            REGRESSION,
            replace(MEASURED, target_size=3),
            "model.layer_sizes must end with 3, the numbers in train_dataset's targets, got 2",
        ),
        (
            MULTILABEL,
            replace(MEASURED, target_range=(-1.0, 1.0)),
            "train_dataset must have targets between 0 and 1 for task multilabel, got -1 to 1",
        ),
        (
            loss(REGRESSION, kind=Poisson()),
            replace(MEASURED, target_range=(-1.0, 1.0)),
            "train_dataset must have targets of at least 0 for loss poisson, got -1",
        ),
        (
            loss(REGRESSION, label_smoothing=0.1),
            MEASURED,
            "loss.label_smoothing must be 0 for task regression, got 0.1",
        ),
        (
            loss(REGRESSION, class_weights=(1.0, 1.0)),
            MEASURED,
            "loss.class_weights must be empty for task regression, got 2 entries",
        ),
        (
            loss(REGRESSION, kind=SoftmaxCrossEntropy()),
            MEASURED,
            "loss.kind must be one of mean_squared, huber, mean_absolute, poisson for task regression, got softmax_cross_entropy",
        ),
        (
            replace(BINARY, model=ModelSpec.plain((4, 8, 2))),
            LABELLED,
            "model.layer_sizes must end with 1 output for task binary, got 2",
        ),
        (
            replace(REGRESSION, validation=VALIDATED.validation, early_stopping=EarlyStoppingSpec(metric="accuracy")),
            MEASURED,
            "early_stopping.metric must be one of loss for task regression, got accuracy",
        ),
    ],
)
def test_data_must_suit_the_task(spec, train, sentence):
    assert sentences(spec, train) == [sentence]


@pytest.mark.parametrize(
    ("spec", "train"),
    [
        (SPEC, LABELLED),
        (BINARY, LABELLED),
        (REGRESSION, MEASURED),
        (MULTILABEL, MEASURED),
        (SPEC, None),
        (images(), None),
    ],
)
def test_a_sound_spec_breaks_no_rule(spec, train):
    assert sentences(spec, train, train) == []


def test_rules_that_need_unknown_data_are_left_out():
    assert sentences(replace(SPEC, batch_size=10**6), None) == []
    assert sentences(replace(SPEC, batch_size=0), None) == ["batch_size must be at least 1, got 0"]
    assert sentences(schedule(WarmupCosine(10**6)), None) == []
    assert sentences(schedule(WarmupCosine(-1)), None) == [
        "schedule.warmup_cosine.warmup_steps must be at least 0, got -1"
    ]


def test_rules_of_batch_normalisation_look_at_the_rows_that_are_left_to_train_on():
    numbers = replace(MEASURED, row_count=2)
    normalised = replace(REGRESSION, model=replace(SPEC.model, normalization="batch"), batch_size=1)
    assert sentences(replace(normalised, validation=ValidationSpec(fraction=0.5)), numbers) == [
        "train_dataset must have at least 2 rows to train on with batch normalization, got 1",
    ]
    assert sentences(normalised, None) == ["batch_size must be at least 2 with batch normalization, got 1"]
    assert sentences(replace(normalised, batch_size=2), numbers) == []
    alone = replace(normalised, model=ModelSpec.plain((4, 2), normalization="batch"))
    assert sentences(alone, numbers) == []  # no hidden layer, nothing to normalise


def test_a_type_of_more_digits_takes_smaller_numbers():
    adam = optimizer(Adam(epsilon=1e-30), clip_norm=1e-50)
    assert sentences(replace(adam, model=replace(SPEC.model, dtype="float64")), LABELLED) == []


def test_class_weights_are_judged_by_the_classes_that_have_rows():
    weighted = loss(layers(4, 8, 3), class_weights=(1e300, 1.0, 1.0))
    assert sentences(weighted, replace(LABELLED, class_row_counts=(0, 50, 50))) == []
    assert sentences(
        loss(layers(4, 8, 3), class_weights=(1.0, 0.0, 0.0)), replace(LABELLED, class_row_counts=(0, 50, 50))
    ) == ["loss.class_weights must be above 0 for at least 2 of the 2 classes that train_dataset has rows of, got 0"]


def test_every_broken_rule_is_named_at_once():
    broken = replace(SPEC, batch_size=0, epoch_count=0, seed=-1)
    fields = {violation.field for violation in find_violations(broken, LABELLED, None)}
    assert fields == {"batch_size", "epoch_count", "seed"}


def test_validation_data_must_fit_the_model():
    other = replace(LABELLED, input_size=5, encoded_size=5, class_row_counts=(1, 1, 98))
    assert sentences(VALIDATED, LABELLED, other) == [
        "validation_dataset must have rows of 4 values, as the network takes, got 5",
        "validation_dataset must have at most 2 classes, as the network has, got 3",
    ]
