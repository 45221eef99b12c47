"""Follows the event logs of jobs: stored events first, then new ones as they are committed.

A follower is a cursor, not a queue: a slow one costs nothing, and nothing waits for it. The followers of a job share
encoded events: the job's newest, and the pages of older ones that were asked for last.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

from mlpd.server.errors import NotFound, Unavailable
from mlpd.server.names import job_name
from mlpd.server.records import Event

_PAGE_EVENTS = 64
_PAGES_KEPT = 64
_TAIL_EVENTS = 256
_TURNS = 16

T = TypeVar("T")
Read = Callable[[str, int, int], Awaitable[list[Event]]]


@dataclass(frozen=True, slots=True)
class Entry(Generic[T]):
    """An event as followers get it: ``message`` is the encoded event; after a ``terminal`` one none comes."""

    sequence: int
    terminal: bool
    message: T


class _Feed(Generic[T]):
    """The newest events of a job that has followers; ``encode`` turns an event into the message they get."""

    def __init__(self, encode: Callable[[Event], T]) -> None:
        self._encode = encode
        self._tail: deque[Entry[T]] = deque(maxlen=_TAIL_EVENTS)
        self._newest: int | None = None  # sequence of the newest event, None = unknown; later ones will be published
        self.changed = asyncio.Event()
        self.deleted = False

    def entries(self, events: list[Event]) -> list[Entry[T]]:
        return [Entry(event.sequence, event.terminal, self._encode(event)) for event in events]

    def publish(self, events: list[Event]) -> None:
        if self._tail and self._tail[-1].sequence + 1 != events[0].sequence:
            self._tail.clear()
        self._tail.extend(self.entries(events))
        self.reached(events[-1].sequence)
        self.wake()

    def reached(self, sequence: int) -> None:
        """Note that the log goes as far as ``sequence``: all later events are still to be published."""
        self._newest = max(self._newest or 0, sequence)

    def wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    def after(self, sequence: int) -> list[Entry[T]] | None:
        """Return the entries after ``sequence``, or None if they must be read from the store."""
        if self._newest is not None and sequence >= self._newest:
            return []
        if self._tail and self._tail[0].sequence <= sequence + 1 <= self._tail[-1].sequence:
            return [self._tail[-i] for i in range(self._tail[-1].sequence - sequence, 0, -1)]
        return None


class _Turns:
    """Lets a few followers go on in each round, first come, first served.

    While more wait, each round is followed by a pause as long, which leaves half of the time to the rest of the server.
    """

    def __init__(self) -> None:
        self._left = _TURNS
        self._began: float | None = None
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def wait(self) -> None:
        loop = asyncio.get_running_loop()
        if self._began is None:
            self._began = loop.time()
            loop.call_soon(self._end_round)
        if self._left:
            self._left -= 1
            return
        self._waiting.append(loop.create_future())
        await self._waiting[-1]

    def _end_round(self) -> None:
        loop = asyncio.get_running_loop()
        assert self._began is not None
        if self._waiting:
            loop.call_later(loop.time() - self._began, self._begin_round)
        else:
            self._left, self._began = _TURNS, None

    def _begin_round(self) -> None:
        loop = asyncio.get_running_loop()
        self._left, self._began = _TURNS, loop.time()
        while self._waiting and self._left:
            turn = self._waiting.popleft()
            if not turn.done():  # else its follower has gone
                turn.set_result(None)
                self._left -= 1
        loop.call_soon(self._end_round)


class EventLog(Generic[T]):
    """The followers of all jobs, and what they share; for one event loop."""

    def __init__(self) -> None:
        self._feeds: WeakValueDictionary[str, _Feed[T]] = WeakValueDictionary()
        self._pages: OrderedDict[tuple[str, int], asyncio.Task[list[Entry[T]]]] = OrderedDict()
        self._turns = _Turns()
        self._closed = False

    def publish(self, job_id: str, events: list[Event]) -> None:
        """Hand a job's followers its next ``events``, which have just been committed."""
        if feed := self._feeds.get(job_id):
            feed.publish(events)

    def forget(self, job_id: str) -> None:
        """End the followers of a job that was deleted, with `NotFound`."""
        for key in [key for key in self._pages if key[0] == job_id]:
            del self._pages[key]
        if feed := self._feeds.get(job_id):
            feed.deleted = True
            feed.wake()

    def close(self) -> None:
        """End every follower, present or later, with `Unavailable`, after the events at hand."""
        self._closed = True
        for feed in list(self._feeds.values()):
            feed.wake()

    async def follow(
        self, read: Read, encode: Callable[[Event], T], job_id: str, after_sequence: int, heartbeat_seconds: float
    ) -> AsyncIterator[Entry[T] | None]:
        """Yield a job's events after ``after_sequence``, each once and in order, up to the terminal one.

        ``read(job_id, after_sequence, limit)`` returns stored events; ``encode`` turns an event into the message that
        all followers of the job get. Yields None after every ``heartbeat_seconds`` of silence. Raises `NotFound` once
        the job is deleted, as ``read`` has to, `Unavailable` when the server drains, and what ``read`` raises.
        """
        feed = self._feeds.setdefault(job_id, _Feed(encode))
        while True:
            changed = feed.changed  # taken before looking, so that nothing is missed between look and wait
            entries = feed.after(after_sequence)
            if entries is None:
                entries = await self._page(feed, read, job_id, after_sequence)
            for entry in entries:
                await self._turns.wait()
                yield entry
                after_sequence = entry.sequence
                if entry.terminal:
                    return
            if feed.deleted:
                raise NotFound("JOB_NOT_FOUND", f"{job_name(job_id)} was deleted", training_job=job_name(job_id))
            if self._closed:
                raise Unavailable("DRAINING", "the server is shutting down; follow again when it is back")
            if not entries:
                try:
                    async with asyncio.timeout(heartbeat_seconds):
                        await changed.wait()
                except TimeoutError:
                    await self._turns.wait()
                    yield None

    async def _page(self, feed: _Feed[T], read: Read, job_id: str, after_sequence: int) -> list[Entry[T]]:
        """Return the entries after the cursor in its page of the log; all who want a page share one read of it."""
        start = after_sequence // _PAGE_EVENTS * _PAGE_EVENTS
        key = job_id, start
        if key not in self._pages:
            self._pages[key] = asyncio.create_task(self._read_page(feed, read, job_id, start))
        self._pages.move_to_end(key)
        while len(self._pages) > _PAGES_KEPT:
            self._pages.popitem(last=False)
        entries = await asyncio.shield(self._pages[key])
        return entries[after_sequence - start :]

    async def _read_page(self, feed: _Feed[T], read: Read, job_id: str, start: int) -> list[Entry[T]]:
        entries: list[Entry[T]] = []
        try:
            events = await read(job_id, start, _PAGE_EVENTS)
            entries = feed.entries(events)
            if len(events) < _PAGE_EVENTS:
                feed.reached(start + len(events))
            return entries
        finally:
            if len(entries) < _PAGE_EVENTS:  # not full: whoever asks next must read it again
                self._pages.pop((job_id, start), None)
