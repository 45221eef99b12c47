"""What this machine can train on; CUDA is tried once, in a process of its own.

A first CUDA call takes seconds, holds device memory for the life of the process, and may end it. So the
server never makes one: ``python -m mlpd.server.executors.devices PARENT`` does, and prints what it found.
"""

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from importlib.util import find_spec

from mlpd.core.codec import from_fields, to_fields
from mlpd.core.devices.arrays import DeviceUnavailable, open_device
from mlpd.core.processes import end_with

_PROBE_SECONDS = 60


@dataclass(frozen=True)
class DeviceReport:
    """Whether jobs can run on a device, and what it is or why they can't; ``memory_bytes`` 0 = unknown."""

    usable: bool
    description: str
    memory_bytes: int = 0


class Devices:
    """The devices of this machine, for one event loop."""

    def __init__(self) -> None:
        self._cuda = asyncio.ensure_future(_probe())

    async def cuda(self) -> DeviceReport:
        """Wait until CUDA has been tried, and return the report on it."""
        return await asyncio.shield(self._cuda)

    def cpu(self) -> DeviceReport:
        """Return the report on the CPU."""
        return _report("cpu")

    def close(self) -> None:
        """Give up trying CUDA; whoever waits for the report is cancelled."""
        self._cuda.cancel()


def _report(name: str) -> DeviceReport:
    try:
        device = open_device(name)
        return DeviceReport(True, device.description(), device.memory_bytes())
    except DeviceUnavailable as error:
        return DeviceReport(False, str(error))


async def _probe() -> DeviceReport:
    try:
        return await _probed()
    except (OSError, ValueError, TypeError, KeyError) as error:
        return DeviceReport(False, f"CUDA could not be tried: {error}")


async def _probed() -> DeviceReport:
    if find_spec("cupy") is None:
        return _report("cuda")  # which says so, and makes no CUDA call
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "mlpd.server.executors.devices", str(os.getpid())),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), _PROBE_SECONDS)
    except TimeoutError:
        return DeviceReport(False, f"CUDA did not answer within {_PROBE_SECONDS} seconds")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        return DeviceReport(False, f"trying CUDA ended with status {process.returncode}; the server's log may tell why")
    return from_fields(DeviceReport, json.loads(output))


if __name__ == "__main__":
    end_with(int(sys.argv[1]))
    print(json.dumps(to_fields(_report("cuda"))))
