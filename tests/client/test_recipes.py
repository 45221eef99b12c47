"""Flat settings and the specs they make."""

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
    assert spec.model.initializer == pb.ModelSpec.INITIALIZER_HE_NORMAL


def test_settings_win_over_the_preset():
    spec = training_spec("default", epoch_count=3, optimizer="sgd", momentum=0.9, schedule="constant", device="cpu")
    assert spec.epoch_count == 3
    assert spec.optimizer.sgd.momentum == 0.9
    assert spec.schedule.WhichOneof("kind") == "constant"
    assert spec.device == types.DEVICE_CPU
    assert spec.batch_size == 128


def test_adamw_is_adam_with_decay():
    assert training_spec(optimizer="adamw").optimizer.weight_decay == 0.01
    assert training_spec(optimizer="adamw", weight_decay=0.1).optimizer.adam == pb.Optimizer.Adam()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"preset": "sed"}, "preset must be one of seed, default, got sed; did you mean seed?"),
        ({"lerning_rate": 1}, "got lerning_rate; did you mean learning_rate?"),
        ({"optimizer": "adan"}, "optimizer must be one of sgd, adam, adamw, got adan; did you mean adam?"),
        ({"schedule": "linear"}, "schedule must be one of constant, cosine, got linear"),
        ({"initializer": "zeros"}, "initializer must be one of he_normal"),
        ({"device": "tpu"}, "device must be one of cpu, cuda, got tpu"),
        ({"optimizer": "adam", "momentum": 0.9}, "momentum must not be set with optimizer adam, got 0.9"),
        ({"optimizer": "sgd", "beta1": 0.9}, "beta1 must not be set with optimizer sgd, got 0.9"),
        ({"warmup_steps": 3}, "warmup_steps must not be set with schedule constant, got 3"),
        ({"epoch_count": "three"}, "a setting must have the type its field has"),
        ({"epoch_count": 2**70}, "a setting must have the type its field has"),
        ({"layer_sizes": 5}, "a setting must have the type its field has"),
        ({"layer_sizes": ["a"]}, "a setting must have the type its field has"),
    ],
)
def test_a_wrong_setting_gets_one_sentence(settings, sentence):
    with pytest.raises(InvalidRequest) as caught:
        training_spec(**settings)
    assert sentence in str(caught.value)
