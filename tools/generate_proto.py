"""Generates the modules and stubs beside the .proto files; with --check, only compares.

Usage: python tools/generate_proto.py [--check]
"""

import filecmp
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

PROTO = Path(__file__).resolve().parent.parent / "proto"
SITE_PACKAGES = sysconfig.get_path("purelib")  # holds google/rpc/*.proto


def generate(output: Path) -> list[Path]:
    """Write the generated files below ``output`` and return their paths relative to it."""
    scripts = Path(sysconfig.get_path("scripts"))
    sources = sorted(PROTO.glob("mlpd/v1/*.proto"))
    plugins = [f"--plugin={name}={scripts / name}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")]
    outputs = [f"--{kind}_out={output}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO}", f"-I{SITE_PACKAGES}", *plugins, *outputs]
    done = subprocess.run([*command, *map(str, sources)], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return [
        path.relative_to(output) for path in sorted(output.glob("mlpd/v1/*_pb2*.py*")) if path.suffix in (".py", ".pyi")
    ]


def stale() -> list[str]:
    """Return the checked-in files that differ from freshly generated ones, are missing, or are left over."""
    with tempfile.TemporaryDirectory() as scratch:
        fresh = generate(Path(scratch))
        differ = [path for path in fresh if not _same(Path(scratch) / path, PROTO / path)]
    known = {path.relative_to(PROTO) for path in PROTO.glob("mlpd/v1/*_pb2*.py*") if path.suffix in (".py", ".pyi")}
    return sorted(str(path) for path in {*differ, *(known - set(fresh))})


def _same(one: Path, other: Path) -> bool:
    return other.exists() and filecmp.cmp(one, other, shallow=False)


def main() -> None:
    """Generate, or check."""
    if sys.argv[1:] == ["--check"]:
        if files := stale():
            sys.exit(f"stale generated files, run tools/generate_proto.py: {', '.join(files)}")
        return
    with tempfile.TemporaryDirectory() as scratch:
        for path in generate(Path(scratch)):
            shutil.copy(Path(scratch) / path, PROTO / path)


if __name__ == "__main__":
    main()
