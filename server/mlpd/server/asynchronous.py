"""What asyncio leaves to its users."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_running: set[asyncio.Task[Any]] = set()


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Return what ``work`` returns; it goes on to its end even if the caller is cancelled."""
    task = asyncio.create_task(work)
    _running.add(task)  # the loop alone keeps only a weak reference
    task.add_done_callback(_running.discard)
    return await asyncio.shield(task)
