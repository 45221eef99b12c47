"""Runs each attempt in a worker process of its own on this machine."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Self

from mlpd.server.executors.attempt import Attempt
from mlpd.server.records import Frame, Stopped, StopReason, decode_frame

_READ_BYTES = 65536


class WorkerProcess:
    """A `Worker` that is a process of its own, for the event loop that started it.

    Until its first report it has changed nothing that its job needs, so its start can be broken off.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._has_reported = False
        self._broken_off: StopReason | None = None

    @classmethod
    async def started(cls) -> Self:
        """Start a worker that waits for its attempt; raises `OSError` if that fails."""
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

    def begin(self, line: bytes) -> None:
        """Tell the worker its attempt, in its line."""
        self._write(line)

    async def reports(self) -> AsyncIterator[list[Frame]]:
        """Yield what the worker has reported since the last look, in order, until it closes its pipe."""
        assert self._process.stdout is not None
        rest = b""
        while received := await self._process.stdout.read(_READ_BYTES):
            *lines, rest = (rest + received).split(b"\n")
            if lines:
                self._has_reported = True
                yield [decode_frame(line) for line in lines]
        if self._broken_off:
            yield [Stopped(self._broken_off)]

    def stop(self, reason: StopReason, patience_seconds: float) -> None:
        """Tell the worker to stop, and end it after ``patience_seconds``; at once if it has not reported yet."""
        if self._has_reported:
            with suppress(ConnectionError, RuntimeError):  # it has already ended
                self._write(f"{reason}\n".encode())
            asyncio.get_running_loop().call_later(patience_seconds, self._break_off, reason)
        else:
            self._break_off(reason)

    async def ending(self) -> str:
        """Wait for the process to end, and return how: "exited with status 1", "was killed by SIGKILL"."""
        status = await self._process.wait()
        if status < 0:
            return f"was killed by {signal.Signals(-status).name}"
        return f"exited with status {status}"

    async def end(self) -> None:
        """End the worker at once, and wait until it has ended."""
        self._kill()
        await self._process.wait()

    def _write(self, line: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line)

    def _break_off(self, reason: StopReason) -> None:
        """End the worker, which then counts as stopped: that it took too long is not a crash."""
        self._broken_off = reason
        self._kill()

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()


class ProcessExecutor:
    """An `Executor` that runs each attempt in a worker process.

    Within ``async with`` it keeps one worker waiting while none runs: an interpreter that has its libraries loaded,
    which takes most of the time that a job needs to begin.
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
    async def start(self, attempt: Attempt) -> AsyncIterator[WorkerProcess]:
        """Run ``attempt`` in a worker that does not outlive the block. Raises `OSError` if none can be started."""
        line = await asyncio.to_thread(attempt.to_line)
        worker = await self._take_waiting() or await WorkerProcess.started()
        self._running_count += 1
        try:
            worker.begin(line)
            yield worker
        finally:
            await worker.end()
            self._running_count -= 1
            self._prepare()

    def _prepare(self) -> None:
        if self._is_open and not self._running_count and self._waiting is None:
            self._waiting = asyncio.create_task(WorkerProcess.started())

    async def _take_waiting(self) -> WorkerProcess | None:
        """Return the waiting worker, or None if there is none, or it could not be started or has ended."""
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return None
        try:
            worker = await waiting
        except OSError:
            return None
        return None if worker.has_ended else worker
