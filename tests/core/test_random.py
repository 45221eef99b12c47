"""Random numbers: pinned, so that no upgrade changes a run, and the same words on every device."""

import hashlib

import numpy as np
import pytest
from mlpd.core.data.augmentation import AugmentationSpec, Augmenter
from mlpd.core.data.splits import held_out_rows
from mlpd.core.devices.arrays import Cpu, DeviceUnavailable, RowWords, open_device
from mlpd.core.devices.cuda import Cuda
from mlpd.core.network.initializers import INITIALIZERS
from mlpd.core.network.layers import Dropout
from mlpd.core.network.network import Backward, Pass, Weights
from mlpd.core.network.tasks import mixing_share
from mlpd.core.random import Purpose, bits, generator, normal, permutation, uniform


def test_an_order_is_a_permutation_that_depends_on_seed_and_epoch_alone():
    order = permutation(1, 2, 1000)
    assert sorted(order) == list(range(1000))
    assert np.array_equal(order, permutation(1, 2, 1000))
    assert not np.array_equal(order, permutation(1, 3, 1000))
    assert not np.array_equal(order, permutation(2, 2, 1000))


NORMAL = 1.6168675378479802
DIGEST = "50ae7ebae2c4bd716b4d7382ce02c82530adeb6c275908d0a0ec9b23346fcca3"


def test_normal_numbers_have_the_same_bits_on_every_processor():
    numbers = normal(3, Purpose.WEIGHTS, 2, 30_001)
    assert hashlib.sha256(numbers.astype("<f8").tobytes()).hexdigest() == DIGEST
    u = uniform(3, Purpose.WEIGHTS, 2, 30_002).astype(np.longdouble)
    radius, angle = np.sqrt(-2 * np.log(u[:15_001])), (2 * np.pi * u[15_001:].astype(np.float64)).astype(np.longdouble)
    exact = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:30_001]
    assert np.abs(numbers - exact).max() < 1e-15


def test_random_numbers_are_pinned():
    assert permutation(1, 0, 8).tolist() == [5, 4, 6, 0, 7, 2, 3, 1]
    assert uniform(1, Purpose.WEIGHTS, 0, 2).tolist() == [0.2699070645804525, 0.9929787238884438]
    assert normal(1, Purpose.WEIGHTS, 0, 1)[0] == NORMAL
    assert held_out_rows(np.arange(12) % 3, 4, 1).tolist() == [3, 5, 7, 10]
    assert mixing_share(1, 2, 0.4) == pytest.approx(0.9891893198568954, rel=1e-12)


PINNED_WEIGHTS = {
    "he_normal": [0.3738383400542888, 0.022771383088059448],
    "he_uniform": [-0.7970653092186415, 1.7077283936505072],
    "glorot_normal": [0.23643612625362145, 0.014401887206101287],
    "glorot_uniform": [-0.5041083642074624, 1.0800622697752464],
    "lecun_normal": [0.2643436253199101, 0.0161017993985635],
    "lecun_uniform": [-0.5636102851970538, 1.2075463275750835],
    "orthogonal": [0.38763040925446, -0.9138649258757857],
    "zeros": [0.0, 0.0],
}


@pytest.mark.parametrize("name", INITIALIZERS)
def test_initial_weights_are_pinned(name):
    assert INITIALIZERS[name](1, 0, 2, 3)[0, :2].tolist() == pytest.approx(PINNED_WEIGHTS[name], rel=1e-12)


@pytest.mark.parametrize("first_row", [0, 5, 7, 8])
def test_masks_are_pinned(first_row, device):
    """Those of rows 8 and 9 of a step, whose micro-batch begins at ``first_row``."""
    nothing = device.xp.zeros(0, dtype=device.xp.float32)
    network = Pass(device, (Dropout(20, 0.5),), 20, Weights(nothing, nothing), 10, Backward(seed=4))
    rows = 10 - first_row
    network.inputs(rows).fill(1.0)
    mask = device.to_host(network.forward(rows, 3, first_row)) > 0
    assert mask.astype(int)[-2:].tolist() == [
        [0, 1, 1, 0, 0, 0, 1, 1, 1, 1, 1, 0, 0, 0, 1, 1, 1, 1, 1, 1],
        [0, 1, 1, 0, 0, 1, 1, 0, 1, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 0],
    ]


def test_the_changes_of_images_are_pinned():
    """One bright pixel lands where shift, rotation, scale and shear of this seed, epoch and position put it."""
    image = np.zeros((1, 99), np.float32)
    image[0, 49] = 1.0  # the middle of 9 x 11
    out = np.empty_like(image)
    Augmenter(AugmentationSpec(9, 11, 2.0, 20.0, 0.2, 0.3), 1)(image, 2, 5, out)
    bright = np.flatnonzero(out[0])
    assert bright.tolist() == [38, 39, 49, 50]
    assert out[0, bright].tolist() == pytest.approx([0.399065, 0.079105, 0.135705, 0.083439], rel=1e-4)


def test_no_two_purposes_share_numbers():
    words = np.concatenate([bits(1, purpose, index, 1000) for purpose in Purpose for index in range(3)])
    assert len(np.unique(words)) == len(words)


def test_a_position_stands_for_four_words():
    whole = generator(1, Purpose.AUGMENTATION, 2).random_raw(40)
    assert np.array_equal(generator(1, Purpose.AUGMENTATION, 2, 5).random_raw(20), whole[20:])


def test_uniform_numbers_are_inside_the_unit_interval():
    numbers = uniform(3, Purpose.SPLIT, 0, 100_000)
    assert 0 < numbers.min() < 1e-4
    assert 1 - 1e-4 < numbers.max() < 1
    assert numbers.mean() == pytest.approx(0.5, abs=0.005)


def test_normal_numbers_have_the_moments_of_their_distribution():
    numbers = normal(3, Purpose.WEIGHTS, 0, 100_001)
    assert [float((numbers**power).mean()) for power in (1, 2, 3, 4)] == pytest.approx([0, 1, 0, 3], abs=0.06)


@pytest.mark.parametrize("count", [1, 3, 4, 5, 1000, 10_001])
@pytest.mark.parametrize("first", [0, 1, 2, 3, 29])
def test_a_device_draws_the_words_of_numpys_philox(first, count, device):
    counter = (1, 2**40, 4)
    out = device.xp.empty((count,), dtype=device.xp.uint64)
    device.fill_random(2**62 + 5, counter, first, out)
    expected = np.random.Philox(key=2**62 + 5, counter=[0, *counter]).random_raw(first + count)
    assert np.array_equal(device.to_host(out), expected[first:])


@pytest.mark.parametrize("whole", [1, 3, 4, 5, 16, 37])
@pytest.mark.parametrize("sizes", [(36,), (30, 6), (1, 2, 33), (7, 7, 7, 7, 7, 1)], ids=str)
def test_the_words_of_rows_follow_each_other_in_numpys_philox_however_a_step_is_cut(whole, sizes, device):
    drawn, first_row = [], 0
    for rows in sizes:
        out = device.xp.empty((rows, whole), dtype=device.xp.uint64)
        device.draw(RowWords(9, 2, Purpose.DROPOUT, whole), 2**40, first_row, out)
        drawn.append(device.to_host(out).ravel())
        first_row += rows
    expected = np.random.Philox(key=9, counter=[0, 2, 2**40, Purpose.DROPOUT]).random_raw(36 * whole)
    assert np.array_equal(np.concatenate(drawn), expected)


@pytest.mark.parametrize(("first_word", "words"), [(0, 37), (0, 1), (1, 4), (4, 9), (36, 1), (5, 32)])
@pytest.mark.parametrize("start_row", [0, 1, 2, 7])
def test_a_part_of_the_words_of_rows_is_a_part_of_all(start_row, first_word, words):
    whole, part = np.empty((12, 37), np.uint64), np.empty((5, words), np.uint64)
    Cpu().draw(RowWords(9, 2, Purpose.DROPOUT, 37), 3, 9, whole)
    Cpu().draw(RowWords(9, 2, Purpose.DROPOUT, 37, first_word, start_row), 3, 9, part)
    assert np.array_equal(part, whole[start_row : start_row + 5, first_word : first_word + words])


VARIANCES = {
    "he_normal": 2 / 500,
    "he_uniform": 2 / 500,
    "glorot_normal": 2 / 700,
    "glorot_uniform": 2 / 700,
    "lecun_normal": 1 / 500,
    "lecun_uniform": 1 / 500,
    "orthogonal": 1 / 500,
    "zeros": 0,
}


@pytest.mark.parametrize("name", INITIALIZERS)
def test_initial_weights_have_the_variance_of_their_paper(name):
    weights = INITIALIZERS[name](4, 0, 500, 200)
    assert weights.shape == (500, 200)
    assert weights.var() == pytest.approx(VARIANCES[name], rel=0.02)
    assert abs(weights.mean()) <= 4 * np.sqrt(VARIANCES[name] / weights.size)


@pytest.mark.parametrize(("inputs", "width"), [(9, 4), (4, 9), (5, 5), (1, 3)])
def test_orthogonal_weights_are_orthonormal(inputs, width):
    weights = INITIALIZERS["orthogonal"](4, 0, inputs, width)
    gram = weights.T @ weights if inputs >= width else weights @ weights.T
    assert np.allclose(gram, np.eye(min(inputs, width)))


@pytest.mark.parametrize("name", [name for name in INITIALIZERS if name != "zeros"])
def test_layers_begin_with_different_weights(name):
    first, second = (INITIALIZERS[name](4, layer, 6, 6) for layer in (0, 1))
    assert not np.isclose(first, second).any()


def test_cuda_without_cupy_says_what_to_install():
    try:
        Cuda()
    except DeviceUnavailable as error:
        assert any(text in str(error) for text in ("not installed", "no CUDA device", "broken"))  # noqa: PT017
    assert isinstance(open_device("cpu"), Cpu)


@pytest.mark.parametrize("count", [1, 2, 3, 16, 17, 1000, 65537])
def test_an_order_is_that_of_the_rows_words(count):
    assert np.array_equal(permutation(7, 3, count), np.argsort(bits(7, Purpose.ORDER, 3, count), kind="stable"))


def test_rows_are_in_order_whose_words_differ_in_their_last_bits_alone(monkeypatch):
    words = np.array([5, 9, 5, 1 << 40, 4, 9], np.uint64)
    monkeypatch.setattr("mlpd.core.random.bits", lambda *_: words.copy())
    assert permutation(1, 0, 6).tolist() == [4, 0, 2, 1, 5, 3]
