"""What the queue asks of whatever runs attempts: a process on this machine, or something far away."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from mlpd.server.executors.attempt import Attempt
from mlpd.server.records import Frame, StopReason


class Worker(Protocol):
    """What runs one attempt, for the event loop that started it."""

    def reports(self) -> AsyncIterator[list[Frame]]:
        """Yield what it has reported since the last look, in order, until there can be no more.

        One that is slow to be asked for more waits rather than lose a frame.
        """
        ...

    def stop(self, reason: StopReason, patience_seconds: float) -> None:
        """Have it finish its mini-batch, free its device and report `Stopped`; after ``patience_seconds``, end it.

        One that has not begun is ended at once, and counts as stopped. One that has ended does not mind.
        """
        ...

    async def ending(self) -> str:
        """Wait for its end and say how that came, as what completes "the worker ..."."""
        ...


class Executor(Protocol):
    """Runs attempts, any number at a time."""

    def start(self, attempt: Attempt) -> AbstractAsyncContextManager[Worker]:
        """Run ``attempt``; its worker does not outlive the block. Raises `OSError` if it can't be started."""
        ...
