"""Compiles the kernels of usual runs ahead: ``python -m mlpd.core.planning.warming DIRECTORY PARENT``.

It ends with the process PARENT. A server does this whenever it starts and mostly finds it done, so modules that only
compiling needs are imported late.
"""

import os
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path

from mlpd.core.codegen.compiler import source_digest
from mlpd.core.processes import end_with

_MARK = "warmed"  # a file whose time says when its folder was last warmed
_KEPT_SECONDS = 30 * 24 * 60 * 60
_NICENESS = 19  # what is warmed is needed later, if at all


def warm(directory: Path) -> None:
    """Fill ``directory`` with compiled code, unless that was done before, and remove folders not warmed for long.

    Each release has a folder for each kind of processor. Raises `OSError` and `RunnerUnavailable`.
    """
    done = directory / source_digest()[:16] / _MARK
    for mark in directory.glob(f"*/{_MARK}"):
        with suppress(FileNotFoundError):  # another server may clear the same
            if mark != done and time.time() - mark.stat().st_mtime > _KEPT_SECONDS:
                shutil.rmtree(mark.parent, ignore_errors=True)
    if not done.exists():
        done.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # or fails before anything is compiled
        from mlpd.core.planning.usual_runs import compile_usual_runs

        compile_usual_runs(directory)
    done.touch()


def main() -> None:
    """Warm at the lowest priority; exit with an error if that fails."""
    end_with(int(sys.argv[2]))
    os.nice(_NICENESS)
    try:
        warm(Path(sys.argv[1]))
    except _failures() as error:
        sys.exit(f"mlpd: {error}")


def _failures() -> tuple[type[Exception], ...]:
    """Return what warming may fail with; to name it takes NumPy, which nothing else needs where all is done."""
    from mlpd.core.plans.runner import RunnerUnavailable

    return RunnerUnavailable, OSError


if __name__ == "__main__":
    main()
