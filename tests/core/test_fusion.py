"""Calls that are gathered in passes, against NumPy, call by call."""

import numpy as np
import pytest
from mlpd.core.codegen.kernels import Kernel
from mlpd.core.devices.arrays import ByColumns, RowWords
from mlpd.core.execution.fusion import fuse
from mlpd.core.network.tasks import MixUp
from mlpd.core.plans.recording import ELEMENTWISE, REDUCTIONS, NotRecordable, RecordingDevice, Scalar
from mlpd.core.random import Purpose

from ..conftest import SOAK, needs_compiler
from .kernel_machine import (
    BINARY,
    COMPARISONS,
    DTYPES,
    ELEMENTARY,
    LAYOUTS,
    UNARY,
    assert_same,
    both_ways,
    floats,
    laid,
)

pytestmark = needs_compiler


def overlapping(device, values, out):
    device.xp.multiply(values[:-1], 2.0, out=values[1:])
    device.xp.copyto(out, 1.0)


def sum_of_a_part(device, values, out):
    device.xp.multiply(values, 2.0, out=values)
    device.xp.sum(values.reshape(4, 10)[:, :3], out=out[:1].reshape(()))


BYTES = np.arange(40, dtype=np.uint8)
DIFFICULT = {
    "argmax along rows": lambda device, x, out: device.xp.argmax(x.reshape(4, 10), axis=1, out=out.view(np.int64)[:4]),
    "three dimensions": lambda device, x, out: device.xp.exp(x.reshape(2, 4, 5), out=out.reshape(2, 4, 5)),
    "an output that the call itself looks at": overlapping,
    "the sum of all of a part": sum_of_a_part,
    "wholes times a scalar": lambda device, x, out: device.xp.multiply(np.arange(40), Scalar("rate"), out=out),
    "the exponential of wholes": lambda device, x, out: device.xp.exp(np.arange(40), out=out),
    "the quotient of wholes": lambda device, x, out: device.xp.divide(np.arange(40), 7, out=out),
    "the size of wholes": lambda device, x, out: device.xp.absolute(np.arange(40), out=out),
    "float16": lambda device, x, out: device.xp.multiply(np.ones(40, np.float16), 0.5, out=out),
    "bool": lambda device, x, out: device.xp.add(x > 10, x % 3 == 0, out=out),
    "argmax along columns": lambda device, x, out: device.xp.argmax(x.reshape(4, 10), axis=0, out=out.view(int)[:10]),
    "a product of several types": lambda device, x, out: device.matmul(
        np.ones((2, 3), np.float32), np.ones((3, 2), np.float32), out.reshape(20, 2)[:2]
    ),
    "a number that a double rounds": lambda device, x, out: device.xp.equal(
        2**53 + np.arange(40), 2**53 + 1, out=out.view(np.int64)
    ),
    "a number larger than any of its type": lambda device, x, out: device.xp.less(BYTES, 300, out=out),
    "a number smaller than any of its type": lambda device, x, out: device.xp.greater(BYTES, -1, out=out),
    "a number like another of its type": lambda device, x, out: device.xp.equal(BYTES, 256, out=out),
    "a number too large for a whole one": lambda device, x, out: device.xp.maximum(
        BYTES.astype(np.uint64), 2**63, out=out.view(np.uint64)
    ),
    "rows from a place that is a number": lambda device, x, out: device.gather(x, None, 3, out[:5]),
}


@pytest.mark.parametrize("write", DIFFICULT.values(), ids=DIFFICULT)
def test_what_can_not_be_compiled_is_refused_or_right(machine, write):
    values, out = np.arange(40.0), np.zeros(40)
    try:
        found, expected = both_ways(machine, lambda device: write(device, values, out), [values, out], rate=0.3)
    except NotRecordable:
        return
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-14)


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32", "float64"])
@pytest.mark.parametrize("width", [0, 1, 3, 17])
@pytest.mark.parametrize("rows", [1, 2, 16, 33])
@pytest.mark.parametrize("ordered", [False, True])
def test_rows_are_gathered_in_an_order_from_a_place_on(machine, seed, dtype, width, rows, ordered):
    """Row after row as inputs are, and column after column as targets are; a width of 0 is a vector."""
    random = np.random.default_rng([seed, width, rows])
    source = random.integers(0, 200, (50, width) if width else 50).astype(dtype)
    order = random.permutation(50) if ordered else None
    for layout in ["C", "F", "c", "f"] if width else ["C"]:
        out = np.full((rows, width) if width else rows, 9, dtype)
        out = laid(out, layout) if width else out
        doubled = np.full_like(out, 9, dtype="float64")

        def write(device, out=out, doubled=doubled):
            device.gather(source, order, Scalar("first"), out)
            device.xp.multiply(out, 2.0, out=doubled)

        for first in (0, 50 - rows):
            found, _ = both_ways(machine, write, [out, doubled], first=first)
            chosen = np.arange(first, first + rows)
            expected = source[chosen if order is None else order[chosen]]
            np.testing.assert_array_equal(found[0], expected)
            np.testing.assert_array_equal(found[1], 2.0 * expected)


def test_several_gathers_make_one_pass_and_mind_their_orders(machine):
    sources = [np.arange(100.0).reshape(20, 5) * factor for factor in (1.0, -1.0)]
    order, first, second, total = np.arange(20)[::-1].copy(), np.zeros((4, 5)), np.zeros((4, 5)), np.zeros((4, 5))

    def write(device):
        device.gather(sources[0], order[2:], Scalar("first"), first)
        device.gather(sources[1], None, Scalar("first"), second)
        device.xp.add(first, second, out=total)

    found, expected = both_ways(machine, write, [total], first=3)
    assert_same(found, expected)
    assert found[0][0, 0] == 5 * (20 - 1 - 5) - 5 * 3
    device = RecordingDevice(ByColumns())
    write(device)
    (calls,) = fuse([device.take()], [total])
    assert len(calls) == 1


@pytest.mark.parametrize("whole", [1, 4, 5, 37])
@pytest.mark.parametrize("start_row", [0, 1, 2, 7])
def test_random_words_are_those_of_the_device_bit_for_bit(machine, seed, whole, start_row):
    random = np.random.default_rng([seed, whole, start_row])
    for first_word, words in {(0, whole), (0, 1), (whole - 1, 1), (whole // 3, whole - whole // 3)}:
        out = np.full((9, words), 9, np.uint64)[:7]
        own_seed, layer = int(random.integers(2**63)), int(random.integers(60))
        numbers = {"step": int(random.integers(2**40)), "first_row": int(random.integers(2**20))}

        def write(device, out=out, own_seed=own_seed, layer=layer, first_word=first_word):
            wanted = RowWords(own_seed, layer, Purpose.DROPOUT, whole, first_word, start_row)
            device.draw(wanted, Scalar("step"), Scalar("first_row"), out)

        found, expected = both_ways(machine, write, [out], **numbers)
        assert found[0].tolist() == expected[0].tolist()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("orders", ["CCC", "FFF", "CFC", "CCF", "fff", "ccc", "fCF"])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (1, 7, 5), (7, 1, 5), (7, 5, 1), (33, 17, 16)], ids=str)
def test_products_are_those_of_numpy(machines, seed, dtype, orders, sizes):
    (rows, inner, columns), random = sizes, np.random.default_rng([seed, *sizes])
    shapes = ((rows, inner), (inner, columns), (rows, columns), (rows, columns))
    a, b, out, added = (
        laid(floats(random, shape, dtype, special=False), order)
        for shape, order in zip(shapes, orders + orders[2], strict=True)
    )

    def write(device):
        device.matmul(a, b, out)
        device.add_product(a, b, -0.5, added)

    found, expected = both_ways(machines[dtype], write, [out, added])
    rtol, atol = (1e-4, 1e-3) if dtype == "float32" else (1e-12, 1e-11)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=rtol, atol=atol)


def test_rows_that_are_mixed_with_the_next_are_not_those_already_mixed(machine):
    for rows in (1, 2, 17, 33):
        for order in "CF":
            values = laid(np.random.default_rng(rows).normal(size=(rows + 1, 5)), order)
            targets = np.asarray(np.random.default_rng(rows).normal(size=(rows + 1, 3)), order="F")

            def write(device, values=values, targets=targets, rows=rows):
                mixing = MixUp(device, 5, 3, 40, np.float64, np.float64)
                share, rest = Scalar("mix"), Scalar("mix_rest")
                mixing(values[:rows], targets[:rows], values[rows:], targets[rows:], share, rest)

            original = values.copy(), targets.copy()
            found, expected = both_ways(machine, write, [values, targets], mix=0.7, mix_rest=0.3)
            assert_same(found, expected)
            for one, own in zip(found, original, strict=True):
                np.testing.assert_allclose(one[:rows], 0.7 * own[:rows] + 0.3 * own[1:])
                assert np.array_equal(one[rows:], own[rows:])


@pytest.mark.parametrize("layout", ["C", "F"])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("shift", [1, -1, 5])
def test_a_pass_ends_where_a_call_looks_at_what_another_has_half_overwritten(machine, layout, axis, shift):
    """Whichever of two overlapping views is written, and whichever is looked at."""
    random = np.random.default_rng(shift + 9)
    whole = laid(random.normal(size=(40, 40)), layout)
    here, there = slice(5, 25), slice(5 + shift, 25 + shift)
    one, other = (whole[own] if axis == 0 else whole[:, own] for own in (here, there))
    spares = [laid(random.normal(size=one.shape), layout) for _ in range(4)]

    def write(device):
        xp = device.xp
        xp.multiply(one, 2.0, out=spares[0])
        xp.add(spares[0], 1.0, out=one)
        xp.multiply(other, 3.0, out=spares[1])  # looks at what has been written
        xp.subtract(other, spares[1], out=spares[2])
        xp.add(spares[2], one, out=spares[3])
        xp.multiply(spares[3], 0.5, out=other)  # writes over what has been looked at
        xp.add(one, spares[0], out=spares[0])
        xp.sum(whole, axis=0, keepdims=True, out=whole[:1])  # of all, to where one of them stood

    found, expected = both_ways(machine, write, [whole, *spares])
    np.testing.assert_allclose(found[0][1:], expected[0][1:], rtol=0)
    np.testing.assert_allclose(found[0][0], expected[0][0], rtol=1e-12)
    assert_same(found[1:], expected[1:])


def passes(write, kept):
    device = RecordingDevice(ByColumns())
    write(device)
    (calls,) = fuse([device.take()], kept)
    return calls


def test_only_what_somebody_looks_at_is_stored(machine):
    x, between, out, other, product = (np.full((4, 5), 9.0) for _ in range(5))
    weight = np.eye(5)

    def write(device):
        device.xp.multiply(x, 2.0, out=between)
        device.xp.add(between, 1.0, out=out)

    def write_more(device):
        write(device)
        device.matmul(between, weight, product)
        device.xp.negative(out, out=other)

    for kept, stored in (([out], [False, True]), ([between], [True, False]), ([x], [False, False]), ([], [False] * 2)):
        between[...] = out[...] = 7.0
        machine.run(recorded(write), kept)
        assert [bool((between == 18).all()), bool((out == 19).all())] == stored
        assert [bool((between == 7).all()), bool((out == 7).all())] == [not one for one in stored]
    machine.run(recorded(write_more), [other[:1]])  # kept in part is kept, and a product looks at memory
    assert (between == 18).all()
    assert (product == 18).all()
    assert (out == 19).all()
    assert (other == -19).all()


def recorded(write):
    device = RecordingDevice(ByColumns())
    write(device)
    return device.take()


def test_calls_of_one_shape_make_one_pass_and_all_networks_share_its_code():
    def relu_back(device, rows, width):
        y, dy, dx = (np.zeros((rows, width), order="F") for _ in range(3))
        device.xp.greater(y, 0, out=y)
        device.xp.multiply(dy, y, out=dx)

    kernels = set()
    for rows, width in ((8, 9), (33, 200), (16, 2)):
        (call,) = passes(lambda device, rows=rows, width=width: relu_back(device, rows, width), [])
        assert isinstance(call.kernel, Kernel)
        assert [step.name for step in call.kernel.steps] == ["greater", "multiply"]
        kernels.add(call.kernel)
    assert len(kernels) == 1


def test_nothing_is_done_about_arrays_without_numbers(machine):
    nothing, some = np.zeros((0, 5)), np.ones((3, 5))

    def write(device):
        device.xp.multiply(nothing, 2.0, out=nothing)
        device.gather(some, None, Scalar("first"), some[:0])
        device.xp.sum(some[:, :0], axis=0, keepdims=True, out=np.zeros((1, 0)))
        device.xp.add(some, 1.0, out=some)

    found, _ = both_ways(machine, write, [some], first=0)
    assert (found[0] == 2).all()


def test_the_sum_of_nothing_is_zero(machine):
    values, total, squares = np.full(8, 3.0), np.full((), 9.0), np.full((1, 1), 9.0)

    def write(device):
        device.xp.sum(values[:0], out=total)
        device.square_sum(values[4:4], squares)

    found, expected = both_ways(machine, write, [total, squares])
    assert_same(found, expected)


class Chain:
    """Calls drawn at random, one after the other on the same few arrays, as formulas do."""

    def __init__(self, random, *, exact):
        self.random, self.exact = random, exact
        rows, columns = (int(random.choice([1, 2, 3, 15, 16, 17, 33])) for _ in range(2))
        self.shape = rows, columns
        self.dtype = str(random.choice(DTYPES))
        layout = str(random.choice(["C", "F", "c", "f"]))
        self.wholes, self.arrays = [], []
        for _ in range(6):
            own = layout if random.random() < 0.8 else str(random.choice(LAYOUTS))
            kind = self.dtype if random.random() < 0.85 else str(random.choice(DTYPES))
            self.arrays.append(laid(self.numbers((rows, columns), kind), own))
        whole = laid(self.numbers((rows + 4, columns), self.dtype), layout)
        self.arrays += [whole[2 : 2 + rows], whole[3 : 3 + rows]]  # half the same
        self.broadcast = [self.numbers((1, columns), self.dtype), laid(self.numbers((rows, 1), self.dtype), layout)]
        self.broadcast += [self.numbers((columns,), self.dtype), self.numbers((), self.dtype)]
        self.raw = [random.integers(0, 256, self.shape).astype(kind) for kind in ("uint8", "int64")]
        self.sums = [np.zeros((1, columns), self.dtype), np.zeros((rows, 1), self.dtype), np.zeros(())]
        # Which zero is larger is left open; what is divided by either tells them apart.
        self.binary = [name for name in BINARY if name != "divide"] if random.random() < 0.5 else BINARY[:4]
        if not exact:
            self.binary = ["add", "subtract", "multiply", "maximum", "minimum"]
        self.lines = []

    def numbers(self, shape, dtype):
        if self.exact:
            return floats(self.random, shape, dtype)
        return self.random.uniform(0.25, 2.0, shape).astype(dtype)

    def operand(self):
        kinds = [self.arrays, self.arrays, self.arrays, self.broadcast, [0.5, 3, -1.25, Scalar("rate")]]
        kind = kinds[int(self.random.integers(len(kinds)))]
        return kind[int(self.random.integers(len(kind)))]

    def array(self):
        return self.arrays[int(self.random.integers(len(self.arrays)))]

    def __call__(self, device):
        xp, random = device.xp, self.random
        for _ in range(int(random.integers(3, 13))):
            out, choice = self.array(), random.random()
            if choice < 0.25:
                name = str(random.choice(UNARY if self.exact else ["absolute", "tanh", "exp", "log1p", "negative"]))
                x = self.array()
                if not self.exact and name in ("exp", "log1p"):
                    self.call(xp, "tanh", (x,), out)  # keeps numbers where they can be compared
                    self.call(xp, "absolute", (out,), out)
                    x = out
                self.call(xp, name, (x,), out)
            elif choice < 0.65:
                self.call(xp, str(random.choice(self.binary)), (self.array(), self.operand()), out)
            elif choice < 0.75 and self.exact:
                self.call(xp, str(random.choice(COMPARISONS)), (self.array(), self.operand()), out)
            elif choice < 0.8:
                self.lines.append("copyto")
                xp.copyto(out, 0.75)
            elif choice < 0.87:
                raw = self.raw[int(random.integers(2))]
                self.call(xp, "multiply", (raw, 1 / 256), out, dtype=out.dtype)
            elif not self.exact:
                axis = int(random.integers(2))
                self.call(xp, "sum", (self.array(),), self.sums[axis], axis=axis, keepdims=True)
                self.call(xp, "multiply", (self.array(), self.sums[axis]), out)
                self.call(xp, "multiply", (out, 1 / 64), out)
            else:
                axis = int(random.integers(2))
                self.call(xp, "max", (self.array(),), self.sums[axis], axis=axis, keepdims=True)
                self.call(xp, "subtract", (self.array(), self.sums[axis]), out)

    def call(self, xp, name, operands, out, **options):
        if any(half_overlaps(operand, out) for operand in operands if isinstance(operand, np.ndarray)):
            return
        self.lines.append(name)
        getattr(xp, name)(*operands, out=out, **options)

    @property
    def outputs(self):
        return [*self.arrays, *self.sums]


def half_overlaps(operand, out):
    """Whether a call might look at what it itself has written, which can't be compiled."""
    if not np.may_share_memory(operand, out):
        return False
    return (operand.ctypes.data, operand.strides, operand.shape) != (out.ctypes.data, out.strides, out.shape)


@pytest.mark.parametrize("number", range(20 * SOAK))
def test_any_calls_that_are_rounded_once_give_the_bits_of_numpy_however_they_are_gathered(machines, seed, number):
    chain = Chain(np.random.default_rng([seed, number, 1]), exact=True)
    found, expected = both_ways(machines[chain.dtype], chain, chain.outputs, rate=0.3)
    what = f"seed {seed}, number {number}: {chain.dtype} {chain.shape}, {' '.join(chain.lines)}"
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=what)


@pytest.mark.parametrize("number", range(20 * SOAK))
def test_any_calls_give_what_numpy_gives(machines, seed, number):
    chain = Chain(np.random.default_rng([seed, number, 2]), exact=False)
    found, expected = both_ways(machines[chain.dtype], chain, chain.outputs, rate=0.3)
    what = f"seed {seed}, number {number}: {chain.dtype} {chain.shape}, {' '.join(chain.lines)}"
    kinds = {array.dtype.name for array in chain.arrays}
    tolerance = 2e-4 if "float32" in kinds else 1e-11
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance, err_msg=what)


def test_every_operation_that_can_be_recorded_is_tried_here():
    assert {*UNARY, *BINARY, *COMPARISONS, *ELEMENTARY, "copyto"} == ELEMENTWISE
    assert {"sum", "max", "argmax"} == REDUCTIONS
