"""The lock of a data directory: one holder, who is told, and none once its process is gone, however that ended."""

import os
import subprocess
from pathlib import Path

import pytest
from mlpd.server.storage.locking import DataDirectoryInUse, DirectoryLock, file_system_of


def test_a_second_holder_is_told_of_the_first(tmp_path):
    first = DirectoryLock(tmp_path)
    with pytest.raises(DataDirectoryInUse, match=f"uses the data directory {tmp_path}: process {os.getpid()} of "):
        DirectoryLock(tmp_path)
    first.release()
    DirectoryLock(tmp_path).release()


def test_a_lock_holds_without_its_file(tmp_path):
    first = DirectoryLock(tmp_path)
    (tmp_path / "lock").unlink()
    with pytest.raises(DataDirectoryInUse):
        DirectoryLock(tmp_path)
    first.release()


def test_a_server_whose_lock_file_is_removed_keeps_another_off_until_it_is_killed(start_server, capfd):
    server = start_server()
    (server.data_directory / "lock").unlink()
    with pytest.raises(AssertionError, match="status 1"):
        start_server()
    assert f"another server uses the data directory {server.data_directory}" in capfd.readouterr().err
    server.kill()
    again = start_server()
    with pytest.raises(AssertionError, match="status 1"):
        start_server()
    assert f"{server.data_directory}: process {again.process.pid} of " in capfd.readouterr().err


def test_the_file_system_is_the_one_that_the_kernel_names(tmp_path):
    with_a_space = tmp_path / "a b"
    with_a_space.mkdir()
    for path in (tmp_path, with_a_space):
        told = subprocess.run(["findmnt", "-no", "FSTYPE", "-T", path], capture_output=True, text=True, check=False)
        if told.returncode:
            pytest.skip("there is no findmnt")
        assert file_system_of(path.resolve()) == told.stdout.strip()


def test_mount_points_of_any_name_are_read(tmp_path, monkeypatch):
    names = ["caf\u00e9", "\u65e5", "with space"]
    mounts = [
        *(f"1 0 0:1 / /{name.replace(' ', chr(92) + '040')} rw - nfs4 server:/ rw".encode() for name in names),
        b"2 0 0:2 / /\xff\xfe rw - cifs other rw",
        b"3 0 0:3 / / rw - ext4 disk rw",
    ]
    (tmp_path / "mountinfo").write_bytes(b"\n".join(mounts))
    monkeypatch.setattr("mlpd.server.storage.locking._MOUNTS", tmp_path / "mountinfo")
    assert [file_system_of(Path("/") / name / "data") for name in names] == ["nfs4"] * len(names)
    assert file_system_of(Path("/elsewhere")) == "ext4"
