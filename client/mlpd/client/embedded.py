"""A server of one's own, for as long as a block lasts."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

from mlpd.client.errors import PreconditionFailed, Unavailable

_STOP_SECONDS = 60


def require_server() -> None:
    """Raise `PreconditionFailed` unless the server is installed beside this client."""
    missing = [name for name in ("sqlalchemy", "structlog", "threadpoolctl", "grpc_health") if find_spec(name) is None]
    if missing:
        raise PreconditionFailed(
            "the server is not installed here; install it from a clone with: pip install '.[server]'"
        )


@contextmanager
def embedded_server(data_directory: Path | None = None) -> Iterator[str]:
    """Run a server on a free port and give its address; without a directory its data go with the block.

    The server ends when this process does, however that ends. Its log goes to ``server.log`` beside its data.
    """
    require_server()
    with tempfile.TemporaryDirectory(prefix="mlpd-") as scratch:
        directory = data_directory or Path(scratch) / "data"
        log_path = directory / "server.log"
        with _opened_log(log_path) as log:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-m", "mlpd.server", "--data-dir", str(directory), "--port", "0"),
                    *("--announce", "--until-stdin-closes"),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for this process; the server ends by its stdin
            )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line:
                reason = log_path.read_text(errors="replace").strip().rpartition("\n")[2]
                raise Unavailable(f"the embedded server did not start: {reason.removeprefix('mlpd: ')}")
            yield json.loads(line)["address"]
        finally:
            process.stdin.close()
            process.stdout.close()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _opened_log(path: Path) -> BinaryIO:
    try:
        path.parent.mkdir(0o700, parents=True, exist_ok=True)
        return open(path, "ab", opener=_open_private)
    except OSError as error:
        raise PreconditionFailed(f"the data directory {path.parent} can't be used: {error.strerror}") from error
