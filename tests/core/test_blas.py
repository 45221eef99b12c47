"""Products that add to what is there."""

import numpy as np
import pytest
from mlpd.core.blas import add_product


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("rows", "inner", "columns"), [(1, 1, 1), (1, 7, 5), (7, 1, 5), (7, 5, 1), (33, 17, 65)])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_product_is_added(device, dtype, rows, inner, columns, transposed):
    random = np.random.default_rng(rows)
    a = random.normal(size=(inner, rows) if transposed else (rows, inner)).astype(dtype)
    b, out = random.normal(size=(inner, columns)).astype(dtype), random.normal(size=(rows, columns)).astype(dtype)
    expected = out - 0.5 * ((a.T if transposed else a) @ b)
    on_device, left = device.from_host(out), device.from_host(a)
    device.add_product(left.T if transposed else left, device.from_host(b), -0.5, on_device)
    np.testing.assert_allclose(device.to_host(on_device), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64", np.longdouble])
def test_operands_may_be_parts_of_larger_arrays(dtype):
    """Extended precision is what no BLAS library has."""
    random = np.random.default_rng(1)
    a, b, out = (random.normal(size=(20, 30)).astype(dtype) for _ in range(3))
    expected = out.copy()
    expected[3:9, 5:12] += 2 * (a[2:8, 1:11] @ b[:10, 20:27])
    add_product(a[2:8, 1:11], b[:10, 20:27], 2.0, out[3:9, 5:12])
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)
