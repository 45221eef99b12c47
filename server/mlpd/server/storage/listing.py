"""What the List calls read: records after a cursor, each with its own cursor, decoded when it is asked for."""

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from mlpd.server.records import DatasetRecord, Job, JobState, ModelRecord
from mlpd.server.storage import rows, schema
from mlpd.server.storage.store import count_ahead


def jobs(connection: sa.Connection, before: int | None, limit: int) -> Iterator[tuple[int, Job, int]]:
    """Yield up to ``limit`` jobs, newest first, each with its cursor and how many are queued before it."""
    ahead = None
    for row in connection.execute(_newest(rows.JOBS, schema.jobs.c.number, before, limit)):
        position = 0
        if row.state == JobState.QUEUED:
            # A page leaves out no queued job between two others, so each has one fewer before it.
            ahead = count_ahead(connection, row.number) if ahead is None else ahead - 1
            position = ahead
        yield row.number, rows.job_from(row), position


def datasets(connection: sa.Connection, after: str, limit: int) -> Iterator[tuple[str, DatasetRecord]]:
    """Yield up to ``limit`` data sets, by name, each with its cursor."""
    table = schema.datasets
    query = sa.select(*_listed(table)).where(table.c.id > after).order_by(table.c.id).limit(limit)
    for row in connection.execute(query):
        yield row.id, rows.dataset_from(row)


def models(
    connection: sa.Connection, model_id: str | None, before: int | None, limit: int
) -> Iterator[tuple[int, ModelRecord]]:
    """Yield up to ``limit`` versions of one model, None = of all, newest first, each with its cursor."""
    query = _newest(sa.select(*_listed(schema.models)), schema.models.c.number, before, limit)
    if model_id is not None:
        query = query.where(schema.models.c.model_id == model_id)
    for row in connection.execute(query):
        yield row.number, rows.model_from(row)


def _newest(query: sa.Select[Any], number: sa.Column[int], before: int | None, limit: int) -> sa.Select[Any]:
    query = query.order_by(number.desc()).limit(limit)
    return query if before is None else query.where(number < before)


def _listed(table: sa.Table) -> list[sa.Column[Any]]:
    """Return all columns but those of names: a thousand entries with a thousand names each would be too much."""
    return [column for column in table.c if column.name not in ("schema", "statistics")]
