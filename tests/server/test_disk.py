"""What counts as trouble of the disk, and how long to wait for its end."""

import errno
import os
from itertools import islice

import pytest
from google.rpc import code_pb2, error_details_pb2
from mlpd.core.files import write_atomic
from mlpd.server.disk import trouble_of, waits_seconds
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


def test_a_file_that_can_not_be_written_leaves_nothing_behind(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_atomic(tmp_path / "taken", b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
