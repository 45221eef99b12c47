"""Jobs, their numbered events, data sets and model versions, in SQL.

A job is changed by a pure function from its status and the time to a `Decision`. One transaction reads the status,
decides, and writes the new status with its events, so that no state is without its event. After the commit, and in
commit order, the publisher is given the events.
"""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa
from mlpd.core.codec import to_fields
from mlpd.server.asynchronous import to_the_end
from mlpd.server.errors import AlreadyExists, DataLoss, NotFound, ResourceExhausted
from mlpd.server.names import job_name, shown, version_name
from mlpd.server.record_damage import job_record_damage
from mlpd.server.records import (
    DatasetRecord,
    Decision,
    Event,
    Finished,
    Job,
    JobState,
    JobStatus,
    MetricsRecorded,
    ModelRecord,
    Payload,
    StateChanged,
)
from mlpd.server.storage import catalogue, rows, schema
from mlpd.server.storage.database import Database, Work
from mlpd.server.storage.deletion import require_new_request
from mlpd.server.storage.inputs import store_inputs

T = TypeVar("T")

# Made once, as making one takes longer than running it.
_STATUS_OF_JOB = (
    sa.select(schema.job_statuses.c.number, *rows.STATUS_COLUMNS)
    .join(schema.jobs)
    .where(schema.jobs.c.id == sa.bindparam("job_id"))
)
_LOGGED_METRICS = sa.select(schema.events).where(
    schema.events.c.job_id == sa.bindparam("job_id"),
    schema.events.c.run == sa.bindparam("run"),
    schema.events.c.split == sa.bindparam("split"),
    schema.events.c.step.between(sa.bindparam("first"), sa.bindparam("last")),
)
_LOG_EVENTS = schema.events.insert()


@dataclass(frozen=True)
class LogState:
    """A job's event log: its id, the sequence of its newest event, and whether none can follow that."""

    id: str
    last_sequence: int
    ended: bool


class Clock(Protocol):
    """Tells the time in nanoseconds since 1970, as `time.time_ns` does."""

    def __call__(self) -> int:
        """Return the time."""
        ...


Publisher = Callable[[str, list[Event]], None]
Decide = Callable[[JobStatus, int], Decision]


class Store:
    """What the server knows; methods are for one event loop, and each returns after its change is on disk."""

    def __init__(self, database: Database, publish: Publisher, clock: Clock = time.time_ns) -> None:
        self._database = database
        self._publish = publish
        self._clock = clock

    async def create_job(self, job: Job, queue_limit: int) -> tuple[Job, bool]:
        """Store ``job``, made now, with its first event; return it, or the job of an equal earlier request and True.

        Raises `AlreadyExists` when its request id or its id belongs to another request or a deleted job, `NotFound`
        when what it reads was just deleted, and `ResourceExhausted` when ``queue_limit`` jobs wait already.
        """

        def work(connection: sa.Connection) -> tuple[tuple[Job, bool], list[Event]]:
            if earlier := _find_duplicate(connection, job.request_id, job.request_digest, job.id):
                return (earlier, True), []
            waiting = _count(connection, schema.job_statuses.c.state == JobState.QUEUED)
            if waiting >= queue_limit:
                raise ResourceExhausted(
                    "QUEUE_FULL", f"the queue must hold at most {queue_limit} jobs, {waiting} wait already"
                )
            now = self._clock()
            made = replace(job, create_time=now)
            inserted = connection.execute(schema.jobs.insert().values(rows.job_row(made))).inserted_primary_key
            assert inserted is not None
            store_inputs(connection, inserted[0], job.spec)
            status, events = _logged(connection, job.id, job.status, [StateChanged(None, job.status.state)], now)
            connection.execute(schema.job_statuses.insert().values({"number": inserted[0]} | to_fields(status)))
            return (replace(made, status=status), False), events

        return await self._write_job(job.id, work)

    async def change_job(self, job_id: str, decide: Decide) -> JobStatus:
        """Store what ``decide`` makes of a job's status and the time, with its events, and return the new status.

        Raises `NotFound`, what ``decide`` raises, and `DataLoss` when the record can't be read, or metrics differ from
        those that the log already holds for their step.
        """

        def work(connection: sa.Connection) -> tuple[JobStatus, list[Event]]:
            row = connection.execute(_STATUS_OF_JOB, {"job_id": job_id}).first()
            if row is None:
                raise _no_job(job_id)
            current, now = rows.status_from(job_id, row), self._clock()
            decision = decide(current, now)
            status, payloads = decision.status, decision.payloads
            if decision.published:
                status = replace(status, model_version=_publish_model(connection, job_id, decision.published, now))
                payloads = [
                    replace(p, model_version=status.model_version) if isinstance(p, StateChanged) else p
                    for p in payloads
                ]
            status, events = _logged(connection, job_id, status, payloads, now)
            if changed := rows.changed_columns(current, status):
                table = schema.job_statuses
                connection.execute(table.update().where(table.c.number == row.number).values(changed))
            return status, events

        return await self._write_job(job_id, work)

    async def end_damaged(self, job_id: str, end: Decide) -> JobStatus:
        """Store what ``end`` makes of what is left of a job's status that can't be read, unless that is no event.

        Raises `NotFound`.
        """

        def work(connection: sa.Connection) -> tuple[JobStatus, list[Event]]:
            row = connection.execute(_STATUS_OF_JOB, {"job_id": job_id}).first()
            if row is None:
                raise _no_job(job_id)
            newest = sa.select(sa.func.max(schema.events.c.sequence)).where(schema.events.c.job_id == job_id)
            left = replace(
                rows.what_is_left(job_id, row), last_sequence=connection.execute(newest).scalar() or 0, model_version=""
            )
            now = self._clock()
            decision = end(left, now)
            if not decision.payloads:
                return left, []
            status, events = _logged(connection, job_id, decision.status, decision.payloads, now)
            table = schema.job_statuses
            connection.execute(table.update().where(table.c.number == row.number).values(to_fields(status)))
            return status, events

        return await self._write_job(job_id, work)

    async def _write_job(self, job_id: str, work: Work[tuple[T, list[Event]]]) -> T:
        async def commit_and_publish() -> T:
            answer, events = await self._database.write(work)
            if events:
                self._publish(job_id, events)
            return answer

        return await to_the_end(commit_and_publish())

    async def write(self, work: Work[T]) -> T:
        """Return what ``work``, which changes no job's status, returns, as `Database.write` does."""
        return await self._database.write(work)

    async def read(self, work: Work[T]) -> T:
        """Return what ``work`` returns, in a thread, on a read-only connection."""
        return await self._database.read(work)

    async def job(self, job_id: str) -> Job:
        """Return a job, or raise `NotFound`, or `DataLoss` where its record can't be read."""
        return await self._database.read(lambda connection: _job(connection, job_id))

    async def sound_job(self, job_id: str) -> Job:
        """Return a job as `job` does; raises `DataLoss` also if its spec is not the one that was queued."""

        def work(connection: sa.Connection) -> Job:
            job = _job(connection, job_id)
            if job.spec.digest != job.spec_digest:
                text = f"the spec must be what was queued, of digest {job.spec_digest}"
                raise DataLoss("JOB_DAMAGED", f"{text}; the database holds {job.spec.digest}; train again")
            return job

        return await self._database.read(work)

    async def find_duplicate(self, request_id: str | None, request_digest: str, job_id: str) -> Job | None:
        """Return the job that an earlier, equal request made; raises as `create_job` does for an unequal one."""
        return await self._database.read(lambda c: _find_duplicate(c, request_id, request_digest, job_id))

    async def next_queued(self, count: int, leaving_out: Collection[str]) -> list[str]:
        """Return the ids of the ``count`` oldest queued jobs that are not in ``leaving_out``."""
        query = _ids_where(schema.job_statuses.c.state == JobState.QUEUED).limit(count + len(leaving_out))
        ids = await self._database.read(lambda connection: list(connection.execute(query).scalars()))
        # Chosen here, for a damaged id comes as bytes, which no text equals in SQL.
        return [job_id for job_id in ids if job_id not in leaving_out][:count]

    async def left_running(self) -> list[str]:
        """Return the ids of the jobs whose state says neither that they wait nor that they have ended."""
        states = schema.job_statuses.c.state
        query = _ids_where(states.not_in([state for state in JobState if state.terminal or state is JobState.QUEUED]))
        return await self._database.read(lambda connection: list(connection.execute(query).scalars()))

    async def count_jobs(self, *states: JobState) -> int:
        """Return how many jobs are in one of ``states``."""
        return await self._database.read(lambda c: _count(c, schema.job_statuses.c.state.in_(states)))

    async def queue_position(self, job_id: str) -> int:
        """Return how many queued jobs stand before this one."""
        number = sa.select(schema.jobs.c.number).where(schema.jobs.c.id == job_id).scalar_subquery()
        return await self._database.read(lambda connection: count_queued(connection, 0, number))

    async def events(self, job_id: str, after_sequence: int, limit: int) -> list[Event]:
        """Return up to ``limit`` events of a job with greater sequences, in order; raises `NotFound`."""
        table = schema.events
        query = (
            sa.select(table)
            .where(table.c.job_id == job_id, table.c.sequence > after_sequence)
            .order_by(table.c.sequence)
            .limit(limit)
        )

        def work(connection: sa.Connection) -> list[Event]:
            if not _is_there(connection, job_id):
                raise _no_job(job_id)  # and what may be left of its log has gaps
            return [rows.event_from(row) for row in connection.execute(query)]

        return await self._database.replay(work)

    async def log_state(self, job_id: str) -> LogState:
        """Return where a job's log stands, or raise `NotFound`."""
        statuses, jobs = schema.job_statuses.c, schema.jobs.c
        query: sa.Select[Any] = sa.select(jobs.log_id, statuses.state, statuses.last_sequence).join(schema.jobs)
        query = query.where(jobs.id == job_id)
        row = await self._database.replay(lambda connection: connection.execute(query).first())
        if row is None:
            raise _no_job(job_id)
        log_id, last_sequence, state = rows.log_from(job_id, row)
        return LogState(log_id, last_sequence, state.terminal)

    async def create_dataset(self, record: DatasetRecord, *, built_in: bool = False) -> DatasetRecord:
        """Store a data set's record and return the stored one; raises as `catalogue.create_dataset`."""
        return await self._database.write(partial(catalogue.create_dataset, record=record, built_in=built_in))

    async def dataset(self, dataset_id: str) -> DatasetRecord:
        """Return the data set called ``dataset_id``, or with the content ``sha256-{hex}``.

        Raises `NotFound`, or `DataLoss` where its record can't be read.
        """
        return await self._database.read(partial(catalogue.dataset, dataset_id=dataset_id))

    async def model(self, model_id: str, version: int | None) -> ModelRecord:
        """Return a model version, the newest one for None; raises as `dataset`."""
        return await self._database.read(partial(catalogue.model, model_id=model_id, version=version))


def _ids_where(condition: sa.ColumnElement[bool]) -> sa.Select[Any]:
    numbers = schema.job_statuses.c.number
    return sa.select(schema.jobs.c.id).join(schema.job_statuses).where(condition).order_by(numbers)


def _find_duplicate(connection: sa.Connection, request_id: str | None, request_digest: str, job_id: str) -> Job | None:
    if request_id is not None:
        row = connection.execute(rows.JOBS.where(schema.jobs.c.request_id == request_id)).first()
        if row is not None:
            earlier = rows.job_from(row)
            if earlier.request_digest == request_digest:
                return earlier
            raise AlreadyExists(
                "REQUEST_ID_REUSED",
                f"request_id {request_id} belongs to another request, that of {job_name(earlier.id)}",
                training_job=job_name(earlier.id),
                original_digest=earlier.request_digest,
            )
    if _is_there(connection, job_id):
        raise AlreadyExists("JOB_ID_TAKEN", f"training_job_id {shown(job_id)} is taken", training_job=job_name(job_id))
    require_new_request(connection, request_id, request_digest, job_id)
    return None


def _logged(
    connection: sa.Connection, job_id: str, status: JobStatus, payloads: Sequence[Payload], now: int
) -> tuple[JobStatus, list[Event]]:
    """Log ``payloads`` but for metrics that the log already holds; return the status after that and the events."""
    known = _known_metrics(connection, job_id, status.run, [p for p in payloads if isinstance(p, MetricsRecorded)])
    sequence, events = status.last_sequence, list[Event]()
    for payload in payloads:
        if isinstance(payload, MetricsRecorded) and not _is_first(payload, known):
            continue
        sequence += 1
        events.append(Event(sequence, now, status.attempt, payload))
    if events:
        connection.execute(_LOG_EVENTS, rows.event_rows(job_id, status.run, events))
    return replace(status, last_sequence=sequence), events


_Known = dict[tuple[str, int], MetricsRecorded]


def _known_metrics(connection: sa.Connection, job_id: str, run: int, metrics: Sequence[MetricsRecorded]) -> _Known:
    """Return what the log holds for the splits and steps of ``metrics``: nothing unless they are computed again."""
    known: _Known = {}
    for split in {own.split for own in metrics}:
        steps = [own.progress.step for own in metrics if own.split == split]
        chosen = {"job_id": job_id, "run": run, "split": split, "first": min(steps), "last": max(steps)}
        for row in connection.execute(_LOGGED_METRICS, chosen):
            known[split, row.step] = rows.event_from(row).payload  # type: ignore[assignment]  # it has a split
    return known


def _is_first(metrics: MetricsRecorded, known: _Known) -> bool:
    """Return whether ``metrics`` are new, and add them to ``known``; raises `DataLoss` if they contradict it."""
    logged = known.setdefault((metrics.split, metrics.progress.step), metrics)
    if not metrics.repeats(logged):
        raise DataLoss(
            "REPLAY_MISMATCH",
            f"step {metrics.progress.step} was computed again with another result: "
            f"{metrics.split} loss {metrics.loss!r}, the log says {logged.loss!r}",
        )
    return logged is metrics


def _publish_model(connection: sa.Connection, job_id: str, finished: Finished, now: int) -> str:
    """Store the model version that a job has made, and return its name."""
    jobs, table = schema.jobs.c, schema.models
    query = sa.select(jobs.model_id, jobs.spec, jobs.labels).where(jobs.id == job_id)
    job = connection.execute(query).one()
    spec = rows.spec_from(job_id, job.spec)
    record = ModelRecord(
        model_id=job.model_id,
        version=catalogue.next_version(connection, job.model_id),
        file_sha256=finished.model_sha256,
        parameters_sha256=finished.parameters_sha256,
        job_id=job_id,
        spec=spec.model,
        task=spec.task,
        loss=spec.loss.kind.name,
        optimizer=spec.optimizer.kind,
        parameter_count=finished.parameter_count,
        input_size=len(finished.schema.columns) or spec.model.layer_sizes[0],
        create_time=now,
        schema=finished.schema,
        labels=rows.labels_from(job.labels, partial(job_record_damage, job_id)),
    )
    connection.execute(table.insert().values(to_fields(record)))
    return version_name(record.model_id, record.version)


def _count(connection: sa.Connection, where: sa.ColumnElement[bool]) -> int:
    query = sa.select(sa.func.count()).select_from(schema.job_statuses).where(where)
    count: int = connection.execute(query).scalar_one()
    return count


def _is_there(connection: sa.Connection, job_id: str) -> bool:
    return connection.execute(sa.select(schema.jobs.c.id).where(schema.jobs.c.id == job_id)).first() is not None


def _job(connection: sa.Connection, job_id: str) -> Job:
    row = connection.execute(rows.JOBS.where(schema.jobs.c.id == job_id)).first()
    if row is None:
        raise _no_job(job_id)
    return rows.job_from(row)


def count_queued(connection: sa.Connection, first: int, stop: int | sa.ScalarSelect[int]) -> int:
    """Return how many jobs with numbers from ``first`` to below ``stop`` are queued."""
    statuses = schema.job_statuses.c
    chosen = (statuses.state == JobState.QUEUED) & (statuses.number >= first) & (statuses.number < stop)
    return _count(connection, chosen)


def _no_job(job_id: str) -> NotFound:
    return NotFound("JOB_NOT_FOUND", f"there is no job {shown(job_id)}", training_job=job_name(job_id))
