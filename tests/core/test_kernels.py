"""Compiled passes against NumPy: every operation, any shape, any place in memory, any numbers."""

from typing import Any

import numpy as np
import pytest
from mlpd.core.plans.recording import Scalar

from ..conftest import needs_compiler
from .kernel_machine import (
    BINARY,
    COMPARISONS,
    DTYPES,
    ELEMENTARY,
    LAYOUTS,
    SHAPES,
    UNARY,
    assert_same,
    both_ways,
    floats,
    laid,
)

pytestmark = needs_compiler


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_operations_that_are_rounded_once_give_the_bits_of_numpy(machines, seed, dtype, shape):
    """All in one pass, whose operands lie in every way; where zeros of either sign are equal, either is as large."""
    random = np.random.default_rng([seed, *shape])
    for layout in LAYOUTS:
        a, b = (laid(floats(random, shape, dtype), layout) for _ in range(2))
        row = floats(random, (1, shape[1]), dtype)
        column = laid(floats(random, (shape[0], 1), dtype), layout)
        single = floats(random, (), dtype)
        right = {"array": b, "row": row, "column": column, "vector": row[0], "single": single}
        right |= {"constant": 0.3, "whole": 2, "scalar": Scalar("rate"), "times": Scalar("rate") * 0.3}
        names: list[str] = []
        outputs: list[Any] = []

        def call(function, name, *operands, a=a, layout=layout, names=names, outputs=outputs):
            outputs.append(laid(np.full(a.shape, 9, a.dtype), layout))
            names.append(name)
            function(*operands, out=outputs[-1])

        def write(device, a=a, b=b, row=row, right=right, call=call):
            for name in UNARY:
                call(getattr(device.xp, name), name, a)
            for name in (*BINARY, *COMPARISONS):
                for kind in right if name == "subtract" else ("array", "constant"):
                    call(getattr(device.xp, name), f"{name} {kind}", a, right[kind])
            for name in ("subtract", "divide", "less"):
                call(getattr(device.xp, name), f"{name} from a row", row, b)
                call(getattr(device.xp, name), f"{name} from a number", 1.5, b)
                call(getattr(device.xp, name), f"{name} from a scalar", Scalar("rate"), b)

        found, expected = both_ways(machines[dtype], write, outputs, rate=0.7)
        for name, one, other in zip(names, found, expected, strict=True):
            if name.startswith(("maximum", "minimum")):
                np.testing.assert_array_equal(one, other, err_msg=f"{name} {layout}")
            else:
                assert_same([one], [other], f"{name} {layout}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_elementary_functions_are_within_two_units_in_the_last_place(machines, seed, dtype, shape):
    random = np.random.default_rng([seed, *shape])
    for layout in ("C", "f gaps"):
        x = laid(floats(random, shape, dtype), layout)
        outputs = [laid(np.zeros(shape, dtype), layout) for _ in ELEMENTARY]

        def write(device, x=x, outputs=outputs):
            for name, out in zip(ELEMENTARY, outputs, strict=True):
                getattr(device.xp, name)(x, out=out)

        found, expected = both_ways(machines[dtype], write, outputs)
        wide = np.float64 if dtype == "float32" else np.longdouble
        for name, one, other in zip(ELEMENTARY, found, expected, strict=True):
            with np.errstate(all="ignore"):
                exact = getattr(np, name)(x.astype(wide))
                distance = np.abs(one - exact) / np.spacing(np.abs(exact).astype(dtype))
                overflows = ~np.isfinite(one) | ~np.isfinite(other)
            np.testing.assert_array_equal(one[overflows], other[overflows], err_msg=name)
            assert (distance[~overflows] <= 2).all(), (name, x[~overflows][np.argmax(distance[~overflows])])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_numbers_become_others_as_numpy_converts_them(machine, seed, shape):
    random = np.random.default_rng([seed, *shape])
    for layout in ("C", "f", "c gaps"):
        single, double = (laid(floats(random, shape, dtype), layout) for dtype in DTYPES)
        wholes = {
            "uint8": laid(random.integers(0, 256, shape).astype(np.uint8), layout),
            "uint16": laid(random.integers(0, 2**16, shape).astype(np.uint16), layout),
            "int32": laid(random.integers(-(2**31), 2**31, shape).astype(np.int32), layout),
            "int64": laid(random.integers(-(2**62), 2**62, shape), layout),
        }
        outputs: list[Any] = []

        def out(dtype, shape=shape, layout=layout, outputs=outputs):
            outputs.append(laid(np.full(shape, 9, dtype), layout))
            return outputs[-1]

        def write(device, single=single, double=double, wholes=wholes, out=out):
            xp = device.xp
            xp.multiply(double, 1.5, out=out("float32"))
            xp.multiply(single, 1.5, out=out("float64"))
            xp.add(single, double, out=out("float32"))
            xp.subtract(single, double, out=out("float32"), casting="same_kind")
            xp.greater(single, double, out=out("int64"))
            xp.equal(single, 0.0, out=out("uint8"))
            for name, values in wholes.items():
                for target in ("float32", "float64"):
                    xp.multiply(values, 1 / 255, out=out(target), dtype=np.dtype(target))
                    xp.multiply(values, 1, out=out(target))
                    xp.greater_equal(values, 100, out=out(target))
                    xp.add(values, single, out=out("float64"))
                    xp.subtract(values, double, out=out(target), casting="same_kind")
                xp.equal(values, wholes["uint8"], out=out("int64"))
                xp.less(values, wholes["int64"], out=out(name))
                xp.maximum(values, 100, out=out(name))
                xp.add(values, values, out=out(name))
                xp.multiply(values, 3, out=out("int64"))

        found, expected = both_ways(machine, write, outputs)
        for number, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_same([one], [other], (number, layout))


def wide_sum(values, axis):
    return np.sum(values, axis=axis, dtype=np.longdouble, keepdims=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sums_and_largest_numbers_of_rows_and_columns_are_those_of_numpy(machines, seed, dtype, shape):
    random = np.random.default_rng([seed, *shape])
    for layout in LAYOUTS:
        usual = laid(floats(random, shape, dtype, special=False), layout)
        any_at_all = laid(floats(random, shape, dtype), layout)
        outputs: list[Any] = []
        checks: list[Any] = []

        def reduce(
            device, name, values, axis, *, keepdims=True, kind=dtype, layout=layout, outputs=outputs, checks=checks
        ):
            size = [1 if i == axis else n for i, n in enumerate(values.shape)]
            whole = laid(np.full((size[0] + 1, size[1] + 1), 9, kind), layout)
            out = whole[:1, : size[1]] if axis == 0 else whole[: size[0], :1]
            if not keepdims:
                out = np.full(max(size), 9, kind)
            options = {"axis": axis, "keepdims": True} if keepdims else {"axis": axis}
            getattr(device.xp, name)(values, out=out, **options)
            outputs.append(out)
            checks.append((name, values, axis))

        def write(device, usual=usual, any_at_all=any_at_all, reduce=reduce, outputs=outputs, checks=checks):
            for axis in (0, 1):
                reduce(device, "sum", usual, axis)
                reduce(device, "sum", usual, axis, keepdims=False)
                reduce(device, "sum", usual, axis, kind="float64")
                reduce(device, "max", any_at_all, axis)
                reduce(device, "max", any_at_all, axis, keepdims=False)
            sums = np.full(shape[1], 9, dtype)
            device.column_sums(np.ones((1, shape[0]), dtype), usual, sums)
            outputs.append(sums)
            checks.append(("sum", usual, 0))

        found, expected = both_ways(machines[dtype], write, outputs)
        for one, other, (name, values, axis) in zip(found, expected, checks, strict=True):
            if name == "max":
                np.testing.assert_array_equal(one, other, err_msg=f"{layout} {axis}")
            else:
                half_ulps = max(8, values.shape[axis]) * np.finfo(one.dtype).eps / 2
                exact, sizes = wide_sum(values, axis), wide_sum(np.abs(values), axis)
                assert (np.abs(one.reshape(exact.shape) - exact) <= half_ulps * sizes).all(), (layout, axis)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 2, 15, 16, 17, 33, 70])
def test_all_numbers_are_summed_in_longer_ones_and_wholes_exactly(machines, seed, dtype, size):
    random = np.random.default_rng([seed, size])
    for values in (floats(random, (size, 1), dtype, special=False), floats(random, size, dtype, special=False)):
        hits = random.integers(0, 2, size)
        total, count, squares = np.full((), 9.0), np.full((), 9), np.full((1, 1), 9, dtype)

        def write(device, values=values, hits=hits, total=total, count=count, squares=squares):
            device.xp.sum(values, dtype=np.float64, out=total)
            device.xp.sum(hits, out=count)
            device.square_sum(values.ravel(), squares)

        found, expected = both_ways(machines[dtype], write, [total, count, squares])
        assert found[0] == pytest.approx(expected[0], rel=1e-12, abs=1e-12 * float(np.abs(values).sum()))
        assert found[1] == expected[1] == hits.sum()
        assert found[2] == pytest.approx(float((values.astype(float) ** 2).sum()), rel=float(8 * np.finfo(dtype).eps))


def lanewise_sum(values):
    """Return the sum in the order of compiled code: sixteen side by side, halved, and what is left one by one."""
    kind, lanes_end = values.dtype.type, len(values) & -16
    lanes, rest = np.zeros(16, values.dtype), kind(0)
    for start in range(0, lanes_end, 16):
        lanes = lanes + values[start : start + 16]
    while len(lanes) > 1:
        lanes = lanes[: len(lanes) // 2] + lanes[len(lanes) // 2 :]
    for value in values[lanes_end:]:
        rest = rest + value
    return lanes[0] + rest


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 5, 16, 33, 200])
def test_sums_are_added_in_one_order_on_which_no_compiler_has_a_say(machines, seed, dtype, size):
    """Along memory in lanes, across it row after row: with these orders the bits are the same."""
    values = floats(np.random.default_rng([seed, size]), (7, size), dtype, special=False)
    along, across = np.zeros((7, 1), dtype), np.zeros((1, size), dtype)

    def write(device):
        device.xp.sum(values, axis=1, keepdims=True, out=along)
        device.xp.sum(values, axis=0, keepdims=True, out=across)

    found, _ = both_ways(machines[dtype], write, [along, across])
    assert found[0][:, 0].tolist() == [lanewise_sum(row) for row in values]
    expected = values[0].copy()
    for row in values[1:]:
        expected += row
    assert found[1][0].tolist() == expected.tolist()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_place_of_the_largest_is_that_of_numpy_for_nan_and_for_equals(machines, seed, dtype, shape):
    random = np.random.default_rng([seed, *shape])
    places = np.full(shape[0] + 2, 9)
    for values in (
        random.normal(size=shape),
        random.integers(0, 3, shape),
        np.zeros(shape),
        np.where(random.random(shape) < 0.3, np.nan, random.integers(0, 2, shape)),
        np.full(shape, np.nan),
        floats(random, shape, dtype),
        np.full(shape, -np.inf),
    ):
        whole = np.zeros((shape[0] + 3, shape[1]), dtype, order="F")
        whole[: shape[0]] = values
        outputs = whole[: shape[0]]

        def write(device, outputs=outputs):
            device.xp.argmax(outputs, axis=1, out=places[: shape[0]])

        found, expected = both_ways(machines[dtype], write, [places])
        assert found[0].tolist() == expected[0].tolist()


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int32", "int64", "uint64"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (3, 17)], ids=str)
def test_the_largest_of_whole_numbers_is_found(machine, seed, kind, shape):
    limits = np.iinfo(kind)
    random = np.random.default_rng([seed, *shape])
    for values in (
        random.integers(limits.min, limits.max, shape, kind, endpoint=True),
        np.full(shape, limits.min, kind),
    ):
        for layout in ("C", "F"):
            x = laid(values, layout)
            along, across = np.zeros((shape[0], 1), kind), np.zeros((1, shape[1]), kind)

            def write(device, x=x, along=along, across=across):
                device.xp.max(x, axis=1, keepdims=True, out=along)
                device.xp.max(x, axis=0, keepdims=True, out=across)

            found, expected = both_ways(machine, write, [along, across])
            assert_same(found, expected, (layout, values))


@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_is_larger_or_smaller_than_a_constant_that_is_no_number(machines, dtype):
    x = np.array([1.0, -0.0, np.nan, np.inf, -np.inf] * 4, dtype)
    wanted = [(name, *pair) for name in ("maximum", "minimum") for pair in ((x, np.nan), (np.nan, x), (2.0, np.nan))]
    outputs = [np.zeros_like(x) for _ in wanted]

    def write(device):
        for (name, *operands), out in zip(wanted, outputs, strict=True):
            getattr(device.xp, name)(*operands, out=out)

    found, expected = both_ways(machines[dtype], write, outputs)
    assert_same(found, expected)
    assert np.isnan(found).all()
