"""The device under test."""

import pytest
from mlpd.core.arrays import DeviceUnavailable, open_device


@pytest.fixture(scope="session")
def cuda():
    """CuPy, on a real device or an emulated one."""
    try:
        device = open_device("cuda")
    except DeviceUnavailable as error:
        pytest.skip(str(error))
    yield device
    device.free()
