"""Blocks that have made narrow rows go on with a product of them, where that waits for nothing else."""

import numpy as np
import pytest

from .fused import both_ways, groups_of, on_device, recorded

pytestmark = pytest.mark.cuda


class Layers:
    """A hidden layer of ``width`` units and ``outputs``, as far as gradients need them, of small whole numbers."""

    def __init__(self, machine, seed, rows, width, outputs, dtype="float32"):
        random = np.random.default_rng([seed, rows, width, outputs])

        def made(*shape):
            return on_device(machine, random.integers(-8, 9, shape).astype(dtype))

        self.rows, self.width, self.outputs, self._machine = rows, width, outputs, machine
        self.hidden, self.weights, self.logits = made(rows, width), made(width, outputs), made(rows, outputs)
        self.largest, self.gradient, self.mask = made(rows, 1), made(rows, width), made(rows, width)
        self.change = made(width, outputs)

    def outwards(self, device):
        """From the hidden layer to the outputs, and what is done with their rows."""
        device.matmul(self.hidden, self.weights, self.logits)
        device.xp.max(self.logits, axis=1, keepdims=True, out=self.largest)
        device.xp.subtract(self.logits, self.largest, out=self.logits)

    def inwards(self, device, out=None):
        """Back to the hidden layer."""
        out = self.gradient if out is None else out
        device.matmul(self.logits, self.weights.T, out)
        device.xp.multiply(out, self.mask, out=out)

    def check(self, write, outputs, following):
        """Check that all has the same numbers, and how many products follow others in the same blocks."""
        calls = recorded(self._machine.device, write)
        groups = groups_of(self._machine.device, calls, outputs)
        assert sum(group.following is not None for group in groups) == following, groups
        for found, expected in zip(*both_ways(self._machine, write, outputs), strict=True):
            np.testing.assert_array_equal(found, expected)


@pytest.fixture
def layers(machine, seed):
    return lambda *sizes, **how: Layers(machine, seed, *sizes, **how)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("outputs", [1, 2, 10, 16])
def test_a_block_goes_on_with_the_product_of_its_rows(layers, outputs, dtype):
    for rows, width in ((2, 3), (8, 40), (9, 300), (37, 600)):
        own = layers(rows, width, outputs, dtype=dtype)

        def write(device, own=own):
            own.outwards(device)
            own.inwards(device)
            device.matmul(own.hidden.T, own.logits, own.change)

        whole_rows = outputs > 1  # of one number, nothing is reduced
        own.check(write, [own.logits, own.largest, own.gradient, own.change], int(whole_rows))


def test_the_product_may_take_the_place_of_the_rows_that_the_first_has_read(layers):
    own = layers(20, 30, 5)

    def write(device):
        own.outwards(device)
        own.inwards(device, out=own.hidden)

    own.check(write, [own.logits, own.hidden], 1)


def test_a_product_may_not_take_the_place_of_other_rows(layers, machine):
    own = layers(20, 30, 5)
    whole = on_device(machine, np.ones((21, 30), np.float32))
    own.hidden, shifted = whole[:-1], whole[1:]

    def write(device):
        own.outwards(device)
        own.inwards(device, out=shifted)

    own.check(write, [own.logits, whole], 0)


@pytest.mark.parametrize(("width", "outputs"), [(30, 17), (2049, 3)], ids=["long sums", "wide"])
def test_a_large_product_has_blocks_of_its_own(layers, width, outputs):
    own = layers(9, width, outputs)

    def write(device):
        own.outwards(device)
        own.inwards(device)

    own.check(write, [own.logits, own.gradient], 0)


def test_what_must_come_between_does(layers):
    """The weights change before they are used again, or the rows do."""
    for changed in ("weights", "logits"):
        own = layers(20, 30, 5)

        def write(device, own=own, changed=changed):
            own.outwards(device)
            device.xp.multiply(getattr(own, changed).reshape(-1), 2.0, out=getattr(own, changed).reshape(-1))
            own.inwards(device)

        own.check(write, [own.logits, own.weights, own.gradient], 0)


def test_what_comes_later_may_change_the_weights(layers):
    own = layers(20, 30, 5)

    def write(device):
        own.outwards(device)
        own.inwards(device)
        device.add_product(own.hidden.T, own.logits, -0.5, own.weights)

    own.check(write, [own.weights, own.gradient], 1)
