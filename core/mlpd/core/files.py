"""Files that are there as a whole or not at all."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

_READ_BYTES = 1024 * 1024


@dataclass(frozen=True)
class FileDigest:
    """What a file's bytes are known by."""

    sha256: str
    size_bytes: int


def write_atomic(path: Path, content: bytes) -> FileDigest:
    """Make ``content`` durable as ``path``: a reader sees the old file or the new one, also after a power cut."""
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    sync_directory(path.parent)
    return FileDigest(hashlib.sha256(content).hexdigest(), len(content))


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def digest_of(path: Path) -> FileDigest:
    """Return the digest of a file, read in bounded memory."""
    digest, size_bytes = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
            size_bytes += len(block)
    return FileDigest(digest.hexdigest(), size_bytes)
