"""Follows the event logs of jobs: replay, then the new ones as they are committed.

A follower is a cursor, not a queue: a slow one costs nothing, and nothing waits for it.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from weakref import WeakValueDictionary

from mlpd.server.errors import Unavailable
from mlpd.server.records import Event

_REPLAY_EVENTS = 512
_TAIL_EVENTS = 256

Read = Callable[[str, int, int], Awaitable[list[Event]]]


class _Feed:
    """The newest events of a job that someone follows, so that many followers cost one read."""

    def __init__(self) -> None:
        self.tail: deque[Event] = deque(maxlen=_TAIL_EVENTS)
        self.changed = asyncio.Event()

    def wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    def after(self, sequence: int) -> list[Event] | None:
        """Return the events after ``sequence``, or None if the tail does not reach back so far."""
        if not self.tail or self.tail[0].sequence > sequence + 1:
            return None
        return [event for event in self.tail if event.sequence > sequence]


class EventLog:
    """Every job's events, for one event loop."""

    def __init__(self) -> None:
        self._feeds: WeakValueDictionary[str, _Feed] = WeakValueDictionary()
        self._closed = False

    def publish(self, job_id: str, events: list[Event]) -> None:
        """Wake the followers of a job whose ``events`` have just been committed."""
        feed = self._feeds.get(job_id)
        if feed is None:
            return
        if feed.tail and feed.tail[-1].sequence + 1 != events[0].sequence:
            feed.tail.clear()
        feed.tail.extend(events)
        feed.wake()

    def close(self) -> None:
        """End every follower with `Unavailable`."""
        self._closed = True
        for feed in list(self._feeds.values()):
            feed.wake()

    async def follow(
        self, read: Read, job_id: str, after_sequence: int, heartbeat_seconds: float
    ) -> AsyncIterator[Event | None]:
        """Yield a job's events after the cursor, each once and in order, up to its terminal one.

        ``read(job_id, after_sequence, limit)`` returns stored events. None is yielded after every
        ``heartbeat_seconds`` of silence. Raises `Unavailable` when the server drains.
        """
        feed = self._feeds.setdefault(job_id, _Feed())
        while True:
            changed = feed.changed  # taken before looking, so that nothing is missed between look and wait
            events = feed.after(after_sequence)
            if events is None:
                events = await read(job_id, after_sequence, _REPLAY_EVENTS)
            for event in events:
                yield event
                after_sequence = event.sequence
                if event.terminal:
                    return
            if self._closed:
                raise Unavailable("DRAINING", "the server is shutting down; follow again when it is back")
            if not events:
                try:
                    await asyncio.wait_for(changed.wait(), heartbeat_seconds)
                except TimeoutError:
                    yield None
