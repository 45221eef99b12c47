"""The device under test."""

import pytest

from ..conftest import open_cuda
from .fused import Fused


@pytest.fixture(scope="session")
def cuda():
    """CuPy, on a real device or an emulated one."""
    device = open_cuda()
    yield device
    device.free()


@pytest.fixture(scope="session")
def cuda_kernels(tmp_path_factory):
    """Where compiled code is kept while the tests run."""
    return tmp_path_factory.mktemp("cuda-kernels")


@pytest.fixture(scope="session")
def machine(cuda, cuda_kernels):
    """What runs recorded calls fused."""
    fused = Fused(cuda.for_compiled_code(), cuda_kernels)
    yield fused
    fused.runner.close()


@pytest.fixture(scope="session")
def seed():
    """The seed of random numbers."""
    drawn = 20261127
    print("seed", drawn)
    return drawn
