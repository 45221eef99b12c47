"""Keeps a second server off a data directory, by locks that the kernel takes back however a process ends."""

import errno
import fcntl
import os
import socket
from contextlib import suppress
from pathlib import Path

import structlog

_logger = structlog.get_logger()
_MOUNTS = Path("/proc/self/mountinfo")
# What other machines may write to at the same time; SQLite's write-ahead log needs memory that all writers share.
_NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "lustre", "fuse.glusterfs", "fuse.sshfs", "9p", "afs"}
)
_CANT_BE_LOCKED = frozenset({errno.EBADF, errno.EOPNOTSUPP, errno.EINVAL, errno.EISDIR})


class DataDirectoryInUse(Exception):
    """Another server holds the data directory."""


class DirectoryLock:
    """A lock on ``root``, a directory, until the process ends or `release`.

    It is on a file, which says who holds it, and on the directory itself, as a file may be removed. Raises
    `DataDirectoryInUse`, or `OSError` where the file can't be made, or nothing can be locked.
    """

    def __init__(self, root: Path) -> None:
        self._descriptors: list[int] = []
        self._path = root / "lock"
        try:
            self._lock(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            try:
                self._lock(os.open(root, os.O_RDONLY | os.O_CLOEXEC))
            except OSError as error:
                if error.errno not in _CANT_BE_LOCKED:  # NFS takes no lock on a directory
                    raise
        except BlockingIOError:
            holder = self._holder()
            self.release()
            raise DataDirectoryInUse(f"another server uses the data directory {root}{holder}") from None
        self._tell()
        if (kind := file_system_of(root)) in _NETWORK_FILE_SYSTEMS:
            text = "the data directory is on a network file system, where its lock may not reach other machines"
            _logger.warning(text, data_directory=str(root), file_system=kind)

    def release(self) -> None:
        """Give up the lock."""
        while self._descriptors:
            os.close(self._descriptors.pop())

    def _lock(self, descriptor: int) -> None:
        self._descriptors.append(descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _tell(self) -> None:
        """Write who holds the lock; on a full disk nobody is told."""
        with suppress(OSError):
            os.truncate(self._descriptors[0], 0)
            os.write(self._descriptors[0], f"process {os.getpid()} of {socket.gethostname()}".encode())

    def _holder(self) -> str:
        with suppress(OSError, UnicodeDecodeError):
            if text := self._path.read_text(encoding="utf-8"):
                return f": {text}"
        return ""


def file_system_of(path: Path) -> str:
    """Return the kind of file system that a directory is on, "" where the system does not tell."""
    found, longest = "", -1
    with suppress(OSError):
        for line in _MOUNTS.read_bytes().splitlines():
            fields, _, kinds = line.partition(b" - ")
            # Spaces are written as \040; all else is bytes, of any encoding.
            point = os.fsdecode(fields.split()[4].decode("unicode_escape").encode("latin-1"))
            if path.is_relative_to(point) and len(point) >= longest:
                found, longest = kinds.split()[0].decode(), len(point)
    return found
