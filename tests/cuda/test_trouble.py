"""What goes wrong on a device or around it: a run goes on with the same bits, or ends with one sentence."""

import gc
import logging
import os
import subprocess
import sys
from contextlib import closing, suppress
from importlib.util import find_spec

import numpy as np
import pytest
from mlpd.core.cuda.compiler import CudaCompiler
from mlpd.core.cuda.runner import CudaRunner
from mlpd.core.files import CodeFiles
from mlpd.core.plans.recording import Scalar
from mlpd.core.plans.runner import RunnerUnavailable

from ..conftest import ROOT, WITH_ANY_DEVICE
from ..core.family import FAMILY, vectors
from ..core.recorded_runs import recorded
from ..installation import link_packages
from .fused import Fused, on_device
from .fused import recorded as calls_of

pytestmark = pytest.mark.cuda

EPOCHS = 4  # from the second on, a graph
SOURCE = 'extern "C" __global__ void one(int* out) { out[threadIdx.x] = 1; }'


def train(cuda, kernels, launching="graph", before_second=lambda runner: None):
    """Make the epochs of a run, one chunk each; return what it has learnt."""
    case = FAMILY["sgd"].compiled("units", 1).but(device="cuda", epoch_count=EPOCHS).unvalidated()
    state = case.start(cuda)
    steps = case.spec.steps_per_epoch(len(case.data.inputs))
    with closing(CudaRunner(state.blocks, cuda, CudaCompiler(kernels), launching)) as runner, state.blocks.feed.open(0):
        for epoch in range(EPOCHS):
            if epoch == 1:
                before_second(runner)
            state.make_steps(runner, steps)
    return vectors(state)


@pytest.fixture(scope="module")
def learnt(cuda, cuda_kernels):
    """What the run has learnt in the end when nothing goes wrong."""
    return train(cuda, cuda_kernels, "eager")


@pytest.mark.parametrize("what", ["begin_capture", "end_capture"])
def test_a_run_goes_on_with_single_launches_where_none_can_be_captured(
    cuda, cuda_kernels, learnt, monkeypatch, caplog, what
):
    def fail(*_):
        raise RuntimeError("the driver is too old")

    monkeypatch.setattr(cuda.xp.cuda, "Stream", type("Stream", (cuda.xp.cuda.Stream,), {what: fail}))
    with caplog.at_level(logging.WARNING):
        assert train(cuda, cuda_kernels) == learnt
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == "steps are launched one by one, because no graph can be made of them: the driver is too old"


def test_a_run_goes_on_with_single_launches_where_a_graph_can_not_be_made(cuda, cuda_kernels, learnt, caplog):
    cuda_on_cpu = pytest.importorskip("cuda_on_cpu", reason="only the emulator fails on purpose")
    with caplog.at_level(logging.WARNING):
        assert train(cuda, cuda_kernels, before_second=lambda _: cuda_on_cpu.fail("graph", 2)) == learnt
    cuda_on_cpu.fail("any", 0)
    assert len(caplog.records) == 1


AGAIN = "install mlpd[cuda12] or mlpd[cuda13] again, which bring a compiler and its headers"


def test_code_that_does_not_compile_is_told_of_in_one_sentence(cuda):
    with pytest.raises(RunnerUnavailable) as caught:
        CudaCompiler().function(SOURCE.replace("int*", "number*"), "one")
    message = str(caught.value)
    assert message.startswith("CUDA code can't be compiled here, NVRTC says ")
    assert message.endswith(f"; {AGAIN}, or use runner plain")
    assert "\n" not in message


def test_an_option_that_nvrtc_does_not_know_is_told_of_in_one_sentence(cuda, monkeypatch):
    """As the name of a processor is that is newer than NVRTC."""
    if find_spec("cuda_on_cpu"):
        pytest.skip("the emulator takes any option")
    monkeypatch.setattr("mlpd.core.cuda.compiler.OPTIONS", ("-arch=sm_999",))
    with pytest.raises(
        RunnerUnavailable, match=r"^CUDA code can't be compiled here, NVRTC says .*, or use runner plain$"
    ):
        CudaCompiler().function(SOURCE, "one")


WITHOUT_NVRTC = """
import cuda_on_cpu
cuda_on_cpu._LIBRARIES = [name for name in cuda_on_cpu._LIBRARIES if "nvrtc" not in name]
from mlpd.core.cuda.compiler import CudaCompiler
from mlpd.core.devices.arrays import open_device
for attempt in (lambda: open_device("cuda"), CudaCompiler):
    try:
        attempt()
    except Exception as error:
        print(type(error).__name__, error)
"""


@pytest.mark.parametrize("library", ["is missing", "is damaged"])
def test_where_nvrtc_can_not_be_loaded_one_sentence_says_what_to_install(cuda, tmp_path, library):
    pytest.importorskip("cuda_on_cpu", reason="on the emulator alone it is known where NVRTC is")
    if library == "is damaged":
        (tmp_path / "libnvrtc.so.13").write_bytes(b"no library")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_NVRTC],
        env=WITH_ANY_DEVICE | {"LD_LIBRARY_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    device, runner = done.stdout.splitlines()
    assert device.startswith("DeviceUnavailable the CUDA toolkit is broken, an addition failed with ")
    assert runner.startswith("RunnerUnavailable NVRTC, CUDA's compiler, can't be loaded, it says ")
    assert all(message.endswith(f"; {AGAIN}") for message in (device, runner))


WITHOUT_HEADERS = """
import cuda_on_cpu
cuda_on_cpu._install()
from mlpd.core.devices.arrays import DeviceUnavailable, open_device
try:
    open_device("cuda")
except DeviceUnavailable as error:
    print(error)
"""


def test_where_cudas_headers_are_missing_one_sentence_says_what_to_install(cuda, tmp_path):
    pytest.importorskip("cuda_on_cpu", reason="on the emulator alone it is known where the headers are")
    link_packages(tmp_path, "nvidia")
    done = subprocess.run(
        [sys.executable, "-S", "-c", WITHOUT_HEADERS],
        env=WITH_ANY_DEVICE | {"PYTHONPATH": os.pathsep.join([WITH_ANY_DEVICE["PYTHONPATH"], str(tmp_path)])},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout == f"the CUDA toolkit is broken, an addition failed with RuntimeError; {AGAIN}\n"


class Garbled(CudaCompiler):
    """Makes what no driver can load."""

    def _compile(self, source):
        return b"no machine code"


def test_a_device_with_too_little_shared_memory_is_told_of_in_one_sentence(cuda, monkeypatch):
    most = cuda.xp.cuda.Device().attributes["MaxSharedMemoryPerBlockOptin"]
    monkeypatch.setattr("mlpd.core.cuda.compiler.MOST_SHARED", most + 1)
    with pytest.raises(RunnerUnavailable) as raised:
        CudaCompiler(None)
    assert str(raised.value) == (
        f"compiled code takes {most + 1} bytes of shared memory, this GPU gives {most}; use runner plain"
    )


def test_code_that_the_driver_refuses_is_told_of_in_one_sentence_and_not_kept(cuda, tmp_path):
    with pytest.raises(RunnerUnavailable) as caught:
        Garbled(tmp_path).function(SOURCE, "one")
    message = str(caught.value)
    assert message.startswith("the NVIDIA driver can't load compiled code, it says CUDA_ERROR_")
    assert message.endswith("; update the driver, or use runner plain")
    assert "\n" not in message
    assert list(tmp_path.iterdir()) == []


def test_kept_code_that_the_driver_refuses_is_compiled_anew(cuda, tmp_path):
    assert function_of(tmp_path) == 1
    (path,) = tmp_path.iterdir()
    CodeFiles(tmp_path).keep(path.name, b"no machine code")
    assert [function_of(tmp_path) for _ in range(2)] == [1, 0]


def test_code_that_finds_no_room_on_the_device_is_no_matter_of_the_compiler(cuda):
    cuda_on_cpu = pytest.importorskip("cuda_on_cpu", reason="only the emulator fails on purpose")
    cuda_on_cpu.fail("module", 2)
    with pytest.raises(MemoryError, match="compiled code finds no room on the device, CUDA_ERROR_OUT_OF_MEMORY"):
        CudaCompiler().function(SOURCE, "one")
    cuda_on_cpu.fail("any", 0)
    CudaCompiler().function(SOURCE, "one")


def test_what_can_not_be_compiled_is_called_as_it_is_among_calls_that_are(machine, caplog):
    values = on_device(machine, np.linspace(-1, 1, 24).reshape(2, 3, 4))
    flat = values.reshape(-1)

    def formula(device):
        device.xp.multiply(flat, Scalar("scale"), out=flat)
        device.xp.exp(values, out=values)
        device.xp.add(flat, 1.0, out=flat)

    with caplog.at_level(logging.WARNING):
        machine.run([calls_of(machine.device, formula)], [values], scale=3.0)
    found = machine.device.to_host(values)
    np.testing.assert_allclose(found, np.exp(3 * np.linspace(-1, 1, 24).reshape(2, 3, 4)) + 1, rtol=1e-14)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == "exp is called as it is, because arrays of 3 dimensions can't be compiled"


def function_of(directory):
    compiler = CudaCompiler(directory)
    compiler.function(SOURCE, "one")
    return compiler.compiled_count


def damaged_in_the_middle(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def test_code_is_compiled_once_and_again_where_its_file_is_damaged(cuda, tmp_path):
    assert [function_of(tmp_path) for _ in range(2)] == [1, 0]
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    for broken in (b"", content[:31], content[:-1], content + b"\0", damaged_in_the_middle(content)):
        path.write_bytes(broken)
        assert [function_of(tmp_path) for _ in range(2)] == [1, 0]
        assert path.read_bytes() == content or len(path.read_bytes()) > 32
    path.unlink()
    path.mkdir()
    assert function_of(tmp_path) == 1


def test_a_directory_that_can_not_be_written_to_is_done_without(cuda, tmp_path):
    (tmp_path / "file").write_text("no directory")
    assert function_of(tmp_path / "file") == function_of(tmp_path / "file" / "below") == 1
    assert (tmp_path / "file").read_text() == "no directory"


def test_a_run_out_of_memory_ends_with_the_devices_error_and_the_next_goes_on(cuda, cuda_kernels, learnt):
    pool, out_of_memory = cuda.xp.get_default_memory_pool(), cuda.xp.cuda.memory.OutOfMemoryError
    gc.collect()  # what earlier tests have left would make room
    pool.free_all_blocks()
    pool.set_limit(size=max(pool.total_bytes(), 1))
    filling = []
    try:
        for size in (2**20, 2**16, 2**12, 2**9):
            with suppress(out_of_memory):
                while True:
                    filling.append(cuda.xp.empty(size, "uint8"))
        with pytest.raises(out_of_memory):
            train(cuda, cuda_kernels)
    finally:
        filling.clear()
        pool.set_limit(size=0)
    assert train(cuda, cuda_kernels) == learnt


LATE = """
import hashlib, sys
from pathlib import Path
from mlpd.core.devices.arrays import open_device
from mlpd.core.training.loop import train
from tests.core.family import vectors
from tests.core.recorded_runs import ONE_BLOCK
for name in sys.argv[2:]:
    state = ONE_BLOCK[name].but(device="cuda").start(open_device("cuda"))
    list(train(state, kernels=Path(sys.argv[1]), chunk_seconds=100.0))
    print(hashlib.sha256(b"".join(vectors(state).values())).hexdigest())
"""


def test_work_that_runs_as_late_as_may_be_has_the_same_bits(cuda, cuda_kernels):
    """A missing wait, or memory that is given back too early, would show."""
    pytest.importorskip("cuda_on_cpu", reason="only the emulator puts work off")
    names = ["sgd", "accumulated"]
    path = os.pathsep.join([WITH_ANY_DEVICE["PYTHONPATH"], str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", LATE, str(cuda_kernels), *names],
        env=WITH_ANY_DEVICE | {"EMU_ASYNC": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.split() == [recorded()["one block"][name] for name in names]


def test_a_scalar_that_the_work_lacks_is_named(machine):
    values = on_device(machine, np.ones(3))
    calls = calls_of(machine.device, lambda device: device.xp.multiply(values, Scalar("rate"), out=values))
    with pytest.raises(KeyError, match="numbers must have rate, which the plan wants"):
        machine.run([calls], [values])


def test_a_runner_that_is_closed_has_waited_for_the_device(machine):
    cuda_on_cpu = pytest.importorskip("cuda_on_cpu", reason="only the emulator counts device work")
    values = on_device(machine, np.ones(3))
    own = Fused(machine.device, machine.kernels)
    own.run([calls_of(machine.device, lambda device: device.xp.negative(values, out=values))], [values])
    with cuda_on_cpu.measure() as work:
        own.runner.close()
    assert work.syncs == 1, work
