"""Where compiled code is kept, and how usual code is compiled before a run wants it."""

import asyncio
import os
import sys
from pathlib import Path

import structlog
from mlpd.core.execution.opening import missing_for

_logger = structlog.get_logger()


def kernels_directory(data_directory: Path) -> Path:
    """Return the user's cache, which all servers share, or a folder of ``data_directory`` if it can't be written.

    Code in it is verified when it is read, and compiled anew where it is missing or damaged.
    """
    own = data_directory / "kernels"
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlpd" / "kernels"
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: the user has no home
        return own
    return cache if os.access(cache, os.W_OK | os.X_OK) else own


async def warm(directory: Path) -> None:
    """Have a process of low priority compile what usual runs call, where that is missing; failure is only logged."""
    if missing_for("compiled"):
        return
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "mlpd.core.planning.warming", str(directory), str(os.getpid())),
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, text = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        # No harm done: a run compiles what it lacks.
        lines = text.decode(errors="replace").strip().splitlines()
        _logger.warning("usual kernels could not be compiled", reason=lines[-1] if lines else "")
