"""What a run does where nothing is said comes from its data's values, whatever type they are stored in."""

import numpy as np
import pytest
from mlpd.v1 import trainer_service_pb2 as pb
from mlpd.v1 import types_pb2 as types
from safetensors.numpy import save

from .conftest import upload_messages
from .test_capabilities import spec_of

TYPES = ["bool", "uint8", "int32", "int64", "float16", "float32", "float64"]
SEED = 3


def small_spec(dataset, layer_sizes=(40, 8, 2), **fields):
    model = types.ModelSpec(layer_sizes=layer_sizes, **fields)
    return spec_of(dataset, model=model, batch_size=50, epoch_count=3, seed=1)


def upload(stubs, name, **tensors):
    content = save({key: array.astype("u1") if array.dtype == bool else array for key, array in tensors.items()})
    return stubs.datasets.UploadDataset(upload_messages(name, content)).dataset


def resolved(stubs, spec):
    return stubs.trainer.Train(pb.TrainRequest(spec=spec, validate_only=True)).training_job.spec


@pytest.fixture(scope="module")
def bits():
    print(f"seed {SEED}")
    random = np.random.default_rng(SEED)
    inputs = random.integers(0, 2, (600, 40))
    return inputs, (inputs[:, :5].sum(axis=1) > 2).astype(np.int64)


def test_zeros_and_ones_train_the_same_model_in_every_type(stubs, bits):
    inputs, labels = bits
    digests = set()
    for dtype in ("bool", "int64", "float32"):
        upload(stubs, f"bits-{dtype}", inputs=inputs.astype(dtype), labels=labels)
        job = stubs.train(small_spec(f"bits-{dtype}"), model_id=f"bits-{dtype}")
        stubs.events(job.name)
        answer = stubs.trainer.Evaluate(
            pb.EvaluateRequest(model=f"models/bits-{dtype}", dataset=f"datasets/bits-{dtype}")
        )
        assert stubs.job(job.name).spec.model.input_scale == 1.0
        digests.add(answer.parameters_sha256)
    assert len(digests) == 1


@pytest.mark.parametrize("dtype", TYPES)
def test_pixels_are_scaled_the_same_in_every_type(stubs, bits, dtype):
    inputs, labels = bits
    upload(stubs, f"bits-as-{dtype}", inputs=inputs.astype(dtype), labels=labels)
    assert resolved(stubs, small_spec(f"bits-as-{dtype}")).model.input_scale == 1.0
    if dtype != "bool":
        stored = upload(stubs, f"pixels-as-{dtype}", inputs=(inputs * 255).astype(dtype), labels=labels)
        assert (stored.input_minimum, stored.input_maximum, stored.whole_inputs) == (0, 255, True)
        assert resolved(stubs, small_spec(f"pixels-as-{dtype}")).model.input_scale == 1 / 255
        assert resolved(stubs, small_spec(f"pixels-as-{dtype}", standardize_inputs=True)).model.input_scale == 1.0
        assert resolved(stubs, small_spec(f"pixels-as-{dtype}", input_scale=1.0)).model.input_scale == 1.0


def test_mnist_is_still_pixels(stubs):
    for split in ("train", "test"):
        assert resolved(stubs, small_spec(f"mnist-{split}", (784, 10))).model.input_scale == 1 / 255


def test_a_warm_start_keeps_the_scale_of_its_model(stubs, bits):
    inputs, labels = bits
    upload(stubs, "bright", inputs=inputs * 255.0, labels=labels)
    upload(stubs, "dim", inputs=inputs * 200.0, labels=labels)
    stubs.events(stubs.train(small_spec("bright"), model_id="bright").name)
    for sizes in ((), (40, 8, 2)):
        spec = small_spec("dim", sizes)
        spec.warm_start.CopyFrom(pb.WarmStart(model="models/bright", scope=pb.WarmStart.SCOPE_WEIGHTS))
        assert resolved(stubs, spec).model.input_scale == 1 / 255
    assert resolved(stubs, small_spec("dim")).model.input_scale == 1.0


@pytest.mark.parametrize("dtype", ["bool", "uint8", "float32", "float64"])
def test_targets_are_labels_or_numbers_by_their_values(stubs, bits, dtype):
    inputs, labels = bits
    both = np.stack([labels, 1 - labels], axis=1)
    upload(stubs, f"signs-{dtype}", inputs=inputs.astype("f4"), targets=both.astype(dtype))
    assert resolved(stubs, small_spec(f"signs-{dtype}")).task == "multilabel"
    if dtype != "bool":
        upload(stubs, f"counts-{dtype}", inputs=inputs.astype("f4"), targets=(both * 3).astype(dtype))
        assert resolved(stubs, small_spec(f"counts-{dtype}")).task == "regression"
    spec = small_spec(f"signs-{dtype}")
    spec.task = "regression"
    assert resolved(stubs, spec).task == "regression"
    of_counts = small_spec(f"signs-{dtype}")
    of_counts.loss.kind = "poisson"
    assert resolved(stubs, of_counts).task == "regression"


def test_a_warm_start_keeps_the_task_of_its_model_where_the_data_are_of_its_kind(stubs, bits):
    inputs, labels = bits
    rows, both = inputs.astype("f4"), np.stack([labels, 1 - labels], axis=1).astype("f8")
    upload(stubs, "three-fold", inputs=rows, targets=both * 3)
    upload(stubs, "rare-numbers", inputs=rows, targets=both)
    stubs.events(stubs.train(small_spec("three-fold"), model_id="three-fold").name)
    spec = small_spec("rare-numbers", ())
    spec.warm_start.CopyFrom(pb.WarmStart(model="models/three-fold", scope=pb.WarmStart.SCOPE_WEIGHTS))
    assert resolved(stubs, spec).task == "regression"
