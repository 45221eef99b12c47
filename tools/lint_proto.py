"""Lints the .proto files with buf, offline: what they import comes from the installed packages.

Usage: python tools/lint_proto.py
"""

import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

PROTO = Path(__file__).resolve().parent.parent / "proto"


def main() -> None:
    """Lint, and exit with buf's status."""
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copytree(PROTO, scratch, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.py*"))
        imported = Path(scratch) / "google" / "rpc"
        imported.mkdir(parents=True)
        shutil.copy(Path(sysconfig.get_path("purelib")) / "google" / "rpc" / "status.proto", imported)
        buf = Path(sysconfig.get_path("scripts")) / "buf"
        sys.exit(subprocess.run([buf, "lint", "--path", "mlpd"], cwd=scratch, check=False).returncode)


if __name__ == "__main__":
    main()
