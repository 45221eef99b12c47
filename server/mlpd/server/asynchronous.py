"""What asyncio leaves to its users."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")

_running: set[asyncio.Task[Any]] = set()


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Return what ``work`` returns; it goes on to its end even if the caller is cancelled."""
    task = asyncio.create_task(work)
    _running.add(task)  # the loop alone keeps only a weak reference
    task.add_done_callback(_running.discard)
    return await asyncio.shield(task)


class BoundedThreads:
    """Threads for work that may be given up but not ended: at most so many, each for one piece; for one event loop.

    Work that goes on for ever costs its place, and nothing else: neither the threads of others nor the process's end.
    """

    def __init__(self, thread_count: int) -> None:
        self._free = asyncio.Semaphore(thread_count)

    async def run(self, work: Callable[[], T], limit_seconds: float) -> T:
        """Return what ``work`` returns or raise what it raises; raises `TimeoutError` for what takes longer."""
        async with asyncio.timeout(limit_seconds):
            await self._free.acquire()
            loop = asyncio.get_running_loop()
            answer: asyncio.Future[T] = loop.create_future()

            def ended(outcome: Callable[[], None]) -> None:
                self._free.release()
                if not answer.done():
                    outcome()

            def do() -> None:
                outcome: Callable[[], None]
                try:
                    outcome = partial(answer.set_result, work())
                except Exception as error:  # noqa: BLE001 - it is raised where the work was asked for
                    outcome = partial(answer.set_exception, error)
                with suppress(RuntimeError):  # the loop has been closed
                    loop.call_soon_threadsafe(ended, outcome)

            try:
                threading.Thread(target=do, name="bounded", daemon=True).start()
            except RuntimeError:  # the system has no thread left
                self._free.release()
                raise
            return await answer
