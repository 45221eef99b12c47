"""Compiled code is kept where the user keeps what can be made again, or else beside the server's data."""

import asyncio
import pwd
import stat

from mlpd.server.executors.kernels import kernels_directory, warm
from structlog.testing import capture_logs

from ..conftest import needs_compiler


def test_the_users_cache_is_made_for_its_owner_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = kernels_directory(tmp_path / "data")
    assert found == tmp_path / "cache" / "mlpd" / "kernels"
    assert stat.S_IMODE(found.stat().st_mode) == 0o700
    assert kernels_directory(tmp_path / "data") == found


def test_without_a_cache_it_is_beside_the_data(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert kernels_directory(tmp_path / "data") == tmp_path / "data" / "kernels"


def test_a_user_without_a_home_has_it_beside_the_data(tmp_path, monkeypatch):
    """As in a container that runs under a number of nobody's."""

    def unknown(uid):
        raise KeyError(uid)

    for name in ("XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert kernels_directory(tmp_path / "data") == tmp_path / "data" / "kernels"


@needs_compiler
def test_a_directory_that_can_not_be_written_is_told_once_and_stops_nothing(tmp_path):
    (tmp_path / "file").touch()
    with capture_logs() as logs:
        asyncio.run(warm(tmp_path / "file"))
    (told,) = logs
    assert told["event"] == "usual kernels could not be compiled"
    assert told["reason"].startswith("mlpd: ")
