"""What the List calls read: records after a cursor, each with its own cursor, decoded when it is asked for."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

import sqlalchemy as sa
from mlpd.server.names import dataset_name, job_name, version_name
from mlpd.server.records import DatasetRecord, Job, JobState, ModelRecord
from mlpd.server.storage import rows, schema
from mlpd.server.storage.labelling import has_labels
from mlpd.server.storage.store import count_queued

T = TypeVar("T")


@dataclass(frozen=True)
class ChosenJobs:
    """Which jobs are listed: those in one of ``states``, of ``model_id``, with ``labels``; empty or None = any."""

    states: tuple[JobState, ...] = ()
    model_id: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def leave_out_no_queued(self) -> bool:
        """Whether a page that has two queued jobs has all between them."""
        return self.model_id is None and not self.labels

    def chosen(self, query: sa.Select[Any]) -> sa.Select[Any]:
        """Return ``query`` of jobs with their statuses for these alone."""
        if self.states:
            query = query.where(schema.job_statuses.c.state.in_(self.states))
        if self.model_id is not None:
            query = query.where(schema.jobs.c.model_id == self.model_id)
        return query.where(*has_labels(schema.jobs, self.labels))


EVERY_JOB = ChosenJobs()


@dataclass(frozen=True)
class Entry(Generic[T]):
    """What is listed, by its name, with its cursor; ``read`` raises `DataLoss` where its record can't be read."""

    cursor: int | str
    name: str
    read: Callable[[], T]


@dataclass(frozen=True)
class JobEntry(Entry[Job]):
    """A job as it is listed; ``state`` None = can't be read, ``queue_position``: how many are queued before it."""

    state: JobState | None
    queue_position: int


def jobs(
    connection: sa.Connection, before: int | None, limit: int, chosen: ChosenJobs = EVERY_JOB
) -> Iterator[JobEntry]:
    """Yield up to ``limit`` jobs, newest first."""
    last, ahead = None, 0
    for row in connection.execute(_newest(chosen.chosen(rows.JOBS), schema.jobs.c.number, before, limit)):
        position = 0
        if row.state == JobState.QUEUED:
            if last is None:
                ahead = count_queued(connection, 0, row.number)
            else:
                ahead -= 1 if chosen.leave_out_no_queued else count_queued(connection, row.number, last)
            last, position = row.number, ahead
        state = JobState(row.state) if row.state in tuple(JobState) else None
        yield JobEntry(row.number, job_name(row.id), partial(rows.job_from, row), state, position)


def datasets(connection: sa.Connection, after: str, limit: int) -> Iterator[Entry[DatasetRecord]]:
    """Yield up to ``limit`` data sets, by name."""
    table = schema.datasets
    beyond = sa.cast(sa.literal(after.encode(errors="surrogateescape")), sa.Text)
    query = sa.select(*_listed(table)).where(table.c.id > beyond).order_by(table.c.id).limit(limit)
    for row in connection.execute(query):
        # A name that is damaged can't be asked for, but it is listed, and so are those after it.
        cursor = row.id if isinstance(row.id, str) else row.id.decode(errors="surrogateescape")
        yield Entry(cursor, dataset_name(row.id), partial(rows.dataset_from, row))


def models(
    connection: sa.Connection, model_id: str | None, before: int | None, limit: int, labels: Mapping[str, str]
) -> Iterator[Entry[ModelRecord]]:
    """Yield up to ``limit`` versions of one model, None = of all, with ``labels``, newest first."""
    query = _newest(sa.select(*_listed(schema.models)), schema.models.c.number, before, limit)
    if model_id is not None:
        query = query.where(schema.models.c.model_id == model_id)
    for row in connection.execute(query.where(*has_labels(schema.models, labels))):
        yield Entry(row.number, version_name(row.model_id, row.version), partial(rows.model_from, row))


def _newest(query: sa.Select[Any], number: sa.Column[int], before: int | None, limit: int) -> sa.Select[Any]:
    query = query.order_by(number.desc()).limit(limit)
    return query if before is None else query.where(number < before)


def _listed(table: sa.Table) -> list[sa.Column[Any]]:
    """Return all columns but those of names: a thousand entries with a thousand names each would be too much."""
    return [column for column in table.c if column.name not in ("schema", "statistics")]
