"""Files that are there as a whole or not at all, and that are still what they were."""

import hashlib
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_READ_BYTES = 1024 * 1024
_DIGEST_BYTES = 32
# A clock of files ticks in milliseconds: two changes within one tick look like one.
_SETTLED_NANOSECONDS = 10**9


class FileDamaged(ValueError):
    """A file's bytes are not those that it is known by, or can't be read."""


class Interrupted(Exception):
    """Nobody waits for the digest any more."""


@dataclass(frozen=True)
class FileDigest:
    """What a file's bytes are known by."""

    sha256: str
    size_bytes: int


def write_atomic(path: Path, content: bytes) -> FileDigest:
    """Make ``content`` durable as ``path``: a reader sees the old file or the new one, also after a power cut."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        with suppress(OSError):
            partial.unlink()  # a full disk needs the room
        raise
    sync_directory(path.parent)
    return FileDigest(hashlib.sha256(content).hexdigest(), len(content))


class CodeFiles:
    """Compiled code in files of ``directory``, each with a digest; None = nowhere. A file that is damaged is none."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory

    def read(self, name: str) -> bytes | None:
        """Return the code that `keep` stored, None where that is missing or damaged."""
        if self._directory is None:
            return None
        with suppress(OSError):
            content = (self._directory / name).read_bytes()
            if _code_digest(name, content[_DIGEST_BYTES:]) == content[:_DIGEST_BYTES]:
                return content[_DIGEST_BYTES:]
        return None

    def keep(self, name: str, code: bytes) -> None:
        """Move code into its file in one step, if it can be written, so that others find all of it or nothing."""
        if self._directory is None:
            return
        with suppress(OSError):
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._directory) as scratch:
                path = Path(scratch) / name
                path.write_bytes(_code_digest(name, code) + code)
                os.replace(path, self._directory / name)


def _code_digest(name: str, code: bytes) -> bytes:
    return hashlib.sha256(name.encode() + code).digest()


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def digest_of(path: Path, stopped: Callable[[], bool] = lambda: False) -> FileDigest:
    """Return the digest of a file, read in bounded memory; raises `Interrupted` once ``stopped`` says so."""
    digest, size_bytes, block = hashlib.sha256(), 0, memoryview(bytearray(_READ_BYTES))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(block):
            if stopped():
                raise Interrupted
            digest.update(block[:count])
            size_bytes += count
    return FileDigest(digest.hexdigest(), size_bytes)


@dataclass(frozen=True)
class FileIdentity:
    """What does not stay the same when a file is written to or replaced; times in nanoseconds since 1970."""

    device: int
    number: int
    size_bytes: int
    modify_time: int
    change_time: int

    @classmethod
    def of(cls, path: Path) -> "FileIdentity":
        """Return that of the file which ``path`` leads to now; raises `OSError`."""
        status = path.stat()
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class Verifier:
    """Holds files to their digests; one that has not changed since is not read again. Threads may share it."""

    def __init__(self) -> None:
        self._sound: dict[Path, tuple[str, FileIdentity]] = {}

    def check(self, path: Path, sha256: str, stopped: Callable[[], bool] = lambda: False) -> None:
        """Raise `FileDamaged` unless ``path`` has the digest ``sha256``; `OSError`, or `Interrupted` as `digest_of`."""
        started, identity = time.time_ns(), FileIdentity.of(path)
        if self._sound.get(path) == (sha256, identity):
            return
        found = digest_of(path, stopped).sha256
        if found != sha256:
            raise FileDamaged(f"it must have the SHA-256 {sha256}, got {found}")
        if identity.change_time < started - _SETTLED_NANOSECONDS:
            self._sound[path] = sha256, identity
