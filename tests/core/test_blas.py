"""Products by the libraries that there are: any order in memory, parts of larger arrays, sums with what is there."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mlpd.core import blas
from mlpd.core.arrays import Cpu
from mlpd.core.blas import NumpyBlas

from .family import needs_mkl

LIBRARIES = ["default", pytest.param("mkl", marks=needs_mkl)]
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


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("orders", ["CCC", "FCC", "CFC", "CCF", "FFF", "ccc", "fff", "cfF", "Fcf"])
def test_matrices_may_lie_in_memory_in_any_order(library, dtype, sizes, orders):
    (rows, inner, columns), random = sizes, np.random.default_rng(7)
    shapes = ((rows, inner), (inner, columns), (rows, columns))
    a, b, out = (matrix(random, *shape, order, dtype) for shape, order in zip(shapes, orders, strict=True))
    around = out.base.copy() if out.base is not None else None
    device, before = Cpu(library), out.copy()
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
    NumpyBlas().add_product(a[2:8, 1:11], b[:10, 20:27], 2.0, out[3:9, 5:12])
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


@needs_mkl
def test_the_bits_of_a_product_do_not_depend_on_where_matrices_lie():
    random, results = np.random.default_rng(2), set()
    a, b = random.normal(size=(65, 513)).astype(np.float32), random.normal(size=(513, 65)).astype(np.float32)
    for shift in range(0, 16, 3):
        places = [np.empty(one.size + 16, np.float32)[shift:][: one.size].reshape(one.shape) for one in (a, b)]
        for place, values in zip(places, (a, b), strict=True):
            place[...] = values
        out = np.empty((65, 65), np.float32)
        Cpu("mkl").matmul(places[0], places[1], out)
        results.add(out.tobytes())
    assert len(results) == 1


@pytest.mark.parametrize("shape", [(3, 5), (1, 1), (128, 784)])
def test_an_array_begins_with_a_line_of_the_cache(shape):
    arrays = [Cpu().empty(shape, dtype) for dtype in (np.float32, np.uint8, np.float64)]
    assert [array.ctypes.data % 64 for array in arrays] == [0, 0, 0]
    assert all(array.shape == shape and array.flags.c_contiguous and array.flags.writeable for array in arrays)


def test_a_library_that_is_not_installed_is_not_found(tmp_path):
    """In an interpreter that sees every package of this one but oneMKL."""
    for folder in map(Path, filter(os.path.isdir, sys.path)):
        if not any(folder.glob("*.dist-info")):
            continue
        for entry in folder.iterdir():
            if not (entry.name.startswith("mkl-") or (tmp_path / entry.name).exists()):
                (tmp_path / entry.name).symlink_to(entry)
    core = Path(blas.__file__).parents[2]
    code = (
        "from mlpd.core.arrays import Cpu, DeviceUnavailable\n"
        "from mlpd.core.blas import mkl_path\n"
        "assert not mkl_path()\n"
        "try: Cpu('mkl')\n"
        "except DeviceUnavailable as error: print(error)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(core), str(tmp_path)))}
    run = subprocess.run(
        [sys.executable, "-S", "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert run.stdout == "oneMKL is not installed; install mlpd[mkl], or choose blas default\n"
