"""Products of compiled code: any order in memory, any size, and one order of additions."""

import ctypes
from functools import partial

import numpy as np
import pytest

pytest.importorskip("llvmlite", reason="llvmlite is not installed")

from mlpd.core.codegen.compiler import Compiler
from mlpd.core.codegen.emitter import write_kernel
from mlpd.core.execution.fusion import fuse
from mlpd.core.plans.recording import NotRecordable, Op

SIZES = [
    *((1, 1, 1), (1, 7, 5), (7, 1, 5), (7, 5, 1), (6, 64, 64), (13, 400, 17), (66, 193, 131), (12, 384, 80)),
    *((1, 400, 330), (1, 1, 140_000), (8, 200, 700)),  # large second factors, of which nothing is copied for few rows
]
ORDERS = [a + b + out for a in "CF" for b in "CF" for out in "CF"]


@pytest.fixture(scope="module")
def compiler():
    return Compiler()


def multiply(compiler, a, b, out, scale=None):
    op = Op("matmul", (a, b), out) if scale is None else Op("add_product", (a, b, scale), out)
    ((call,),) = fuse([[op]], [out])
    numbers = [np.float64(n).view(np.int64) if isinstance(n, float) else n for n in call.arguments]
    table = np.array(numbers, np.int64)
    address = compiler.function(call.kernel, partial(write_kernel, kernel=call.kernel))
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(address)(table.ctypes.data, None)
    return out


def by_the_rule(a, b, out, scale):
    """Return what products must be to the last bit; float64 adds up products of such numbers without an error."""
    first = scale is None
    for start in range(0, a.shape[1], 192):
        total = np.zeros(out.shape, np.float64)
        for k in range(start, min(start + 192, a.shape[1])):
            total = (total + np.outer(a[:, k].astype(np.float64), b[k].astype(np.float64))).astype(np.float32)
            total = total.astype(np.float64)
        chunk = (total * (1.0 if scale is None else scale)).astype(np.float32)
        out = chunk if first else (out + chunk).astype(np.float32)
        first = False
    return out


def numbers(random, shape, dtype, order):
    """Return numbers of twelve bits."""
    return np.asarray(random.integers(-2048, 2048, shape) / 1024, dtype, order=order)


@pytest.mark.parametrize("orders", ORDERS)
@pytest.mark.parametrize("scale", [None, -1.0, 0.25])
def test_products_are_added_in_one_order_whatever_lies_how_and_whatever_the_size(compiler, orders, scale):
    random = np.random.default_rng(3)
    for rows, inner, columns in SIZES:
        a, b, out = (
            numbers(random, shape, np.float32, order)
            for shape, order in zip(((rows, inner), (inner, columns), (rows, columns)), orders, strict=True)
        )
        expected = by_the_rule(a, b, out.copy(), scale)
        assert np.array_equal(multiply(compiler, a, b, out, scale), expected), (rows, inner, columns)


@pytest.mark.parametrize("orders", ORDERS)
def test_products_in_double_precision_agree_with_numpys(compiler, orders):
    random = np.random.default_rng(4)
    for rows, inner, columns in SIZES:
        a = numbers(random, (rows, inner), np.float64, orders[0])
        b = np.asarray(random.normal(size=(inner, columns)), order=orders[1])
        for scale in (None, -2.0):
            out = np.asarray(random.normal(size=(rows, columns)), order=orders[2])
            expected = a @ b if scale is None else out + scale * (a @ b)
            assert np.allclose(multiply(compiler, a, b, out, scale), expected, rtol=0, atol=1e-12)


def test_a_part_of_a_matrix_is_written_and_nothing_beside_it(compiler):
    """Sizes that fill neither a tile nor a register."""
    random = np.random.default_rng(5)
    a, b = (random.normal(size=(40, 40)).astype(np.float32) for _ in range(2))
    for turns in (False, True):
        around = np.full((40, 40), 7, np.float32)
        around = around.T if turns else around
        multiply(compiler, a[3:10, 5:28], b[1:24, 2:21], around[4:11, 6:25])
        assert np.allclose(around[4:11, 6:25], a[3:10, 5:28] @ b[1:24, 2:21], atol=1e-4)
        around[4:11, 6:25] = 7
        assert (around == 7).all()


def test_what_is_not_finite_stays_in_its_row_and_its_column(compiler):
    """Also where registers are filled up with what is not there."""
    a, b = np.ones((7, 20), np.float32), np.ones((20, 5), np.float32)
    a[6, 19], b[0, 4] = np.inf, np.nan
    for turns in (False, True):
        out = np.empty((5, 7), np.float32).T if turns else np.empty((7, 5), np.float32)
        found = multiply(compiler, a, b, out)
        assert np.isfinite(found[:6, :4]).all()
        assert np.isinf(found[6, :4]).all()
        assert np.isnan(found[:, 4]).all()


def test_matrices_that_lie_in_no_order_are_refused_by_how_they_lie():
    every_second = np.ones((8, 8), np.float32)[::2, ::2]
    with pytest.raises(NotRecordable, match=r"a product of matrices with strides \(64, 8\) and"):
        fuse([[Op("matmul", (every_second, every_second), np.empty((4, 4), np.float32))]], [])


def test_a_product_of_nothing_is_refused():
    nothing = np.empty((3, 0), np.float32)
    with pytest.raises(NotRecordable, match="a product of nothing can't be compiled"):
        fuse([[Op("matmul", (nothing, nothing.T), np.empty((3, 3), np.float32))]], [])
