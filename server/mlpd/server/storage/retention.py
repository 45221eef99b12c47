"""Deletes old jobs and versions by an operator's rules, when the server starts and once a day."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import sqlalchemy as sa
import structlog
from mlpd.server.errors import DataLoss, NotFound, PreconditionFailed, StorageTrouble
from mlpd.server.storage import schema
from mlpd.server.storage.catalogue import IS_VERSION
from mlpd.server.storage.housekeeping import Housekeeping
from mlpd.server.storage.inputs import ENDED
from mlpd.server.storage.store import Clock, Store

_logger = structlog.get_logger()
_SECONDS_BETWEEN = 24 * 3600.0
_DAY_NANOSECONDS = 24 * 3600 * 10**9


class Retention:
    """What one server does not keep for ever; None = keep all.

    Jobs go ``jobs_days`` after their end, and versions once their model has ``versions`` newer ones, but not before
    they are ``jobs_days`` old where that is given, too. What is in use stays, and is looked at again the next day.
    """

    def __init__(
        self,
        store: Store,
        housekeeping: Housekeeping,
        jobs_days: int | None,
        versions: int | None,
        clock: Clock = time.time_ns,
    ) -> None:
        self._store = store
        self._housekeeping = housekeeping
        self._jobs_days, self._versions = jobs_days, versions
        self._clock = clock

    async def run(self) -> None:
        """Apply the rules now and once a day, for as long as the server lives."""
        while True:
            await self.apply()
            await asyncio.sleep(_SECONDS_BETWEEN)

    async def apply(self) -> None:
        """Delete what the rules do not keep, one by one; where the disk refuses, the rest waits for the next time."""
        before = self._clock() - (self._jobs_days or 0) * _DAY_NANOSECONDS
        try:
            if self._jobs_days is not None:
                old = await self._found(_jobs_ended(before))
                await self._delete("jobs", [(self._housekeeping.delete_job, row) for row in old])
            if self._versions is not None:
                old = await self._found(_versions_beyond(self._versions, before))
                await self._delete("versions", [(self._housekeeping.delete_versions, row) for row in old])
        except StorageTrouble as error:
            _logger.warning("not all that is old was deleted", why=error.message)

    async def _found(self, query: sa.Select[Any]) -> list[tuple[Any, ...]]:
        return await self._store.read(lambda connection: [tuple(row) for row in connection.execute(query)])

    async def _delete(self, what: str, calls: list[tuple[Callable[..., Awaitable[object]], tuple[Any, ...]]]) -> None:
        count = 0
        for delete, arguments in calls:
            try:
                await delete(*arguments)
                count += 1
            except (NotFound, PreconditionFailed, DataLoss):  # a user was first, or needs it, or its record is damaged
                continue
        if count:
            _logger.info("deleted what is old", what=what, count=count)


def _jobs_ended(before: int) -> sa.Select[Any]:
    statuses = schema.job_statuses.c
    ended = statuses.state.in_(ENDED) & (statuses.end_time < before)
    return sa.select(schema.jobs.c.id).join(schema.job_statuses).where(ended).order_by(schema.jobs.c.number)


def _versions_beyond(count: int, before: int) -> sa.Select[Any]:
    """Return the query for versions published ``before`` a time that have ``count`` newer ones."""
    models = schema.models.c
    place = sa.func.row_number().over(partition_by=models.model_id, order_by=(IS_VERSION.desc(), models.version.desc()))
    ranked = sa.select(models.model_id, models.version, models.create_time, place.label("place")).subquery()
    chosen = (ranked.c.place > count) & (ranked.c.create_time < before)
    return sa.select(ranked.c.model_id, ranked.c.version).where(chosen).order_by(ranked.c.model_id, ranked.c.version)
