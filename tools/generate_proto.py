"""Generates the modules and stubs beside the .proto files; with --check, only compares.

Usage: python tools/generate_proto.py [--check]
"""

import argparse
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

PROTO = Path(__file__).resolve().parent.parent / "proto"
SITE_PACKAGES = sysconfig.get_path("purelib")  # holds google/rpc/*.proto


def read(root: Path) -> dict[str, bytes]:
    """Return the content of every generated file below ``root``, by its path there."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.glob("mlpd/v1/*_pb2*.py*")}


def generate() -> dict[str, bytes]:
    """Return what the .proto files give; exit with the compiler's message where they do not compile."""
    scripts = Path(sysconfig.get_path("scripts"))
    plugins = [f"--plugin={name}={scripts / name}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")]
    sources = [str(path) for path in sorted(PROTO.glob("mlpd/v1/*.proto"))]
    with tempfile.TemporaryDirectory() as scratch:
        outputs = [f"--{kind}_out={scratch}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
        command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO}", f"-I{SITE_PACKAGES}", *plugins, *outputs]
        done = subprocess.run([*command, *sources], capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stderr)
        return read(Path(scratch))


def main() -> None:
    """Generate, or check."""
    parser = argparse.ArgumentParser(description="Generates the modules and stubs beside the .proto files.")
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a file is not fresh")
    only_check = parser.parse_args().check

    fresh = generate()
    stale = sorted({path for path, _ in fresh.items() ^ read(PROTO).items()})
    if only_check and stale:
        sys.exit(f"stale generated files, run tools/generate_proto.py: {', '.join(stale)}")
    for path in stale:
        if path in fresh:
            (PROTO / path).write_bytes(fresh[path])
        else:
            (PROTO / path).unlink()


if __name__ == "__main__":
    main()
