"""Flat settings and the specs they make."""

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
    assert spec.model.initializer == pb.ModelSpec.INITIALIZER_HE_NORMAL


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
        ({"preset": "sed"}, "preset must be one of seed, default, got sed; did you mean seed?"),
        ({"lerning_rate": 1}, "got lerning_rate; did you mean learning_rate?"),
        ({"optimizer": "adan"}, "optimizer must be one of sgd, adam, adamw, got adan; did you mean adam?"),
        ({"schedule": "linear"}, "schedule must be one of constant, cosine, got linear"),
        ({"initializer": "zeros"}, "initializer must be one of he_normal"),
        ({"device": "tpu"}, "device must be one of cpu, cuda, got tpu"),
        ({"optimizer": "adam", "momentum": 0.9}, "momentum must not be set with optimizer adam, got 0.9"),
        ({"optimizer": "sgd", "beta1": 0.9}, "beta1 must not be set with optimizer sgd, got 0.9"),
        ({"warmup_steps": 3}, "warmup_steps must not be set with schedule constant, got 3"),
        ({"preset": ["seed"]}, "preset must be one of seed, default, got ['seed']"),
        ({"epoch_count": "three"}, "epoch_count must be a whole number of 64 bits, got 'three'"),
        ({"epoch_count": 2**70}, "epoch_count must be a whole number of 64 bits, got 1180591620717411303424"),
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
