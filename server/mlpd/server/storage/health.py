"""Whether the disk takes what the server writes."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import structlog
from mlpd.server.disk import trouble_of, waits_seconds
from mlpd.server.errors import StorageTrouble

_logger = structlog.get_logger()


class Storage:
    """Remembers that the disk has refused a write, and finds out when it takes writes again; for one event loop."""

    def __init__(self) -> None:
        self._refused = asyncio.Event()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Raise `StorageTrouble` for what the disk refuses in the block, and remember that it did."""
        try:
            yield
        except StorageTrouble:
            self._refused.set()
            raise
        except OSError as error:
            if trouble := trouble_of(error):
                self._refused.set()
                raise trouble from error
            raise

    async def watch(self, write: Callable[[], Awaitable[None]], tell: Callable[[bool], Awaitable[None]]) -> None:
        """For ever, tell False when the disk has refused something, and True when ``write`` then succeeds."""
        while True:
            await self._refused.wait()
            _logger.error("the disk refuses what is written; trying until it does not")
            await tell(False)
            for seconds in waits_seconds():
                self._refused.clear()
                await asyncio.sleep(seconds)
                try:
                    await write()
                except (StorageTrouble, OSError):
                    continue
                if not self._refused.is_set():
                    break
            _logger.info("the disk takes what is written again")
            await tell(True)
