"""The data directory: who owns it, where things are, and how a file becomes durable.

Data sets and models are files named by the SHA-256 of their bytes. A file is written beside its place,
synced, and renamed into it, so that it is there as a whole or not at all.
"""

import asyncio
import os
import re
import shutil
import stat
import tempfile
from collections.abc import AsyncIterator
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import structlog
from mlpd.core.files import sync_directory
from mlpd.server.asynchronous import to_the_end
from mlpd.server.errors import StorageFull
from mlpd.server.storage.health import Storage
from mlpd.server.storage.locking import DirectoryLock

_logger = structlog.get_logger()

# Uploads leave this much free for the checkpoints of running jobs.
_DISK_RESERVE_BYTES = 256 * 1024 * 1024
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_PAGE_BYTES = 4096
_CONTENT = re.compile(r"([0-9a-f]{64})\.safetensors\Z")


@dataclass(frozen=True)
class DiskUsage:
    """Bytes of the files of a data directory, by what they are, and what is free on its disk."""

    dataset_bytes: int
    model_bytes: int
    job_bytes: int
    database_bytes: int
    free_bytes: int


class DatabaseMissing(Exception):
    """There are files that only a database could name, and no database."""


class DataDirectory:
    """A locked data directory; the lock ends with the process or `close`. ``storage`` knows if its disk takes writes.

    Raises `DataDirectoryInUse`, or `OSError` when the directory can't be made or written.
    """

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root = root.resolve()
        self.storage = Storage()
        self._lock = DirectoryLock(self.root)
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

    @property
    def _content_folders(self) -> tuple[Path, Path]:
        return self.root / "datasets", self.models

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
        """Return a job's own folder, for its checkpoints, made if missing; raises `OSError` if it can't be."""
        folder = self.root / "jobs" / job_id
        folder.mkdir(exist_ok=True)
        sync_directory(folder.parent)
        return folder

    def remove_job(self, job_id: str) -> int:
        """Remove a job's folder, if there is one, and return the bytes of its files."""
        folder = self.root / "jobs" / job_id
        size_bytes = size_of(folder)
        shutil.rmtree(folder, ignore_errors=True)
        return size_bytes - size_of(folder)

    def require_database(self) -> None:
        """Raise `DatabaseMissing` where there are contents, but no database: all would be removed as unnamed."""
        contents = [path for folder in self._content_folders for path in folder.iterdir() if _CONTENT.match(path.name)]
        if contents and not self.database.exists():
            text = f"{self.database.name}, which names the files of datasets/ and models/, is missing"
            raise DatabaseMissing(f"{text}; put it back, or move these away")

    def remove_others(self, datasets: AbstractSet[str], models: AbstractSet[str], job_ids: AbstractSet[str]) -> None:
        """Remove the files of all contents but these, and the folders of all jobs but these; other files stay.

        Where one of these is not there, none is removed: it may be the one that is missed, under a damaged name.
        """
        count = size_bytes = 0
        for folder, named in zip(self._content_folders, (datasets, models), strict=True):
            paths = {found[1]: path for path in folder.iterdir() if (found := _CONTENT.match(path.name))}
            others, missed = paths.keys() - named, named - paths.keys()
            if others and missed:
                _logger.warning("files stay that nothing names, as others are missed", count=len(others))
                continue
            for digest in others:
                with suppress(OSError):
                    size_bytes += remove_file(paths[digest])
                    count += 1
        for job_id in {folder.name for folder in (self.root / "jobs").iterdir()}.difference(job_ids):
            size_bytes += self.remove_job(job_id)
            count += 1
        if count:
            _logger.info("removed what nothing names", count=count, size_bytes=size_bytes)

    @asynccontextmanager
    async def scratch(self) -> AsyncIterator[Path]:
        """Yield the path of a new, empty file, which is removed afterwards unless it was moved away.

        Raises `StorageTrouble` for what the disk refuses in the block.
        """
        with self.storage.watched():
            path = await asyncio.to_thread(self._new_file)
            try:
                yield path
            finally:  # in a thread, as the file may be large
                await to_the_end(asyncio.to_thread(path.unlink, missing_ok=True))

    def _new_file(self) -> Path:
        descriptor, name = tempfile.mkstemp(dir=self._temporary)
        os.close(descriptor)
        return Path(name)

    def adopt(self, scratch: Path, place: Path) -> None:
        """Move the file ``scratch`` to ``place``, durably. Raises `OSError`."""
        with scratch.open("rb") as file:
            os.fsync(file.fileno())
        scratch.replace(place)
        sync_directory(place.parent)

    def usage(self) -> DiskUsage:
        """Return what the files take now; looks at every one of them."""
        return DiskUsage(
            dataset_bytes=size_of(self.root / "datasets"),
            model_bytes=size_of(self.models),
            job_bytes=size_of(self.root / "jobs"),
            database_bytes=sum(path.stat().st_size for path in self.root.glob(f"{self.database.name}*")),
            free_bytes=shutil.disk_usage(self.root).free,
        )

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
        self._lock.release()


def remove_file(path: Path) -> int:
    """Remove a file, if it is there, and return its bytes; raises `OSError`."""
    try:
        size_bytes = path.stat().st_size
        path.unlink()
    except FileNotFoundError:
        return 0
    return size_bytes


def size_of(folder: Path | str) -> int:
    """Return the bytes of all files in a folder and those below it; what goes away meanwhile does not count."""
    size_bytes = 0
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                is_folder = entry.is_dir(follow_symlinks=False)
                size_bytes += size_of(entry.path) if is_folder else entry.stat(follow_symlinks=False).st_size
    return size_bytes


def _make_private(root: Path) -> None:
    """Take all rights in ``root`` from everyone but the owner; what another user owns, like a mounted root, stays."""
    for folder, _, files in os.walk(root):
        for path in (folder, *(os.path.join(folder, name) for name in files)):
            with suppress(FileNotFoundError, PermissionError):
                mode = os.lstat(path).st_mode
                if mode & _OTHERS and not stat.S_ISLNK(mode):
                    os.chmod(path, stat.S_IMODE(mode) & ~_OTHERS)
