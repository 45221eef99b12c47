"""What a server leaves open to others: the directory it starts in, its files, its log, its address."""

import io
import os
import pty
import select
import signal
import sqlite3
import stat
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from mlpd.client import Client, training_spec
from mlpd.client.embedded import embedded_server
from mlpd.server.daemon import is_loopback
from mlpd.v1 import dataset_service_pb2 as dataset_pb
from mlpd.v1.dataset_service_pb2_grpc import DatasetServiceStub

from ..command_line import COMMAND
from ..conftest import ENVIRONMENT

HOSTILE = """import sys
open({marker!r}, "a").write(__name__ + " in " + " ".join(sys.orig_argv) + chr(10))
"""


@pytest.fixture(scope="module")
def hostile_directory(tmp_path_factory):
    """A folder whose modules leave a word in ``marker`` when anybody imports them."""
    folder = tmp_path_factory.mktemp("hostile")
    for name in ("threadpoolctl", "json", "llvmlite", "numpy", "structlog"):
        (folder / f"{name}.py").write_text(HOSTILE.format(marker=str(folder / "marker")))
    return folder


@pytest.fixture(scope="module")
def data_directory(hostile_directory, tmp_path_factory, rings):
    """What an embedded server, started there with umask 0 on an open directory, leaves of a compiled job."""
    root = tmp_path_factory.mktemp("open") / "data"
    (root / "datasets").mkdir(parents=True)
    (root / "datasets" / "README").touch()
    for path in (root, *root.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
    modes = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(hostile_directory)
        patch.setenv("PYTHONPATH", ENVIRONMENT["PYTHONPATH"])
        umask = os.umask(0)
        try:
            with embedded_server(root) as address, Client(address) as client:
                client.upload("rings", *rings)
                spec = training_spec(
                    layer_sizes=[2, 32, 3], train_dataset="rings", batch_size=50, epoch_count=2, learning_rate=0.01,
                    runner="compiled", split="units", block_count=2,
                )  # fmt: skip
                client.wait(client.train(spec))
                modes = {path.relative_to(root): path.stat().st_mode for path in (root, *root.rglob("*"))}
        finally:
            os.umask(umask)
    return modes


def test_no_process_imports_what_lies_in_the_directory_it_is_started_in(data_directory, hostile_directory):
    assert data_directory
    command = [COMMAND[0], "-P", *COMMAND[1:], "serve", "--help"]
    done = subprocess.run(
        command, cwd=hostile_directory, env=ENVIRONMENT | {"COLUMNS": "160"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "--checkpoint-interval-seconds" in done.stdout  # the server's own help
    marker = hostile_directory / "marker"
    assert (marker.read_text() if marker.exists() else "") == ""


def test_files_are_for_their_owner_alone_whatever_the_umask(data_directory):
    names = {path.name for path in data_directory}
    assert {"mlpd.sqlite3", "mlpd.sqlite3-wal", "server.log", "README"} <= names
    open_to_others = {
        str(path): oct(mode)
        for path, mode in data_directory.items()
        if stat.S_IMODE(mode) & (stat.S_IRWXG | stat.S_IRWXO)
    }
    assert open_to_others == {}
    assert {stat.S_IMODE(mode) for mode in data_directory.values() if stat.S_ISDIR(mode)} == {0o700}
    assert {stat.S_IMODE(mode) for mode in data_directory.values() if stat.S_ISREG(mode)} == {0o600}


class Log:
    """What a server writes on stderr, there a pipe or a terminal."""

    def __init__(self, kind: str) -> None:
        self.reader, self.writer = os.pipe() if kind == "pipe" else pty.openpty()
        self._text = io.BytesIO()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        try:
            while received := os.read(self.reader, 65536):
                self._text.write(received)
        except OSError:  # how a terminal ends
            pass

    def text(self) -> str:
        """Everything, once all who write have ended."""
        self._thread.join(60)
        os.close(self.reader)
        return self._text.getvalue().decode()


@pytest.mark.parametrize("kind", ["pipe", "terminal"])
def test_the_log_warns_of_an_open_address_and_holds_no_local_variables(start_server, monkeypatch, kind):
    log = Log(kind)
    popen: Any = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **options: popen(*args, **options, stderr=log.writer))
    server = start_server("--host", "0.0.0.0")
    os.close(log.writer)
    with Client(f"127.0.0.1:{server.port}") as client:
        client.upload("secret-marker", np.ones((2, 2), np.float32), [0, 1])
    with sqlite3.connect(server.data_directory / "mlpd.sqlite3") as connection:
        connection.execute("ALTER TABLE datasets DROP COLUMN class_row_counts")
    connection.close()
    request = dataset_pb.GetDatasetRequest(name="datasets/secret-marker")
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel, pytest.raises(grpc.RpcError) as caught:
        DatasetServiceStub(channel).GetDataset(request)
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    server.drain()
    text = log.text()
    assert "Traceback" in text or '"exception"' in text
    assert "call failed" in text
    assert "secret-marker" not in text
    assert "there is no authentication" in text


@pytest.mark.parametrize(
    ("host", "is_safe"),
    [
        ("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("localhost", True),
        ("0.0.0.0", False), ("::", False), ("192.168.1.5", False), ("fe80::1", False), ("no.such.host.invalid", False),
    ],
)  # fmt: skip
def test_only_loopback_is_loopback(host, is_safe):
    assert is_loopback(host) is is_safe


def test_a_cuda_that_hangs_ends_with_its_killed_server(start_server, tmp_path, monkeypatch):
    (tmp_path / "slow" / "cupy").mkdir(parents=True)
    place = tmp_path / "probe"
    (tmp_path / "slow" / "cupy" / "__init__.py").write_text(
        f"import os, signal\nopen({str(place) + '~'!r}, 'w').write(str(os.getpid()))\n"
        f"os.rename({str(place) + '~'!r}, {str(place)!r})\nwhile True: signal.pause()\n"
    )
    monkeypatch.setitem(ENVIRONMENT, "PYTHONPATH", f"{ENVIRONMENT['PYTHONPATH']}{os.pathsep}{tmp_path / 'slow'}")
    server = start_server()
    probe = os.pidfd_open(_number_in(place))
    server.kill()
    ended, _, _ = select.select([probe], [], [], 10)
    try:
        assert ended == [probe]
    finally:
        if not ended:
            signal.pidfd_send_signal(probe, signal.SIGKILL)
        os.close(probe)


def _number_in(place: Path) -> int:
    deadline = time.monotonic() + 60
    while not place.exists():
        assert time.monotonic() < deadline, "nobody tried CUDA"
        threading.Event().wait(0.01)
    return int(place.read_text())
