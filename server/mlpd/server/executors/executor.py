"""What the queue asks of whatever runs attempts: a process on this machine, or something far away."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from mlpd.server.executors.attempt import Attempt
from mlpd.server.records import Frame, StopReason


class Worker(Protocol):
    """What runs one attempt, for the event loop that started it."""

    def reports(self) -> AsyncIterator[list[Frame]]:
        """Yield the frames that have come since the last look, in order, until no more can come.

        A worker whose frames are not taken waits; none is lost.
        """
        ...

    def stop(self, reason: StopReason, patience_seconds: float) -> None:
        """Have the worker finish its steps in hand, free its device and report `Stopped`; or end it.

        It is ended after ``patience_seconds``, or, if it has not reported yet, at once, and counts as stopped all the
        same. If it has ended already, nothing happens.
        """
        ...

    async def ending(self) -> str:
        """Wait for the worker's end, and return how it ended, in words that complete "the worker ..."."""
        ...


class Executor(Protocol):
    """Runs attempts, any number at a time."""

    def start(self, attempt: Attempt) -> AbstractAsyncContextManager[Worker]:
        """Run ``attempt`` in a worker that does not outlive the block. Raises `OSError` if none can be started."""
        ...
