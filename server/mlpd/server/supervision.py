"""Watches the parts that must run for as long as the server: when one ends, it is logged and the process ends.

It ends at once, as by ``kill -9``: nothing acknowledged is lost by that, and a drain would wait for the lost part.
"""

import asyncio
import os
from collections.abc import Callable
from functools import partial, wraps
from typing import Any, NoReturn, ParamSpec, TypeVar

import structlog

_logger = structlog.get_logger()
_EXIT_STATUS = 70  # EX_SOFTWARE of sysexits.h

P = ParamSpec("P")
T = TypeVar("T")


class Supervisor:
    """The parts of one server, for its event loop."""

    def __init__(self) -> None:
        self._parts: list[asyncio.Future[Any]] = []
        self._released = False

    def watch(self, name: str, part: "asyncio.Future[Any]") -> None:
        """End the process when ``part`` ends, in whatever way."""
        self._parts.append(part)
        part.add_done_callback(partial(self._ended, name))

    def vital(self, name: str, call: Callable[P, T]) -> Callable[P, T]:
        """Return ``call`` so that an exception in it ends the process."""

        @wraps(call)
        def watched(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return call(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 - a part that has failed once is not to be trusted
                _end(name, error)

        return watched

    def release(self) -> None:
        """Cancel the parts; that they end no longer ends the process."""
        self._released = True
        for part in self._parts:
            part.cancel()

    def _ended(self, name: str, part: "asyncio.Future[Any]") -> None:
        if not self._released:
            _end(name, None if part.cancelled() else part.exception())


def _end(name: str, error: BaseException | None) -> NoReturn:
    try:
        _logger.critical("a part of the server has ended, and the server ends with it", part=name, exc_info=error)
    finally:
        os._exit(_EXIT_STATUS)
