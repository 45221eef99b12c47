"""Followers of event logs: each gets every event once and in order, and however many they are, they cost little."""

import asyncio
import random

import pytest
from mlpd.server.errors import NotFound
from mlpd.server.jobs.events import EventLog
from mlpd.server.records import Event, JobState, MessageLogged, StateChanged

QUIET_SECONDS = 60.0


class Log:
    """A job's stored events, and how often someone has read of them."""

    def __init__(self, size, ended=True):
        self.events = [Event(i + 1, 0, 1, MessageLogged("INFO", "")) for i in range(size)]
        if ended:
            self.end()
        self.reads = 0
        self.deleted = False

    def add(self):
        self.events.append(Event(len(self.events) + 1, 0, 1, MessageLogged("INFO", "")))
        return self.events[-1:]

    def end(self):
        self.events.append(Event(len(self.events) + 1, 0, 1, StateChanged(JobState.RUNNING, JobState.SUCCEEDED)))
        return self.events[-1:]

    async def read(self, job_id, after_sequence, limit):
        if self.deleted:
            raise NotFound("JOB_NOT_FOUND", "there is no such job")
        self.reads += 1
        found = self.events[after_sequence : after_sequence + limit]
        await asyncio.sleep(0)
        return found


def new_feeds() -> EventLog[int]:
    return EventLog()


def follow(feeds, log, after=0, heartbeat_seconds=QUIET_SECONDS):
    return feeds.follow(log.read, lambda event: event.sequence, "job", after, heartbeat_seconds)


async def followed(feeds, log, after=0):
    return [entry.message async for entry in follow(feeds, log, after) if entry]


@pytest.mark.parametrize("size", [0, 1, 62, 63, 64, 65, 1000])
def test_a_log_is_replayed_from_any_cursor(size):
    async def replay():
        for after in {0, 1, size // 2, size - 1, size} - {-1}:
            if after <= size:
                assert await followed(new_feeds(), Log(size), after) == list(range(after + 1, size + 2))

    asyncio.run(replay())


def test_a_log_in_which_nothing_happens_is_read_once():
    async def wait():
        log = Log(3, ended=False)
        items = follow(new_feeds(), log, heartbeat_seconds=0.001)
        seen = [await anext(items) for _ in range(23)]
        assert [entry.message for entry in seen if entry] == [1, 2, 3]
        assert log.reads == 1

    asyncio.run(wait())


def test_followers_of_a_job_share_what_is_read():
    async def replay():
        feeds, log = new_feeds(), Log(299)
        assert await asyncio.gather(*(followed(feeds, log) for _ in range(20))) == [list(range(1, 301))] * 20
        assert log.reads < 20

    asyncio.run(replay())


@pytest.mark.parametrize("seed", range(20))
def test_no_event_is_missed_or_told_twice_while_events_come_in(seed):
    draw = random.Random(seed)

    async def run():
        feeds, log = new_feeds(), Log(draw.randrange(200), ended=False)
        cursors = [draw.randint(0, len(log.events)) for _ in range(20)]
        followers = [asyncio.create_task(followed(feeds, log, cursor)) for cursor in cursors]
        pending = []
        for _ in range(400):
            if draw.random() < 0.3:
                pending.append(log.add())
            while pending and draw.random() < 0.3:  # told some time after they can be read
                feeds.publish("job", pending.pop(0))
            await asyncio.sleep(0)
        for events in [*pending, log.end()]:
            feeds.publish("job", events)
        async with asyncio.timeout(30):
            assert await asyncio.gather(*followers) == [
                list(range(cursor + 1, len(log.events) + 1)) for cursor in cursors
            ]

    asyncio.run(run())


@pytest.mark.parametrize("seed", range(20))
def test_followers_of_a_job_that_is_deleted_are_told_or_have_all(seed):
    draw = random.Random(seed)

    async def one(feeds, log, after, told):
        async for entry in follow(feeds, log, after):
            assert entry is not None
            told.append(entry.message)

    async def run():
        feeds, log = new_feeds(), Log(draw.randrange(300))
        cursors = [draw.randrange(len(log.events)) for _ in range(20)]
        told = [list[int]() for _ in cursors]
        followers = []
        for cursor, own in zip(cursors, told, strict=True):
            followers.append(asyncio.create_task(one(feeds, log, cursor, own)))
            if draw.random() < 0.1:
                log.deleted = True
                feeds.forget("job")
            await asyncio.sleep(0)
        log.deleted = True
        feeds.forget("job")
        async with asyncio.timeout(30):
            ends = await asyncio.gather(*followers, return_exceptions=True)
        for cursor, own, end in zip(cursors, told, ends, strict=True):
            assert own == list(range(cursor + 1, cursor + 1 + len(own)))
            assert isinstance(end, NotFound) if end else cursor + len(own) == len(log.events)

    asyncio.run(run())


def test_many_followers_leave_half_of_the_time_to_others():
    async def run():
        feeds, log = new_feeds(), Log(20)
        cycle, told = 0, list[int]()

        async def watch():
            nonlocal cycle
            while True:
                cycle += 1
                await asyncio.sleep(0)

        async def one():
            told.extend([cycle async for _ in follow(feeds, log)])

        watching = asyncio.create_task(watch())
        await asyncio.gather(*(one() for _ in range(200)))
        watching.cancel()
        assert len(told) == 200 * 21
        assert max(told.count(number) for number in set(told)) <= 32

    asyncio.run(run())


def test_a_failed_read_is_the_followers_error_and_tried_again_by_the_next():
    async def run():
        feeds, log = new_feeds(), Log(5)

        async def broken(*_):
            raise OSError("the disk")

        with pytest.raises(OSError, match="the disk"):
            await anext(feeds.follow(broken, lambda event: event.sequence, "job", 0, QUIET_SECONDS))
        assert await followed(feeds, log) == [1, 2, 3, 4, 5, 6]

    asyncio.run(run())
