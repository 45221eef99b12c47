"""Compiles ahead what usual runs call, so that none waits: ``python -m mlpd.core.planning.warming DIRECTORY PARENT``.

A server does this whenever it starts, and mostly finds it done; so what it takes is imported where it is wanted.
"""

import os
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path

from mlpd.core.codegen.compiler import source_digest
from mlpd.core.execution.runner import RunnerUnavailable
from mlpd.core.processes import end_with

_MARK = "warmed"  # a file that says when its folder was last asked for
_KEPT_SECONDS = 30 * 24 * 60 * 60
_NICENESS = 19  # what is warmed is needed later, if at all


def warm(directory: Path) -> None:
    """Fill ``directory`` with compiled code, unless that was done before, and clear what nobody has warmed for long.

    Other releases, and other kinds of processor, have folders of their own beside. Raises `OSError` and
    `RunnerUnavailable`.
    """
    done = directory / source_digest()[:16] / _MARK
    for mark in directory.glob(f"*/{_MARK}"):
        with suppress(FileNotFoundError):  # another server may clear the same
            if mark != done and time.time() - mark.stat().st_mtime > _KEPT_SECONDS:
                shutil.rmtree(mark.parent, ignore_errors=True)
    if not done.exists():
        from mlpd.core.planning.usual_runs import compile_usual_runs

        compile_usual_runs(directory)
    done.touch()


def main() -> None:
    """Warm, while nobody else wants the processor."""
    end_with(int(sys.argv[2]))
    os.nice(_NICENESS)
    try:
        warm(Path(sys.argv[1]))
    except (RunnerUnavailable, OSError) as error:
        sys.exit(f"mlpd: {error}")


if __name__ == "__main__":
    main()
