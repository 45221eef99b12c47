"""The device under test."""

import pytest

from ..conftest import open_cuda


@pytest.fixture(scope="session")
def cuda():
    """CuPy, on a real device or an emulated one."""
    device = open_cuda()
    yield device
    device.free()
