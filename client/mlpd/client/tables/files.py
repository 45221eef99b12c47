"""Files on a disk: what can be read more than once, stays as it is meanwhile, and tells how far it is read."""

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any

from mlpd.client.errors import InvalidRequest

OnProgress = Callable[[int, int], None]


@contextmanager
def unchanged(data: Any) -> Iterator[None]:
    """Read a path in the block; data in memory pass.

    Raises `InvalidRequest` where there is no file or folder, where it is a pipe or a device, and where others change it
    before the block ends.
    """
    if not isinstance(data, str | Path):
        yield
        return
    path = Path(data)
    if str(data) == "-":
        raise InvalidRequest("- must be the name of a file: standard input is read but once; write it to a file first")
    before = _state(path)
    if not (S_ISREG(before.st_mode) or S_ISDIR(before.st_mode)):
        raise InvalidRequest(f"{path} must be a file, got a pipe or a device; write its content to a file first")
    yield
    after = _state(path)
    if any(getattr(before, name) != getattr(after, name) for name in ("st_size", "st_mtime_ns", "st_ino")):
        raise _changed(path)


COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}  # as Arrow calls them, by suffix


class Watched(io.RawIOBase):
    """The binary ``file`` at ``path``, which tells ``on_progress``, if any, how far it is read.

    Reading raises `InvalidRequest` where it has grown.
    """

    def __init__(self, path: Path, file: Any, on_progress: OnProgress | None) -> None:
        self._path, self._file = path, file
        self._size_bytes = path.stat().st_size
        self._on_progress = on_progress

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def seekable(self) -> bool:
        """Return that it can be read anywhere."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a byte, and return where that is."""
        place: int = self._file.seek(offset, whence)
        return place

    def tell(self) -> int:
        """Return which byte comes next."""
        place: int = self._file.tell()
        return place

    def read(self, size: int = -1) -> bytes:
        """Return up to ``size`` bytes, all that are left where it is negative."""
        block: bytes = self._file.read(size)
        done_bytes = self._file.tell()
        if done_bytes > self._size_bytes:  # who reads to its end would not end while it grows
            raise _changed(self._path)
        if self._on_progress:
            self._on_progress(done_bytes, self._size_bytes)
        return block


@contextmanager
def watched(path: Path, on_progress: OnProgress | None) -> Iterator[Watched]:
    """Open a file for reading, watched; raises `OSError`."""
    with path.open("rb") as file:
        yield Watched(path, file, on_progress)


def _changed(path: Path) -> InvalidRequest:
    return InvalidRequest(f"{path} must stay as it is while it is read, and was changed; copy it, and take the copy")


def _state(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except FileNotFoundError:
        raise InvalidRequest(f"{path} can't be read: there is no such file") from None
    except OSError as error:
        raise InvalidRequest(f"{path} can't be read: {error.strerror}") from error
