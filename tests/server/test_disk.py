"""What counts as trouble of the disk, and how long to wait for its end."""

import asyncio
import errno
import os
import sys
from itertools import islice

import pytest
from google.rpc import code_pb2, error_details_pb2
from mlpd.core.files import write_atomic
from mlpd.server.disk import trouble_of, waits_seconds
from mlpd.server.errors import StorageFull
from mlpd.server.executors.devices import Devices
from mlpd.server.storage.health import Storage
from mlpd.server.wire.status import status_of_error

CODES = {
    errno.ENOSPC: code_pb2.RESOURCE_EXHAUSTED,
    errno.EDQUOT: code_pb2.RESOURCE_EXHAUSTED,
    errno.EIO: code_pb2.UNAVAILABLE,
    errno.EROFS: code_pb2.UNAVAILABLE,
}


@pytest.mark.parametrize("number", CODES, ids=errno.errorcode.get)
def test_trouble_of_the_disk_is_told_apart_by_its_code_and_says_when_to_try_again(number):
    trouble = trouble_of(OSError(number, os.strerror(number), "/a/path/of/the/server"))
    assert trouble
    status = status_of_error(trouble)
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(retry)
    assert (status.code, info.reason) == (CODES[number], "STORAGE")
    assert "/a/path" not in status.message


@pytest.mark.parametrize("error", [OSError(errno.ENOENT, "no such file"), TimeoutError(), ValueError("disk")])
def test_other_errors_are_not_the_disk_s(error):
    assert trouble_of(error) is None


def test_waits_grow_to_a_limit():
    waits = list(islice(waits_seconds(), 50))
    assert waits[0] <= 0.1
    assert all(2.5 <= wait <= 5 for wait in waits[10:])
    assert len(set(waits)) > 40


def test_the_watch_of_the_disk_outlives_errors_that_are_not_the_disk_s():
    """An error of the system, such as too many open files, is no end of the trouble, and none of the watch."""
    errors, told = [OSError(errno.EMFILE, "too many"), StorageFull("full")], []

    async def write():
        if errors:
            raise errors.pop(0)

    async def watch():
        storage, sound = Storage(), asyncio.Event()

        async def tell(serving):
            told.append(serving)
            if serving:
                sound.set()

        watching = asyncio.create_task(storage.watch(write, tell))
        with pytest.raises(StorageFull), storage.watched():
            raise OSError(errno.ENOSPC, "full")
        async with asyncio.timeout(60):
            await sound.wait()
        watching.cancel()

    asyncio.run(watch())
    assert told == [False, True]


def test_a_probe_of_cuda_that_can_not_be_started_is_an_answer(monkeypatch, tmp_path):
    (tmp_path / "cupy").mkdir()  # where it is not installed, no process is needed
    (tmp_path / "cupy" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "executable", "/no/such/python")

    async def probe():
        devices = Devices()
        return [await devices.cuda() for _ in range(2)]

    first, second = asyncio.run(probe())
    assert first == second
    assert (first.usable, first.description.startswith("CUDA could not be tried: ")) == (False, True)


def test_a_file_that_can_not_be_written_leaves_nothing_behind(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_atomic(tmp_path / "taken", b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
