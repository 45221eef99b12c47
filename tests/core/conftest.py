"""The devices that a formula must work on."""

import pytest
from mlpd.core.arrays import Cpu

from ..conftest import open_cuda
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
