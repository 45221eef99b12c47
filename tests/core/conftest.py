"""The devices that a formula must work on."""

import pytest
from mlpd.core.arrays import Cpu, DeviceUnavailable, open_device

from .strict_namespace import StrictCpu


@pytest.fixture(params=["cpu", "strict", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request):
    """NumPy, NumPy cut down to the portable subset, and CuPy where it finds a device."""
    if request.param != "cuda":
        yield Cpu() if request.param == "cpu" else StrictCpu()
        return
    try:
        cuda = open_device("cuda")
    except DeviceUnavailable as error:
        pytest.skip(str(error))
    yield cuda
    cuda.free()
