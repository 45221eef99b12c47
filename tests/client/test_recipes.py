"""Flat settings and the specs they make."""

from typing import Any

import numpy as np
import pytest
from mlpd.client import InvalidRequest, training_spec
from mlpd.v1 import trainer_service_pb2 as pb
from mlpd.v1 import types_pb2 as types


def test_the_seed_preset_is_the_classic_recipe():
    spec = training_spec("seed")
    assert list(spec.model.layer_sizes) == [784, 532, 10]
    assert spec.train_dataset == "datasets/mnist-train"
    assert not spec.HasField("batch_size")
    assert (spec.epoch_count, spec.schedule.learning_rate) == (250, 0.03)
    assert spec.optimizer == pb.Optimizer(sgd=pb.Optimizer.Sgd())
    assert spec.model.initializer == "he_normal"


def test_settings_win_over_the_preset():
    spec = training_spec("default", epoch_count=3, optimizer="sgd", momentum=0.9, schedule="constant", device="cpu")
    assert spec.epoch_count == 3
    assert spec.optimizer.sgd.momentum == 0.9
    assert spec.schedule.WhichOneof("kind") == "constant"
    assert spec.device == types.DEVICE_CPU
    assert spec.batch_size == 128


def test_numbers_may_be_of_numpy_s_types():
    spec = training_spec(layer_sizes=np.array([2, 3]), epoch_count=np.int64(3), learning_rate=np.float32(0.5))
    assert list(spec.model.layer_sizes) == [2, 3]
    assert (spec.epoch_count, spec.schedule.learning_rate) == (3, 0.5)


def test_adamw_is_adam_with_decay():
    assert training_spec(optimizer="adamw").optimizer.weight_decay == 0.01
    assert training_spec(optimizer="adamw", weight_decay=0.1).optimizer.adam == pb.Optimizer.Adam()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"preset": "sed"}, "preset must be one of seed, default, best, large, got sed; did you mean seed?"),
        ({"lerning_rate": 1}, "got lerning_rate; did you mean learning_rate?"),
        (
            {"optimizer": "adan"},
            "optimizer must be one of sgd, adam, adamw, rmsprop, adagrad, lion, got adan; did you mean adam?",
        ),
        (
            {"schedule": "linear"},
            "schedule must be one of constant, cosine, steps, exponential, polynomial, one_cycle, joined, got linear",
        ),
        ({"data_type": "float16"}, "data_type must be one of float32, float64, got float16"),
        ({"activation": ["relu", 5]}, "activation must be text or a list of texts, got ['relu', 5]"),
        ({"dropout": "0.5"}, "dropout must be a number or a list of numbers, got '0.5'"),
        ({"class_weights": "equal"}, "class_weights must be balanced or a list of numbers, got 'equal'"),
        ({"schedule": [{"lr": 1}]}, "schedule's setting must be one of"),
        (
            {"schedule": [{"schedule": "steps", "batch_size": 8}]},
            "schedule's setting must be one of schedule, step_count",
        ),
        ({"schedule": [{"plateau_factor": 0.5}]}, "schedule's setting must be one of schedule, step_count"),
        ({"schedule": [{"schedule": "steps", "power": 1}]}, "power must not be set with schedule steps, got 1"),
        ({"schedule": [{"step_count": "5"}]}, "step_count must be a whole number of 64 bits, got '5'"),
        ({"time_limit_seconds": float("nan")}, "time_limit_seconds must be at least 0 and at most 1e+09, got nan"),
        ({"time_limit_seconds": 1e300}, "time_limit_seconds must be at least 0 and at most 1e+09, got 1e+300"),
        ({"warm_start": "a"}, "warm_start_scope must say weights or full with warm_start a"),
        ({"warm_start_scope": "full"}, "warm_start_scope must come with warm_start, got full"),
        ({"warm_start": "a", "warm_start_scope": "all"}, "warm_start_scope must be one of weights, full, got all"),
        ({"device": "tpu"}, "device must be one of cpu, cuda, got tpu"),
        ({"optimizer": "adam", "momentum": 0.9}, "momentum must not be set with optimizer adam, got 0.9"),
        ({"optimizer": "sgd", "beta1": 0.9}, "beta1 must not be set with optimizer sgd, got 0.9"),
        ({"warmup_steps": 3}, "warmup_steps must not be set with schedule constant, got 3"),
        ({"preset": ["seed"]}, "preset must be one of seed, default, best, large, got ['seed']"),
        ({"epoch_count": "three"}, "epoch_count must be a whole number of 64 bits, got 'three'"),
        ({"epoch_count": 2**70}, "epoch_count must be a whole number of 64 bits, got 1180591620717411303424"),
        ({"block_count": 2**31}, "block_count must be a whole number of 32 bits, got 2147483648"),
        ({"epoch_count": True}, "epoch_count must be a whole number of 64 bits, got True"),
        ({"learning_rate": "0.1"}, "learning_rate must be a number, got '0.1'"),
        ({"learning_rate": 10**400}, "learning_rate must be a number, got 1"),
        ({"nesterov": "yes"}, "nesterov must be true or false, got 'yes'"),
        ({"train_dataset": 5}, "train_dataset must be text, got 5"),
        ({"optimizer": ["sgd"]}, "optimizer must be text, got ['sgd']"),
        ({"layer_sizes": 5}, "layer_sizes must be a list of whole numbers, got 5"),
        ({"layer_sizes": ["a"]}, "layer_sizes must be a list of whole numbers, got ['a']"),
        ({"layer_sizes": "784"}, "layer_sizes must be a list of whole numbers, got '784'"),
    ],
)
def test_a_wrong_setting_gets_one_sentence(settings, sentence):
    with pytest.raises(InvalidRequest) as caught:
        training_spec(**settings)
    assert sentence in str(caught.value)


def test_every_setting_reaches_the_spec():
    settings: dict[str, Any] = {
        "layer_sizes": [4, 3, 2],
        "activation": "gelu",
        "normalization": "layer",
        "dropout": [0.25],
        "input_dropout": 0.125,
        "initializer": "orthogonal",
        "standardize": True,
        "data_type": "float64",
        "task": "multiclass",
        "loss": "softmax_cross_entropy",
        "label_smoothing": 0.5,
        "class_weights": [1, 2],
        "mixup_alpha": 0.25,
        "validation_fraction": 0.25,
        "validation_interval_epochs": 2,
        "accumulation_steps": 4,
        "clip_norm": 1.5,
        "average_decay": 0.75,
        "plateau_factor": 0.5,
        "plateau_patience": 7,
        "augment_shift_pixels": 2.0,
        "augment_image_height": 2,
        "early_stopping_patience": 6,
        "early_stopping_metric": "accuracy",
        "time_limit_seconds": 1.5,
        "warm_start": "digits/2",
        "warm_start_scope": "full",
        "runner": "compiled",
        "split": "rows",
        "block_count": 3,
        "environment_change": "restart",
    }
    spec = training_spec(**settings)
    assert spec.model == types.ModelSpec(
        layer_sizes=[4, 3, 2],
        activations=["gelu"],
        normalization="layer",
        dropout_rates=[0.25],
        input_dropout_rate=0.125,
        initializer="orthogonal",
        standardize_inputs=True,
        data_type=types.DATA_TYPE_FP64,
    )
    assert spec.loss == pb.Loss(
        kind="softmax_cross_entropy", label_smoothing=0.5, class_weights=[1, 2], mixup_alpha=0.25
    )
    assert (spec.validation_fraction, spec.validation_interval_epochs, spec.accumulation_steps) == (0.25, 2, 4)
    assert (spec.optimizer.clip_norm, spec.optimizer.average_decay) == (1.5, 0.75)
    assert spec.schedule.plateau == pb.Schedule.Plateau(factor=0.5, patience=7)
    assert spec.augmentation == pb.Augmentation(shift_pixels=2, image_height=2)
    assert spec.early_stopping == pb.EarlyStopping(patience=6, metric="accuracy")
    assert spec.time_limit.ToMilliseconds() == 1500
    assert (spec.runner, spec.split, spec.block_count) == ("compiled", "rows", 3)
    assert spec.environment_change == "restart"
    assert spec.warm_start == pb.WarmStart(model="models/digits/versions/2", scope=pb.WarmStart.SCOPE_FULL)


def test_a_schedule_can_be_joined_of_others():
    parts: list[dict[str, Any]] = [
        {"schedule": "polynomial", "initial_share": 0.1, "final_share": 1.0, "step_count": 50},
        {"schedule": "cosine"},
    ]
    schedule = training_spec(schedule=parts, learning_rate=0.5).schedule
    assert schedule.learning_rate == 0.5
    assert [segment.step_count for segment in schedule.joined.segments] == [50, 0]
    assert schedule.joined.segments[0].schedule.polynomial == pb.Schedule.Polynomial(initial_share=0.1, final_share=1)
    assert schedule.joined.segments[1].schedule.WhichOneof("kind") == "warmup_cosine"


def test_type_checkers_know_settings_too():
    """A type checker finds what is refused here: it would call the comments unused if it did not."""
    with pytest.raises(
        InvalidRequest, match=r"setting must be one of .*, got learning_rat; did you mean learning_rate"
    ):
        training_spec(learning_rat=0.1)  # type: ignore[call-arg]
    with pytest.raises(InvalidRequest, match=r"optimizer must be one of .*, got adma; did you mean adam"):
        training_spec(optimizer="adma")  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="epoch_count must be a whole number of 64 bits, got '3'"):
        training_spec(epoch_count="3")  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="preset must be one of seed, default, best, large, got sed"):
        training_spec("sed")  # type: ignore[arg-type]
