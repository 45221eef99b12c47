"""Products by the library that NumPy calls: any order in memory, parts of larger arrays, sums with what is there."""

import numpy as np
import pytest
from mlpd.core.devices.arrays import ByColumns, Cpu
from mlpd.core.devices.arrays import matrix as matrix_of
from mlpd.core.devices.blas import AS_IS, TRANSPOSED, add_product, one_product_thread, order_of, product_threads
from threadpoolctl import threadpool_limits

SIZES = [(1, 1, 1), (1, 7, 5), (7, 1, 5), (7, 5, 1), (33, 17, 65), (130, 129, 67)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("rows", "inner", "columns"), SIZES)
@pytest.mark.parametrize("transposed", [False, True])
def test_a_product_is_added(device, dtype, rows, inner, columns, transposed):
    random = np.random.default_rng(rows)
    a = random.normal(size=(inner, rows) if transposed else (rows, inner)).astype(dtype)
    b, out = random.normal(size=(inner, columns)).astype(dtype), random.normal(size=(rows, columns)).astype(dtype)
    expected = out - 0.5 * ((a.T if transposed else a) @ b)
    on_device, left = device.from_host(out), device.from_host(a)
    device.add_product(left.T if transposed else left, device.from_host(b), -0.5, on_device)
    np.testing.assert_allclose(device.to_host(on_device), expected, rtol=1e-4, atol=1e-4)


def matrix(random, rows, columns, order, dtype):
    """Return random numbers that lie in memory as ``order`` says, a part of something larger for a small letter."""
    whole = np.asarray(random.normal(size=(rows + 3, columns + 2)), dtype, order=order.upper())
    return whole[2 : 2 + rows, 1 : 1 + columns] if order.islower() else np.array(whole[:rows, :columns], order=order)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("orders", ["CCC", "FCC", "CFC", "CCF", "FFF", "ccc", "fff", "cfF", "Fcf"])
def test_matrices_may_lie_in_memory_in_any_order(dtype, sizes, orders):
    (rows, inner, columns), random = sizes, np.random.default_rng(7)
    shapes = ((rows, inner), (inner, columns), (rows, columns))
    a, b, out = (matrix(random, *shape, order, dtype) for shape, order in zip(shapes, orders, strict=True))
    around = out.base.copy() if out.base is not None else None
    device, before = Cpu(), out.copy()
    device.add_product(a, b, 2.0, out)
    tolerance = 1e-4 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(out, before + 2 * (a @ b), rtol=tolerance, atol=tolerance)
    out.fill(np.nan)  # nothing of it may come through
    device.matmul(a, b, out)
    np.testing.assert_allclose(out, a @ b, rtol=tolerance, atol=tolerance)
    out[...] = before
    assert around is None or np.array_equal(out.base, around)


@pytest.mark.parametrize("dtype", ["float32", "float64", np.longdouble])
def test_operands_may_be_parts_of_larger_arrays(dtype):
    """Extended precision is what no BLAS library has."""
    random = np.random.default_rng(1)
    a, b, out = (random.normal(size=(20, 30)).astype(dtype) for _ in range(3))
    expected = out.copy()
    expected[3:9, 5:12] += 2 * (a[2:8, 1:11] @ b[:10, 20:27])
    add_product(a[2:8, 1:11], b[:10, 20:27], 2.0, out[3:9, 5:12])
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


def test_blas_is_told_how_a_matrix_lies_and_how_far_its_lines_are_apart():
    whole = np.zeros((6, 10), np.float32)
    assert order_of(whole) == (AS_IS, 10)
    assert order_of(whole.T) == (TRANSPOSED, 10)
    assert order_of(whole[1:4, 2:5]) == (AS_IS, 10)
    assert order_of(whole[1:4, 2:5].T) == (TRANSPOSED, 10)
    assert order_of(np.zeros((6, 10), order="F")) == (TRANSPOSED, 6)
    # Of one row or one column no distance may be smaller than what BLAS thinks is in between.
    for shape in ((1, 10), (6, 1), (1, 1)):
        for matrix in (np.zeros(shape), np.zeros(shape[::-1]).T):
            flag, distance = order_of(matrix)
            assert distance >= (shape[1] if flag == AS_IS else shape[0])


def test_products_take_one_thread_each_for_as_long_as_is_asked():
    with threadpool_limits(2, "blas"):
        assert product_threads() == 2
        with one_product_thread():
            assert product_threads() == 1
        assert product_threads() == 2


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (33, 17)])
def test_columns_and_squares_are_summed(device, dtype, order, shape):
    values = np.asarray(np.random.default_rng(4).normal(size=shape), dtype, order=order)
    sums, squares = device.zeros(shape[1], dtype), device.zeros((1, 1), dtype)
    ones, on_device = device.from_host(np.ones((1, shape[0]), dtype)), device.from_host(values)
    device.column_sums(ones, on_device, sums)
    device.square_sum(device.from_host(values.ravel()), squares)
    tolerance = 1e-5 if dtype == "float32" else 1e-13
    np.testing.assert_allclose(device.to_host(sums), values.sum(axis=0), rtol=tolerance, atol=tolerance)
    assert float(squares[0, 0]) == pytest.approx(float((values.astype(float) ** 2).sum()), rel=tolerance)


@pytest.mark.parametrize("shape", [(3, 5), (1, 1), (128, 784)])
def test_an_array_begins_with_a_line_of_the_cache(shape):
    arrays = [Cpu().empty(shape, dtype) for dtype in (np.float32, np.uint8, np.float64)]
    assert [array.ctypes.data % 64 for array in arrays] == [0, 0, 0]
    assert all(array.shape == shape and array.flags.c_contiguous and array.flags.writeable for array in arrays)


@pytest.mark.parametrize("device", [Cpu(), ByColumns()], ids=["rows", "columns"])
def test_a_matrix_lies_as_its_device_has_it(device):
    made = matrix_of(device, (5, 3), np.float32)
    assert made.shape == (5, 3)
    assert made.flags.c_contiguous if device.memory_order == "C" else made.flags.f_contiguous
    assert made.ctypes.data % 64 == 0
