"""Workers at hand: one while none works, taken by the next attempt, and none left behind."""

import asyncio
import os
import signal

import pytest
from mlpd.server.executors.attempt import Attempt
from mlpd.server.executors.process import ProcessExecutor

from ..system.processes import children_of, workers_among

SECONDS = 60


def run(use):
    async def main():
        async with asyncio.timeout(SECONDS):
            await use()

    asyncio.run(main())
    assert workers() == []


def workers():
    return workers_among(children_of(os.getpid()))


async def at_hand():
    while not (found := workers()):  # noqa: ASYNC110 - it lies in the kernel
        await asyncio.sleep(0.001)
    (pid,) = found
    return pid


class Nothing(Attempt):
    """An attempt that a worker can't read, so that it ends at once."""

    def __init__(self):
        pass

    def to_line(self):
        return b"{}\n"


def test_an_attempt_takes_the_worker_at_hand_and_leaves_another():
    async def use():
        async with ProcessExecutor() as executor:
            first = await at_hand()
            async with executor.start(Nothing()):
                assert workers() == [first]
                async with executor.start(Nothing()):
                    assert len(workers()) == 2
            assert await at_hand() != first

    run(use)


def test_a_worker_at_hand_that_was_killed_is_replaced():
    async def use():
        async with ProcessExecutor() as executor:
            first = await at_hand()
            os.kill(first, signal.SIGKILL)
            async with executor.start(Nothing()) as worker:  # which may not have been told yet
                assert await worker.ending() in ("was killed by SIGKILL", "exited with status 1")
            async with executor.start(Nothing()) as worker:
                assert await worker.ending() == "exited with status 1"

    run(use)


def test_without_a_block_of_its_own_an_executor_has_none_at_hand():
    async def use():
        async with ProcessExecutor().start(Nothing()):
            assert len(workers()) == 1

    run(use)


def test_a_worker_that_can_not_be_started_is_an_error_of_its_attempt(monkeypatch):
    async def use():
        monkeypatch.setattr("sys.executable", "/nowhere/python")
        async with ProcessExecutor() as executor:
            with pytest.raises(OSError, match="nowhere"):
                async with executor.start(Nothing()):
                    pass

    run(use)
