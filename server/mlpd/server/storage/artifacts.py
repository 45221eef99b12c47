"""The data directory: who owns it, where things are, and how a file becomes durable.

Data sets and models are files named by the SHA-256 of their bytes. A file is written beside its place,
synced, and renamed into it, so that it is there as a whole or not at all.
"""

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mlpd.core.files import sync_directory
from mlpd.server.errors import StorageFull
from mlpd.server.storage.health import Storage

# Uploads leave this much free for the checkpoints of running jobs.
_DISK_RESERVE_BYTES = 256 * 1024 * 1024
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_PAGE_BYTES = 4096


class DataDirectoryInUse(Exception):
    """Another server holds the data directory."""


class DataDirectory:
    """A locked data directory; the lock ends with the process or `close`. ``storage`` knows if its disk takes writes.

    Raises `DataDirectoryInUse`, or `OSError` when the directory can't be made or written.
    """

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root = root.resolve()
        self.storage = Storage()
        self._lock = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise DataDirectoryInUse(f"another server uses the data directory {self.root}") from None
        shutil.rmtree(self._temporary, ignore_errors=True)
        _make_private(self.root)
        for name in ("temporary", "datasets", "models", "jobs"):
            (self.root / name).mkdir(exist_ok=True)
        sync_directory(self.root)

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.root / "mlpd.sqlite3"

    @property
    def _temporary(self) -> Path:
        return self.root / "temporary"

    def dataset(self, sha256: str) -> Path:
        """Return the path of the data set with this content."""
        return self.root / "datasets" / f"{sha256}.safetensors"

    def model(self, sha256: str) -> Path:
        """Return the path of the model file with this content."""
        return self.models / f"{sha256}.safetensors"

    @property
    def models(self) -> Path:
        """Where workers put model files."""
        return self.root / "models"

    def job(self, job_id: str) -> Path:
        """Return a job's own folder, for its checkpoints, made if missing; raises `StorageTrouble` if it can't be."""
        folder = self.root / "jobs" / job_id
        with self.storage.watched():
            folder.mkdir(exist_ok=True)
            sync_directory(folder.parent)
        return folder

    def remove_job(self, job_id: str) -> None:
        """Remove a job's folder; no error if there is none."""
        shutil.rmtree(self.root / "jobs" / job_id, ignore_errors=True)

    def job_ids(self) -> set[str]:
        """Return the ids of the jobs that have a folder."""
        return {folder.name for folder in (self.root / "jobs").iterdir()}

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Yield the path of a new, empty file, which is removed afterwards unless it was moved away.

        Raises `StorageTrouble` for what the disk refuses in the block.
        """
        with self.storage.watched():
            descriptor, name = tempfile.mkstemp(dir=self._temporary)
            os.close(descriptor)
            try:
                yield Path(name)
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(name)

    def adopt(self, scratch: Path, place: Path) -> None:
        """Move the file ``scratch`` to ``place``, durably. Raises `OSError`."""
        with scratch.open("rb") as file:
            os.fsync(file.fileno())
        scratch.replace(place)
        sync_directory(place.parent)

    def write_nothing(self) -> None:
        """Write a file of which nothing stays; raises `OSError` if the disk does not take it."""
        with tempfile.TemporaryFile(dir=self._temporary) as file:
            file.write(bytes(_PAGE_BYTES))
            file.flush()
            os.fsync(file.fileno())

    def require_space(self, size_bytes: int) -> None:
        """Raise `StorageFull` unless the disk has room for ``size_bytes`` and a reserve for running jobs."""
        free = shutil.disk_usage(self.root).free
        if free < size_bytes + _DISK_RESERVE_BYTES:
            raise StorageFull(
                f"size_bytes {size_bytes} and a reserve of {_DISK_RESERVE_BYTES} do not fit in {free} free bytes"
            )

    def close(self) -> None:
        """Give up the lock."""
        os.close(self._lock)


def _make_private(root: Path) -> None:
    """Take all rights in ``root`` from everyone but the owner; what another user owns, like a mounted root, stays."""
    for folder, _, files in os.walk(root):
        for path in (folder, *(os.path.join(folder, name) for name in files)):
            with suppress(FileNotFoundError, PermissionError):
                mode = os.lstat(path).st_mode
                if mode & _OTHERS and not stat.S_ISLNK(mode):
                    os.chmod(path, stat.S_IMODE(mode) & ~_OTHERS)
