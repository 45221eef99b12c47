"""Model files, checkpoints and exact evaluation."""

import numpy as np
import pytest
from mlpd.core.arrays import Cpu, Cuda, DeviceUnavailable, open_device
from mlpd.core.checkpoint import CheckpointError
from mlpd.core.data import Dataset
from mlpd.core.metrics import evaluate
from mlpd.core.model import Classifier, Model, load_model, parameters_sha256, probabilities, save_model
from mlpd.core.network import initial_parameters, parameter_count
from mlpd.core.random import Purpose, normal, permutation, uniform

SIZES = (5, 7, 3)
MODEL = Model(SIZES, 0.5, initial_parameters(SIZES, "he_normal", 1))


def rows(count=40):
    random = np.random.default_rng(2)
    return Dataset(random.integers(0, 256, (count, 5), np.uint8), random.integers(0, 3, count).astype(np.uint8))


def plain_logits(inputs):
    w1, b1, w2, b2 = np.split(MODEL.parameters.astype(float), np.cumsum([35, 7, 21]))
    return np.maximum(inputs * 0.5 @ w1.reshape(5, 7) + b1, 0) @ w2.reshape(7, 3) + b2


def test_a_model_survives_its_file(tmp_path):
    digest = save_model(tmp_path / "m", MODEL, {"training_job": "a"})
    loaded = load_model(tmp_path / "m", digest.sha256)
    assert (loaded.layer_sizes, loaded.input_scale) == (SIZES, 0.5)
    assert parameters_sha256(loaded.parameters) == parameters_sha256(MODEL.parameters)


@pytest.mark.parametrize("position", [0, 9, 100, -1])
def test_a_file_with_one_changed_byte_is_refused(tmp_path, position):
    digest = save_model(tmp_path / "m", MODEL, {})
    content = bytearray((tmp_path / "m").read_bytes())
    content[position] ^= 1
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(CheckpointError, match="must have the SHA-256"):
        load_model(tmp_path / "m", digest.sha256)


def test_a_torn_file_is_refused(tmp_path):
    digest = save_model(tmp_path / "m", MODEL, {})
    (tmp_path / "m").write_bytes((tmp_path / "m").read_bytes()[:-1])
    with pytest.raises(CheckpointError):
        load_model(tmp_path / "m", digest.sha256)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    digest = save_model(tmp_path / "m", MODEL, {})
    (tmp_path / "m.partial").mkdir()
    with pytest.raises(OSError, match="directory"):
        save_model(tmp_path / "m", MODEL, {"other": "content"})
    assert load_model(tmp_path / "m", digest.sha256).layer_sizes == SIZES


@pytest.mark.parametrize("capacity", [1, 7, 40, 100])
def test_logits_are_those_of_a_plain_float64_network(capacity):
    inputs = rows().inputs
    assert np.allclose(Classifier(Cpu(), MODEL, capacity).logits(inputs), plain_logits(inputs), atol=1e-3)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32", "int64"])
def test_the_same_rows_in_another_type_give_the_same_bits(dtype):
    inputs = rows().inputs
    classifier = Classifier(Cpu(), MODEL, 16)
    assert np.array_equal(classifier.logits(inputs.astype(dtype)), classifier.logits(inputs))


def test_probabilities_sum_to_one_and_survive_large_logits():
    shares = probabilities(np.array([[1e4, 0, -1e4], [1, 1, 1]], np.float32))
    assert np.allclose(shares, [[1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]])


def test_evaluation_counts_exactly():
    data = rows()
    *_, counts = evaluate(Classifier(Cpu(), MODEL, 16), data, include_confusion=True)
    logits = plain_logits(data.inputs)
    predicted = logits.argmax(axis=1)
    confusion = np.zeros((3, 3), int)
    np.add.at(confusion, (data.labels, predicted), 1)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    assert counts.row_count == 40
    assert counts.correct_count == int((predicted == data.labels).sum())
    assert counts.confusion is not None
    assert np.array_equal(counts.confusion, confusion)
    assert counts.loss == pytest.approx(-np.log(shares[np.arange(40), data.labels]).mean(), rel=1e-4)


def test_evaluation_can_be_stopped_after_any_batch():
    first = next(evaluate(Classifier(Cpu(), MODEL, 16), rows()))
    assert (first.row_count, first.confusion) == (16, None)


@pytest.mark.parametrize(
    ("initializer", "variance"),
    [("he_normal", 2 / 500), ("he_uniform", 2 / 500), ("glorot_normal", 2 / 700), ("glorot_uniform", 2 / 700)],
)
def test_initial_weights_have_the_variance_of_their_paper_and_biases_are_zero(initializer, variance):
    parameters = initial_parameters((500, 200), initializer, seed=4)
    assert len(parameters) == parameter_count((500, 200)) == 100_200
    assert parameters[:100_000].var() == pytest.approx(variance, rel=0.02)
    assert not parameters[100_000:].any()


def test_an_order_is_a_permutation_that_depends_on_seed_and_epoch_alone():
    order = permutation(1, 2, 1000)
    assert sorted(order) == list(range(1000))
    assert np.array_equal(order, permutation(1, 2, 1000))
    assert not np.array_equal(order, permutation(1, 3, 1000))
    assert not np.array_equal(order, permutation(2, 2, 1000))


def test_random_numbers_are_pinned_so_that_no_upgrade_changes_a_run():
    assert permutation(1, 0, 8).tolist() == [5, 4, 6, 0, 7, 2, 3, 1]
    assert uniform(1, Purpose.WEIGHTS, 0, 2).tolist() == [0.2699070645804525, 0.9929787238884438]
    assert normal(1, Purpose.WEIGHTS, 0, 1)[0] == pytest.approx(1.6168675378479802, rel=1e-12)


def test_cuda_without_cupy_says_what_to_install():
    try:
        Cuda()
    except DeviceUnavailable as error:
        assert any(text in str(error) for text in ("not installed", "no CUDA device", "broken"))  # noqa: PT017
    assert open_device("cpu").name == "cpu"
