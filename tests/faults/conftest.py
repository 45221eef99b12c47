"""A disk that can be filled to the last byte, and emptied."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

DISK_BYTES = 20_000_000


class Disk:
    """A small file system of its own, mounted for one test."""

    def __init__(self, root: Path):
        self.root = root
        self._ballast = root / "ballast"

    @property
    def free_bytes(self) -> int:
        return shutil.disk_usage(self.root).free

    def leave(self, free_bytes: int) -> None:
        """Fill the disk but for ``free_bytes``."""
        with self._ballast.open("ab") as file:
            os.posix_fallocate(file.fileno(), 0, file.tell() + self.free_bytes - free_bytes)

    def fill(self) -> None:
        """Leave nothing, while others may write at the same time."""
        with self._ballast.open("ab") as file:
            while (page := self.free_bytes) > 0:
                try:
                    os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size + min(page, 4096))
                except OSError:
                    return

    def empty(self) -> None:
        self._ballast.unlink(missing_ok=True)


@pytest.fixture
def disk(tmp_path):
    """Twenty megabytes; skipped where nothing can be mounted."""
    root = tmp_path / "disk"
    root.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(root)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"a small file system can't be mounted here: {mounted.stderr.strip()}")
    yield Disk(root)
    subprocess.run(["umount", "--lazy", str(root)], check=True)
