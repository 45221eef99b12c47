"""Real servers for tests: own process, own data directory, port chosen by the kernel."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from hypothesis import settings
from mlpd.core.devices.arrays import Device, DeviceUnavailable, open_device
from mlpd.core.execution.opening import missing_for
from numpy.typing import NDArray

# Side by side, a process a core, tests whose products had a thread for every core would take twice as long.
if "PYTEST_XDIST_WORKER" in os.environ:
    import threadpoolctl  # which a machine with a GPU may lack

    threadpoolctl.threadpool_limits(1, "blas")
    os.environ["OPENBLAS_NUM_THREADS"] = "1"

# Bytecode is kept, whatever the environment says: a process that compiles what it imports takes longer to start.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A shell that runs the tests in its background lets them ignore Ctrl-C, and so would all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# `make soak` sets how many times as many examples are drawn by tests that draw them at random.
SOAK = int(os.environ.get("SOAK", "1"))

# A busy machine must not fail a test; what fails can be tried again as it was.
settings.register_profile("mlpd", max_examples=50 * SOAK, deadline=None, print_blob=True)
settings.load_profile("mlpd")

ROOT = Path(__file__).resolve().parent.parent
SOURCE_ROOTS = [str(ROOT / name) for name in ("core", "server", "client", "proto")]
os.environ["XDG_CACHE_HOME"] = str(ROOT / "build" / "cache")  # compiled code is kept from one run to the next
WITH_ANY_DEVICE = os.environ | {"PYTHONPATH": os.pathsep.join(SOURCE_ROOTS)}
ENVIRONMENT = WITH_ANY_DEVICE | {"CUDA_VISIBLE_DEVICES": ""}  # one result on a machine with a GPU and without


needs_compiler = pytest.mark.skipif(bool(missing_for("compiled")), reason=missing_for("compiled"))


class Server:
    """A server process; it ends with the block."""

    def __init__(
        self, data_directory: Path, *options: str, port: int = 0, environment: Mapping[str, str] = ENVIRONMENT
    ) -> None:
        self.data_directory = data_directory
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "mlpd.server", "--data-dir", str(data_directory), "--port", str(port)),
                *("--announce", "--until-stdin-closes", *options),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"the server ended with status {self._reap()}; its log is on stderr")
        self.address: str = json.loads(line)["address"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def drain(self) -> int:
        """Ask the server to stop, as an operator would, and return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self._reap()

    def kill(self) -> None:
        """End the server as a power cut would."""
        self.process.kill()
        self._reap()

    def _reap(self) -> int:
        status = self.process.wait(timeout=60)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                pipe.close()
        return status


def open_cuda() -> Device:
    """Return CuPy on a device, real or emulated; skip the test where there is none, and say why."""
    try:
        return open_device("cuda")
    except DeviceUnavailable as error:
        pytest.skip(str(error))


StartServer = Callable[..., Server]


@pytest.fixture(scope="session")
def first_start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a server leaves of its first start, at which it unpacks MNIST, checks it and syncs it to the disk."""
    data_directory = tmp_path_factory.mktemp("first") / "data"
    with Server(data_directory) as server:
        assert server.drain() == 0
    return data_directory


@pytest.fixture
def start_server(tmp_path: Path, first_start: Path) -> Iterator[StartServer]:
    """Start servers on one data directory, which outlives each of them; their first start has been before."""
    with ExitStack() as stack:

        def start(*options: str, data_directory: Path = tmp_path / "data", **choices: Any) -> Server:
            if not data_directory.exists():
                shutil.copytree(first_start, data_directory)
            return stack.enter_context(Server(data_directory, *options, **choices))

        yield start


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server that tests share; they leave it as they found it, but for finished jobs."""
    with Server(tmp_path_factory.mktemp("shared") / "data") as running:
        yield running


@pytest.fixture
def nobody() -> str:
    """An address that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address: str = f"127.0.0.1:{listener.getsockname()[1]}"
    return address


@pytest.fixture(scope="session")
def rings() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """600 points of three classes that no straight line separates: a task that a small network learns at once."""
    seed = 7
    print(f"seed {seed}")
    random = np.random.default_rng(seed)
    labels = np.arange(600) % 3
    angles = random.uniform(0, 2 * np.pi, 600)
    radii = 1 + labels + random.normal(0, 0.1, 600)
    points = np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)
    return points.astype(np.float32), labels.astype(np.int64)
