"""Runs each attempt in a worker process of its own on this machine."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Self

from mlpd.server.executors.attempt import Order, Task
from mlpd.server.records import Frame, decode_frame

_READ_BYTES = 65536


class WorkerProcess:
    """A running worker, for the event loop that started it.

    Until it ``has_reported`` it has done nothing, and its start can be broken off; then ``never_started`` is true.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.has_reported = self.never_started = False

    @classmethod
    async def started(cls) -> Self:
        """Start one that waits for its task. Raises `OSError`."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "mlpd.server.executors.worker"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in the server's terminal is for the server, which then drains
        )
        return cls(process)

    @property
    def has_ended(self) -> bool:
        """Whether the process is known to have ended."""
        return self._process.returncode is not None

    def begin(self, task: Task) -> None:
        """Tell the worker its task."""
        assert self._process.stdin is not None
        self._process.stdin.write(task.to_line())

    async def reports(self) -> AsyncIterator[list[Frame]]:
        """Yield what the worker has reported since the last look, in order, until it closes its pipe."""
        assert self._process.stdout is not None
        rest = b""
        while received := await self._process.stdout.read(_READ_BYTES):
            *lines, rest = (rest + received).split(b"\n")
            if lines:
                self.has_reported = True
                yield [decode_frame(line) for line in lines]

    def order(self, order: Order) -> None:
        """Tell the worker; one that has already ended does not mind."""
        assert self._process.stdin is not None
        with suppress(ConnectionError, RuntimeError):
            self._process.stdin.write(f"{order}\n".encode())

    def break_off_start(self) -> None:
        """End a worker that has not reported yet."""
        self.never_started = True
        self.kill()

    def kill(self) -> None:
        """End the worker at once."""
        with suppress(ProcessLookupError):
            self._process.kill()

    async def end(self) -> None:
        """End the worker at once, and wait until it has ended."""
        self.kill()
        await self._process.wait()

    async def ending(self) -> str:
        """Wait for the end of the process and say how it came: "exited with status 1", "was killed by SIGKILL"."""
        status = await self._process.wait()
        if status < 0:
            return f"was killed by {signal.Signals(-status).name}"
        return f"exited with status {status}"


class ProcessExecutor:
    """Starts a worker process for each task.

    In a block of its own it has one at hand while none works: an interpreter with its libraries, which take a job's
    beginning longer than all else.
    """

    def __init__(self) -> None:
        self._waiting: asyncio.Task[WorkerProcess] | None = None
        self._is_open = False
        self._running_count = 0

    async def __aenter__(self) -> Self:
        self._is_open = True
        self._prepare()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_open = False
        if worker := await self._take_waiting():
            await worker.end()

    @asynccontextmanager
    async def start(self, task: Task) -> AsyncIterator[WorkerProcess]:
        """Run ``task``; the worker does not outlive the block. Raises `OSError` if it can't be started."""
        worker = await self._take_waiting() or await WorkerProcess.started()
        self._running_count += 1
        try:
            worker.begin(task)
            yield worker
        finally:
            await worker.end()
            self._running_count -= 1
            self._prepare()

    def _prepare(self) -> None:
        if self._is_open and not self._running_count and self._waiting is None:
            self._waiting = asyncio.create_task(WorkerProcess.started())

    async def _take_waiting(self) -> WorkerProcess | None:
        """Return the worker at hand, unless it could not be started or has ended."""
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return None
        try:
            worker = await waiting
        except OSError:
            return None
        return None if worker.has_ended else worker
