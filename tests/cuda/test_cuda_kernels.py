"""Fused kernels on CUDA: every operation, any shape, any place in memory, any numbers, bit for bit."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from mlpd.core.devices.arrays import RowWords
from mlpd.core.plans.recording import ELEMENTWISE, REDUCTIONS, Scalar
from mlpd.core.random import Purpose

from ..conftest import needs_compiler
from ..core.kernel_machine import BINARY, COMPARISONS, DTYPES, ELEMENTARY, UNARY, Machine, floats
from .fused import assert_bits, both_ways, on_device

pytestmark = pytest.mark.cuda

SHAPES = [(1, 1), (1, 2), (1, 40), (40, 1), (2, 1), (3, 15), (33, 16), (17, 17), (5, 600), (70, 3)]
RIGHT = ["array", "row", "column", "vector", "single", "constant", "whole", "scalar", "times"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["C", "f gaps"])
def test_operations_that_are_rounded_once_give_the_bits_of_numpy(machine, seed, dtype, layout):
    """All in one pass; where zeros of either sign are equal, either is as large. Nothing is flushed to zero."""
    for shape in SHAPES:
        random = np.random.default_rng([seed, *shape])
        a, b = (on_device(machine, floats(random, shape, dtype), layout) for _ in range(2))
        row, column, single = (
            on_device(machine, floats(random, own, dtype), layout) for own in ((1, shape[1]), (shape[0], 1), ())
        )
        right = dict(
            zip(RIGHT, (b, row, column, row[0], single, 0.3, 2, Scalar("rate"), Scalar("rate") * 0.3), strict=True)
        )
        wanted: list[Any] = [(name, a) for name in UNARY]
        wanted += [(name, a, b) for name in (*BINARY, *COMPARISONS)]
        wanted += [(name, a, 0.3) for name in (*BINARY, *COMPARISONS)]
        wanted += [(name, *pair) for name in ("maximum", "minimum") for pair in ((a, np.nan), (np.nan, a))]
        wanted += [("subtract", a, own) for own in right.values()]
        wanted += [(name, own, b) for name, own in product(("divide", "less"), (row, 1.5, Scalar("rate")))]
        outputs = [on_device(machine, np.full(shape, 9, dtype), layout) for _ in range(len(wanted) + 1)]

        def write(device, wanted=wanted, outputs=outputs):
            for (name, *operands), out in zip(wanted, outputs, strict=False):
                getattr(device.xp, name)(*operands, out=out)
            device.xp.copyto(outputs[-1], -0.0)

        found, expected = both_ways(machine, write, outputs, rate=0.7)
        for (name, *_), one, other in zip([*wanted, ("copyto",)], found, expected, strict=True):
            if name in ("maximum", "minimum"):
                np.testing.assert_array_equal(one, other, err_msg=f"{name} {shape}")
            else:
                assert_bits([one], [other], f"{name} {shape}")


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES)
def test_elementary_functions_have_the_bits_of_compiled_code_on_the_cpu(machine, seed, dtype, tmp_path):
    host = Machine(tmp_path, np.dtype(dtype))
    for shape in SHAPES:
        random = np.random.default_rng([seed, *shape])
        x = on_device(machine, floats(random, shape, dtype))
        outputs = [on_device(machine, np.zeros(shape, dtype)) for _ in ELEMENTARY]

        def write(device, x=x, outputs=outputs):
            for name, out in zip(ELEMENTARY, outputs, strict=True):
                getattr(device.xp, name)(x, out=out)

        found, expected = both_ways(machine, write, outputs, plain=host.run)
        assert_bits(found, expected, shape)
    host.close()


@pytest.mark.parametrize("layout", ["C", "f gaps"])
def test_numbers_become_others_as_numpy_converts_them(machine, seed, layout):
    for shape in [(1, 1), (17, 5), (5, 40)]:
        random = np.random.default_rng([seed, *shape])
        kinds = {"uint8": (0, 256), "uint16": (0, 2**16), "int32": (-(2**31), 2**31), "int64": (-(2**62), 2**62)}
        single, double = (on_device(machine, floats(random, shape, dtype), layout) for dtype in DTYPES)
        wholes = {
            name: on_device(machine, random.integers(*ends, shape).astype(name), layout) for name, ends in kinds.items()
        }
        outputs: list[Any] = []

        def out(dtype, shape=shape, outputs=outputs):
            outputs.append(on_device(machine, np.full(shape, 9, dtype), layout))
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
                for target in DTYPES:
                    xp.multiply(values, 1 / 255, out=out(target), dtype=np.dtype(target))
                    xp.greater_equal(values, 100, out=out(target))
                    xp.subtract(values, double, out=out(target), casting="same_kind")
                xp.add(values, single, out=out("float64"))
                xp.equal(values, wholes["uint8"], out=out("int64"))
                xp.less(values, wholes["int64"], out=out(name))
                xp.maximum(values, 100, out=out(name))
                xp.add(values, values, out=out(name))
                xp.multiply(values, 3, out=out("int64"))

        found, expected = both_ways(machine, write, outputs)
        for number, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_bits([one], [other], (number, shape))


def halved(lanes):
    """Return the sum of lanes (lanes, columns), which are added in pairs, half of them apart."""
    while len(lanes) > 1:
        lanes = lanes[: len(lanes) // 2] + lanes[len(lanes) // 2 :]
    return lanes[0]


def turn_by_turn(values, count):
    """Return ``count`` lanes, of which each adds up every ``count``-th row of ``values`` (rows, columns)."""
    lanes = np.zeros((count, values.shape[1]), values.dtype)
    for start in range(0, len(values), count):
        part = values[start : start + count]
        lanes[: len(part)] += part
    return lanes


def over_rows(values):
    """Return the sums of columns: sixteen lanes in pairs, and what fills no lanes one by one."""
    end, rest = len(values) & -16, np.zeros(values.shape[1], values.dtype)
    for row in values[end:]:
        rest += row
    return halved(turn_by_turn(values[:end], 16)) + rest


def along_rows(values):
    """Return the sums of rows: one by one or, of more than sixteen columns, 32 lanes in pairs."""
    return halved(turn_by_turn(values.T, 32 if values.shape[1] > 16 else 1))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["C", "F"])
def test_sums_are_added_in_one_order_whatever_their_layout(machine, seed, dtype, layout):
    for shape in [(1, 1), (1, 40), (40, 1), (3, 15), (33, 16), (130, 17), (5, 600), (8192, 2)]:
        values = floats(np.random.default_rng([seed, *shape]), shape, dtype, special=False)
        x = on_device(machine, values, layout)
        sizes = (shape[0], 1), (1, shape[1]), shape[1:], (1, 1)
        along, across, columns, squares = (on_device(machine, np.full(own, 9, dtype)) for own in sizes)
        doubled, total = on_device(machine, np.full(shape[1], 9, dtype)), on_device(machine, np.full((), 9.0))
        flat = x.reshape(-1) if layout == "C" else x.T.reshape(-1)

        def write(device, x=x, flat=flat, outs=(along, across, columns, squares, doubled, total)):
            along, across, columns, squares, doubled, total = outs
            device.xp.sum(x, axis=1, keepdims=True, out=along)
            device.xp.sum(x, axis=0, keepdims=True, out=across)
            device.column_sums(None, x, columns)
            device.xp.multiply(columns, 2.0, out=doubled)
            if len(flat) <= 8192:
                device.square_sum(flat, squares)
                device.xp.sum(flat, dtype=np.dtype(np.float64), out=total)

        found, _ = both_ways(machine, write, [along, across, columns, doubled, squares, total], plain=lambda *_: None)
        sums = over_rows(values)
        assert_bits(found[:4], [along_rows(values)[:, None], sums[None], sums, 2 * sums], shape)
        if values.size <= 8192:
            line = values.reshape(-1, 1) if layout == "C" else values.T.reshape(-1, 1)
            assert_bits(found[4:], [over_rows(line * line)[None], over_rows(line.astype(np.float64))[0]], shape)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_largest_and_its_place_are_those_of_numpy_for_nan_and_for_equals(machine, seed, dtype):
    for shape in [(1, 1), (1, 40), (40, 1), (70, 3), (9, 16), (9, 17), (5, 600)]:
        random = np.random.default_rng([seed, *shape])
        kinds = [
            random.integers(0, 3, shape),
            np.where(random.random(shape) < 0.3, np.nan, random.integers(0, 2, shape)),
            floats(random, shape, dtype),
            np.full(shape, np.nan),
            np.full(shape, -np.inf),
        ]
        arrays = [on_device(machine, kind.astype(dtype), "f gaps") for kind in kinds]
        places = [on_device(machine, np.full(shape[0], 9)) for _ in kinds]
        largest = [on_device(machine, np.full((shape[0], 1), 9, dtype)) for _ in kinds]

        def write(device, shape=shape, lists=(arrays, places, largest)):
            for values, place, most in zip(*lists, strict=True):
                device.xp.argmax(values, axis=1, out=place)
                device.xp.max(values, axis=1, keepdims=True, out=most)

        found, expected = both_ways(machine, write, [*places, *largest])
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other, err_msg=str(shape))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int64", "float32", "float64"])
def test_rows_are_gathered_in_an_order_from_a_place_on(machine, seed, dtype):
    random = np.random.default_rng(seed)
    order = on_device(machine, random.permutation(50))
    for width, rows in [(0, 7), (0, 1), (1, 5), (3, 1), (40, 33)]:
        source = on_device(machine, random.integers(0, 200, (50, width) if width else 50).astype(dtype))
        outputs = [
            on_device(machine, np.full((rows, width) if width else rows, 9, kind)) for kind in [dtype, "float64"] * 2
        ]

        def write(device, source=source, outputs=outputs):
            for own, out, doubled in ((order, *outputs[:2]), (None, *outputs[2:])):
                device.gather(source, own, Scalar("first"), out)
                device.xp.multiply(out, 2.0, out=doubled)

        for first in (0, 50 - rows):
            found, expected = both_ways(machine, write, outputs, first=first)
            assert_bits(found, expected, (width, rows, first))


def test_random_words_are_those_of_the_device(machine, seed):
    random = np.random.default_rng(seed)
    for rows, whole in [(7, 1), (1, 37), (9, 4), (3, 300)]:
        out, layer = on_device(machine, np.full((rows, whole), 9, np.uint64)), int(random.integers(60))
        words = RowWords(int(random.integers(2**63)), layer, Purpose.DROPOUT, whole)
        numbers = {"step": int(random.integers(2**40)), "first_row": int(random.integers(2**20))}

        def write(device, words=words, out=out):
            device.draw(words, Scalar("step"), Scalar("first_row"), out)

        (found,), (expected,) = both_ways(machine, write, [out], **numbers)
        assert found.tolist() == expected.tolist()


def test_every_operation_that_can_be_recorded_is_tried_here():
    assert {*UNARY, *BINARY, *COMPARISONS, *ELEMENTARY, "copyto"} == ELEMENTWISE
    assert {"sum", "max", "argmax"} == REDUCTIONS
