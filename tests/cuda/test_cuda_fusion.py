"""Calls that are fused on CUDA, where fusing goes wrong most easily: small recordings, against NumPy, call by call."""

import numpy as np
import pytest
from mlpd.core.cuda.calls import MOST_NUMBERS
from mlpd.core.cuda.fusion import Fuser
from mlpd.core.cuda.launches import launches_of
from mlpd.core.cuda.packing import pack
from mlpd.core.plans.recording import NotRecordable

from .fused import both_ways, groups_of, on_device, recorded

pytestmark = pytest.mark.cuda


@pytest.fixture
def make(machine, seed):
    """A function (shape, type, layout) that makes an array of small whole numbers: sums of them are exact."""
    random = np.random.default_rng(seed)

    def made(*shape, dtype="float64", layout="C"):
        return on_device(machine, random.integers(-8, 9, shape).astype(dtype), layout)

    return made


def check(machine, write, outputs, kept=None, **numbers):
    """Check that values are the same; a zero may have either sign where sums are made in another order."""
    found, expected = both_ways(machine, write, outputs, kept, **numbers)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    return found


@pytest.mark.parametrize("columns", [5, 40])
def test_the_place_of_a_rows_number_may_be_used_for_another(machine, make, columns):
    x, y, total, doubled, other = make(6, columns), make(6, columns), *(make(6, 1) for _ in range(3))

    def write(device):
        xp = device.xp
        xp.sum(x, axis=1, keepdims=True, out=total)
        xp.multiply(total, 2.0, out=doubled)
        xp.max(x, axis=1, keepdims=True, out=total)
        xp.add(x, doubled, out=y)
        xp.multiply(y, total, out=y)
        xp.copyto(other, 3.0)
        xp.sum(y, axis=1, keepdims=True, out=other)

    check(machine, write, [total, doubled, y, other])


def test_a_product_is_kept_whose_rows_are_looked_at_but_not_changed(machine, make):
    a, b, product, largest, rest = make(12, 7), make(7, 10), make(12, 10), make(12, 1), make(12, 10)

    def write(device):
        device.matmul(a, b, product)
        device.xp.max(product, axis=1, keepdims=True, out=largest)
        device.xp.subtract(product, largest, out=rest)

    check(machine, write, [product, largest, rest])
    check(machine, write, [product, rest], kept=[product, rest])


def test_a_long_sum_is_one_of_parts(machine, make):
    for rows in (8192, 8193, 20_001):
        values, columns, total, squares = make(rows, 3), make(3), make(1), make(1, 1)

        def write(device, values=values, columns=columns, total=total, squares=squares):
            device.xp.sum(values, axis=0, out=columns)
            device.xp.sum(values.reshape(-1), out=total.reshape(()))
            device.square_sum(values.reshape(-1), squares)
            device.xp.multiply(columns, total, out=columns)

        check(machine, write, [columns, total, squares])


def test_the_sum_of_nothing_is_zero(machine, make):
    values, columns, total, squares = make(8, 3), make(3), make(1), make(1, 1)

    def write(device):
        device.xp.sum(values[:0], axis=0, out=columns)
        device.xp.sum(values[:0, 0], out=total.reshape(()))
        device.square_sum(values[4:4, 0], squares)

    assert not any(found.any() for found in check(machine, write, [columns, total, squares]))


def test_many_sums_and_many_steps_over_one_grid_can_be_launched(machine, make):
    values, totals, vectors = ([make(*shape) for _ in range(60)] for shape in ((5, 3), (3,), (7,)))

    def write(device):
        for own, total, vector in zip(values, totals, vectors, strict=True):
            device.xp.sum(own, axis=0, out=total)
            device.xp.multiply(vector, 0.5, out=vector)

    check(machine, write, [*totals, *vectors])


MANY = 200  # arrays, of which a launch has no room for the addresses and strides


def all_into_one(xp, arrays, out):
    for array in arrays:
        xp.add(out, array, out=out)


def test_a_pass_over_more_arrays_than_a_launch_can_name_is_cut(machine, make):
    vectors, total = [make(7) for _ in range(MANY)], make(7)
    columns, rows = [make(6, 5) for _ in range(MANY)], [make(6, 1) for _ in range(MANY)]
    a, b, product = make(6, 4), make(4, 5), make(6, 5)
    values, sums, others = make(9, 5), make(5), [make(5) for _ in range(MANY)]
    constants = make(11)

    def write(device):
        xp = device.xp
        all_into_one(xp, vectors, total)
        for own, row in zip(columns, rows, strict=True):
            xp.max(own, axis=1, keepdims=True, out=row)
            xp.subtract(own, row, out=own)
        device.matmul(a, b, product)
        all_into_one(xp, columns, product)
        xp.sum(values, axis=0, out=sums)
        all_into_one(xp, others, sums)
        for number in range(3 * MANY):
            xp.add(constants, float(number), out=constants)

    kept = [total, *columns, *rows, product, sums, constants]
    groups = groups_of(machine.device, recorded(machine.device, write), kept)
    calls = [pack(group) for group in groups]
    assert all(len(call.numbers) <= group.number_count for call, group in zip(calls, groups, strict=True))
    launches = launches_of(calls, [])
    counts = [sum(1 + len(part.call.numbers) for part in launch) for launch in launches]
    assert max(counts) <= MOST_NUMBERS
    assert sum(count > MOST_NUMBERS // 2 for count in counts) > 5  # and not smaller than need be
    check(machine, write, kept)


def test_the_sum_of_a_sum_waits_for_it(machine, make):
    for rows in (1, 5):
        values, total, again = make(rows), make(1), make(1)

        def write(device, values=values, total=total, again=again):
            device.xp.sum(values, out=total.reshape(()))
            device.xp.sum(total, out=again.reshape(()))
            device.square_sum(again, total.reshape(1, 1))

        check(machine, write, [total, again])


@pytest.mark.parametrize("columns", [5, 40])
def test_the_largest_of_whole_numbers_and_its_place_are_found(machine, make, columns):
    for kind in ("int64", "uint8"):
        values, largest, place = make(6, columns).astype(kind), make(6, dtype=kind), make(6, dtype="int64")
        values[0] = np.iinfo(kind).min

        def write(device, values=values, largest=largest, place=place):
            device.xp.max(values, axis=1, out=largest)
            device.xp.argmax(values, axis=1, out=place)

        check(machine, write, [largest, place])


def test_a_number_that_a_type_lacks_is_not_compiled(machine, make):
    """Cut to the type, it would equal another."""
    values, out = on_device(machine, np.arange(40, dtype=np.uint8)), make(40)
    with pytest.raises(NotRecordable, match="equal can't be compiled of 256 and numbers of type uint8"):
        Fuser(machine.device.empty, 0).add(
            *recorded(machine.device, lambda device: device.xp.equal(values, 256, out=out))
        )


OVERLAPPING = {
    "each from the one before": lambda device, x: device.xp.multiply(x[:-1], 2.0, out=x[1:]),
    "from the last to the first": lambda device, x: device.xp.add(x[::-1], 1.0, out=x),
    "a product in place": lambda device, x: device.matmul(x, x, x),
    "a product that adds to its factor": lambda device, x: device.add_product(x, x, -1.0, x),
    "sums of columns": lambda device, x: device.xp.sum(x, axis=0, out=x.reshape(-1)[5:45]),
    "sums of rows": lambda device, x: device.xp.sum(x, axis=1, out=x[3]),
    "the sum of all": lambda device, x: device.square_sum(x.reshape(-1), x[:1, :1]),
}


@pytest.mark.parametrize("write", OVERLAPPING.values(), ids=OVERLAPPING)
def test_a_call_is_refused_that_would_look_at_what_it_has_overwritten(machine, make, write):
    x = make(40, 40)
    (call,) = recorded(machine.device, lambda device: write(device, x))
    with pytest.raises(NotRecordable, match=r"can't be compiled whose output (half )?overlaps what it looks at"):
        Fuser(machine.device.empty, 0).add(call)


def test_an_array_is_overwritten_after_all_who_look_at_it(machine, make):
    """As a mask of ReLU is beside the product for the weights, which are moved at once."""
    x, outputs, d_outputs, d_hidden = (make(20, 12) for _ in range(4))
    weights, gradient = make(12, 12), make(12, 12)

    def write(device):
        xp = device.xp
        device.matmul(x, weights, outputs)
        xp.maximum(outputs, 0.0, out=outputs)
        device.matmul(outputs.T, d_outputs, gradient)
        device.matmul(d_outputs, weights.T, d_hidden)
        xp.greater(outputs, 0.0, out=outputs)
        xp.multiply(d_hidden, outputs, out=d_hidden)
        device.add_product(x.T, d_hidden, -1.0, weights)
        xp.negative(outputs, out=outputs)

    check(machine, write, [outputs, d_hidden, gradient, weights])


def test_a_value_is_stored_for_those_who_look_at_it_before_the_next(machine, make):
    x, y, first, second = (make(12, 12) for _ in range(4))

    def write(device):
        device.xp.add(x, 1.0, out=y)
        device.matmul(y, x, first)
        device.xp.multiply(y, 2.0, out=y)
        device.matmul(y, x, second)
        device.xp.negative(y, out=y)

    check(machine, write, [y, first, second])


def test_numbers_of_rows_are_used_along_rows_and_across(machine, make):
    square, across, one, shifted = make(5, 5), make(5, 5), make(1, 7), make(1, 7)
    rows, row, weights = make(5), make(1, 1), make(7, 10)
    product, chances, sums = make(1, 10), make(9, 10), make(9, 1)
    inputs = make(9, 7)

    def write(device):
        xp = device.xp
        xp.sum(square, axis=1, out=rows)
        xp.add(square, rows, out=across)
        xp.add(across, rows[:, None], out=across)
        xp.max(one, axis=1, keepdims=True, out=row)
        xp.subtract(one, row, out=shifted)
        device.matmul(one, weights, product)
        xp.maximum(product, 0.0, out=product)
        xp.max(product, axis=1, keepdims=True, out=row)
        xp.subtract(product, row, out=product)
        device.matmul(inputs, weights, chances)
        xp.max(chances, axis=1, keepdims=True, out=sums)
        xp.subtract(chances, sums, out=chances)
        xp.sum(chances, axis=1, keepdims=True, out=sums)
        xp.multiply(chances, sums, out=chances)

    check(machine, write, [across, rows, row, shifted, product, chances, sums])
