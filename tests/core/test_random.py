"""Random numbers: pinned, so that no upgrade changes a run, and the same words on every device."""

import numpy as np
import pytest
from mlpd.core.arrays import Cpu, Cuda, DeviceUnavailable, open_device
from mlpd.core.initializers import INITIALIZERS
from mlpd.core.random import Purpose, bits, generator, normal, permutation, uniform


def test_an_order_is_a_permutation_that_depends_on_seed_and_epoch_alone():
    order = permutation(1, 2, 1000)
    assert sorted(order) == list(range(1000))
    assert np.array_equal(order, permutation(1, 2, 1000))
    assert not np.array_equal(order, permutation(1, 3, 1000))
    assert not np.array_equal(order, permutation(2, 2, 1000))


def test_random_numbers_are_pinned():
    assert permutation(1, 0, 8).tolist() == [5, 4, 6, 0, 7, 2, 3, 1]
    assert uniform(1, Purpose.WEIGHTS, 0, 2).tolist() == [0.2699070645804525, 0.9929787238884438]
    assert normal(1, Purpose.WEIGHTS, 0, 1)[0] == pytest.approx(1.6168675378479802, rel=1e-12)


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
def test_a_device_draws_the_words_of_numpys_philox(count, device):
    counter = (7, 1, 2**40, 4)
    out = device.xp.empty((count,), dtype=device.xp.uint64)
    device.fill_random(2**62 + 5, counter, out)
    expected = np.random.Philox(key=2**62 + 5, counter=list(counter)).random_raw(count)
    assert np.array_equal(device.to_host(out), expected)


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
