"""Work that may never end: it keeps its own few places, and lets everything else go on."""

import asyncio
import subprocess
import sys
import threading

import pytest
from mlpd.server.asynchronous import BoundedThreads

from ..conftest import ENVIRONMENT

SECONDS = 60


def test_work_that_does_not_end_costs_its_place_alone_and_gives_it_back_when_it_does():
    release, started = threading.Event(), []

    def endless():
        started.append(threading.current_thread())
        release.wait()

    async def use():
        threads = BoundedThreads(2)
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await threads.run(endless, 0.01)
        # Both places are taken: more are given up before they begin, and have no thread.
        for _ in range(20):
            with pytest.raises(TimeoutError):
                await threads.run(endless, 0.001)
        assert len(started) == 2
        assert await asyncio.gather(*(asyncio.to_thread(lambda: 1) for _ in range(50))) == [1] * 50
        waiting = asyncio.create_task(threads.run(lambda: 2, SECONDS))
        release.set()
        assert await waiting == 2

    asyncio.run(use())


def test_results_and_errors_come_back():
    async def use():
        threads = BoundedThreads(1)
        assert await threads.run(lambda: 3, SECONDS) == 3
        with pytest.raises(ZeroDivisionError):
            await threads.run(lambda: 1 // 0, SECONDS)
        for _ in range(3):  # who no longer waits gives the place back
            task = asyncio.create_task(threads.run(lambda: 4, SECONDS))
            await asyncio.sleep(0)
            task.cancel()
        assert await threads.run(lambda: 5, SECONDS) == 5

    asyncio.run(use())


ENDLESS = """
import asyncio, threading
from mlpd.server.asynchronous import BoundedThreads

async def use():
    try:
        await BoundedThreads(1).run(threading.Event().wait, 0.01)
    except TimeoutError:
        print("given up")

asyncio.run(use())
"""


def test_a_process_ends_without_what_does_not():
    done = subprocess.run(
        [sys.executable, "-c", ENDLESS], env=ENVIRONMENT, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert (done.returncode, done.stdout) == (0, "given up\n"), done.stderr
