"""What the disk refuses, as errors that a caller may see, and how long to wait before it is asked again."""

import errno
import random
import sqlite3
from collections.abc import Iterator

from mlpd.server.errors import StorageFailing, StorageFull, StorageTrouble

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FAILING = frozenset({errno.EIO, errno.EROFS, errno.ESTALE})
_PRIMARY_CODE_MASK = 0xFF
_DATABASE_FAILING = frozenset(
    {
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
    }
)

_FIRST_WAIT_SECONDS = 0.1
_LONGEST_WAIT_SECONDS = 5.0


def trouble_of(error: BaseException) -> StorageTrouble | None:
    """Return ``error``, of the operating system or SQLite, as `StorageTrouble` if the disk refused, else None."""
    match error:
        case OSError(errno=number) if number in _FULL:
            return StorageFull(f"the server's disk has no room for this: {error.strerror}")
        case OSError(errno=number) if number in _FAILING:
            return StorageFailing(f"the server's disk can't be read or written now: {error.strerror}")
        case sqlite3.Error():
            # An error that Python's driver makes itself has no code.
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
            if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE):
                return StorageFull(f"the server's disk has no room for this: {error}")
            if code & _PRIMARY_CODE_MASK in _DATABASE_FAILING:
                return StorageFailing(f"the server's disk can't be read or written now: {error}")
    return None


def waits_seconds() -> Iterator[float]:
    """Yield how long to wait before each next try: twice as long each time, up to a limit, less a random part."""
    wait_seconds = _FIRST_WAIT_SECONDS
    while True:
        yield wait_seconds * random.uniform(0.5, 1)  # noqa: S311 - nobody gains by guessing it
        wait_seconds = min(2 * wait_seconds, _LONGEST_WAIT_SECONDS)
