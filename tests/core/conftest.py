"""The devices that a formula must work on, and where compiled code is kept."""

import os

import numpy as np
import pytest
from mlpd.core.devices.arrays import Cpu

from ..conftest import open_cuda
from .kernel_machine import DTYPES, Machine
from .strict_namespace import StrictCpu


@pytest.fixture(params=["cpu", "strict", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request):
    """NumPy, NumPy cut down to the portable subset, and CuPy where it finds a device."""
    if request.param != "cuda":
        yield Cpu() if request.param == "cpu" else StrictCpu()
        return
    cuda = open_cuda()
    yield cuda
    cuda.free()


@pytest.fixture(scope="session")
def kernels(tmp_path_factory):
    """A directory in which all tests of a session, in whichever process, find what one of them has compiled."""
    own = tmp_path_factory.getbasetemp()
    return (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "kernels"


@pytest.fixture(scope="module")
def machines(kernels):
    both = {dtype: Machine(kernels, np.dtype(dtype)) for dtype in DTYPES}
    yield both
    for machine in both.values():
        machine.close()


@pytest.fixture(scope="module")
def machine(machines):
    return machines["float64"]


@pytest.fixture(scope="module")
def seed():
    drawn = 20261127
    print("seed", drawn)
    return drawn
