"""Jobs, their numbered events, data sets and model versions, in SQL.

A change of a job is a pure function from the job to a `Decision`; it is read, decided and written with
its events in one transaction, so a state and the event that tells of it never part. Events are handed to
the publisher in commit order, after the commit.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from typing import Any, TypeVar

import sqlalchemy as sa
from mlpd.core.codec import from_fields, to_fields
from mlpd.core.network.architecture import ModelSpec
from mlpd.core.spec.training import TrainingSpec
from mlpd.server.asynchronous import to_the_end
from mlpd.server.errors import AlreadyExists, DataLoss, NotFound, ResourceExhausted
from mlpd.server.names import job_name, shown, version_name
from mlpd.server.records import (
    CheckpointSaved,
    DatasetRecord,
    Decision,
    Event,
    Failure,
    Job,
    JobState,
    MetricsRecorded,
    ModelRecord,
    Payload,
    Progress,
    Publication,
    StateChanged,
)
from mlpd.server.storage import schema
from mlpd.server.storage.database import Database, Work

T = TypeVar("T")

_SPECS_KEPT = 16
# What a job is made with, and keeps.
_FIXED_COLUMNS = frozenset(
    {"id", "request_id", "request_digest", "model_id", "log_id", "spec", "spec_digest", "memory_bytes", "create_time"}
)


@dataclass(frozen=True)
class LogState:
    """Which log a job's events are in, its newest event, and whether that is the last."""

    id: str
    last_sequence: int
    ended: bool


Publisher = Callable[[str, list[Event]], None]
Decide = Callable[[Job], Decision]


class Store:
    """What the server knows; methods are for one event loop, and each returns after its change is on disk."""

    def __init__(self, database: Database, publish: Publisher) -> None:
        self._database = database
        self._publish = publish

    async def create_job(self, job: Job, queue_limit: int) -> tuple[Job, bool]:
        """Store ``job`` with its first event; return the stored job and whether it was there already.

        Raises `AlreadyExists` when its request id or its id belongs to another request, and
        `ResourceExhausted` when ``queue_limit`` jobs wait already.
        """

        def work(connection: sa.Connection) -> tuple[Job, list[Event], bool]:
            if earlier := _find_duplicate(connection, job.request_id, job.request_digest, job.id):
                return earlier, [], True
            waiting = _count(connection, schema.jobs, schema.jobs.c.state == JobState.QUEUED)
            if waiting >= queue_limit:
                raise ResourceExhausted(
                    "QUEUE_FULL", f"the queue must hold at most {queue_limit} jobs, {waiting} wait already"
                )
            connection.execute(schema.jobs.insert().values(_job_row(job) | {"spec": job.spec.to_json()}))
            stored, events = _append(connection, job, [StateChanged(None, job.state)])
            return stored, events, False

        return await self._write_job(work)

    async def change_job(self, job_id: str, decide: Decide) -> Job:
        """Replace the job by what ``decide`` makes of it, with its events, and return it as stored.

        Raises `NotFound`, whatever ``decide`` raises, and `DataLoss` when metrics differ from those the
        log already holds for their step.
        """

        def work(connection: sa.Connection) -> tuple[Job, list[Event], bool]:
            current = _job(connection, job_id)
            decision = decide(current)
            if decision.job is current and not decision.payloads:
                return current, [], False
            job = decision.job
            payloads = list(decision.payloads)
            if decision.publication:
                job = replace(job, model_version=_publish_model(connection, job, decision.publication))
                payloads = [
                    replace(p, model_version=job.model_version) if isinstance(p, StateChanged) else p for p in payloads
                ]
            return *_append(connection, job, payloads), False

        job, _ = await self._write_job(work)
        return job

    async def _write_job(self, work: Callable[[sa.Connection], tuple[Job, list[Event], bool]]) -> tuple[Job, bool]:
        async def commit_and_publish() -> tuple[Job, bool]:
            job, events, known = await self._database.write(work)
            if events:
                self._publish(job.id, events)
            return job, known

        return await to_the_end(commit_and_publish())

    async def read(self, work: Work[T]) -> T:
        """Return what ``work``, in a thread, makes of what is stored."""
        return await self._database.read(work)

    async def job(self, job_id: str) -> Job:
        """Return a job, or raise `NotFound`."""
        return await self._database.read(lambda connection: _job(connection, job_id))

    async def find_duplicate(self, request_id: str | None, request_digest: str, job_id: str) -> Job | None:
        """Return the job that an earlier, equal request made; raises as `create_job` does for an unequal one."""
        return await self._database.read(lambda c: _find_duplicate(c, request_id, request_digest, job_id))

    async def job_ids_in(self, *states: JobState, limit: int | None = None) -> list[str]:
        """Return the ids of the jobs in one of ``states``, oldest first, the first ``limit`` of them."""
        table = schema.jobs
        query = sa.select(table.c.id).where(table.c.state.in_(states)).order_by(table.c.number).limit(limit)
        return await self._database.read(lambda connection: list(connection.execute(query).scalars()))

    async def count_jobs(self, *states: JobState) -> int:
        """Return how many jobs are in one of ``states``."""
        return await self._database.read(lambda c: _count(c, schema.jobs, schema.jobs.c.state.in_(states)))

    async def queue_position(self, job_id: str) -> int:
        """Return how many queued jobs stand before this one."""
        number = sa.select(schema.jobs.c.number).where(schema.jobs.c.id == job_id).scalar_subquery()
        return await self._database.read(lambda connection: count_ahead(connection, number))

    async def events(self, job_id: str, after_sequence: int, limit: int) -> list[Event]:
        """Return up to ``limit`` events of a job with greater sequences, in order."""
        table = schema.events
        query = (
            sa.select(table)
            .where(table.c.job_id == job_id, table.c.sequence > after_sequence)
            .order_by(table.c.sequence)
            .limit(limit)
        )
        return await self._database.replay(lambda connection: [_event_from(row) for row in connection.execute(query)])

    async def log_state(self, job_id: str) -> LogState:
        """Return where a job's log stands, or raise `NotFound`."""
        table = schema.jobs
        query = sa.select(table.c.log_id, table.c.state, table.c.last_sequence).where(table.c.id == job_id)
        row = await self._database.replay(lambda connection: connection.execute(query).first())
        if row is None:
            raise _no_job(job_id)
        return LogState(row.log_id, row.last_sequence, JobState(row.state).terminal)

    async def create_dataset(self, record: DatasetRecord) -> DatasetRecord:
        """Store a data set's record; the same content under the same name is the record already there."""

        def work(connection: sa.Connection) -> DatasetRecord:
            row = connection.execute(sa.select(schema.datasets).where(schema.datasets.c.id == record.id)).first()
            if row is None:
                connection.execute(schema.datasets.insert().values(asdict(record)))
                return record
            known = dataset_from(row)
            if known.sha256 != record.sha256:
                raise AlreadyExists(
                    "DATASET_ID_TAKEN",
                    f"dataset_id {shown(record.id)} holds other content (sha256 {known.sha256}); choose another name",
                    dataset=f"datasets/{record.id}",
                )
            return known

        return await self._database.write(work)

    async def dataset(self, dataset_id: str) -> DatasetRecord:
        """Return the data set called ``dataset_id``, or that with the content ``sha256-{hex}``."""
        table = schema.datasets
        by_content = table.c.sha256 == dataset_id.removeprefix("sha256-")
        query = sa.select(table).where(sa.or_(table.c.id == dataset_id, by_content)).order_by(table.c.id != dataset_id)
        row = await self._database.read(lambda connection: connection.execute(query).first())
        if row is None:
            raise NotFound("DATASET_NOT_FOUND", f"there is no data set {shown(dataset_id)}", dataset=dataset_id)
        return dataset_from(row)

    async def model(self, model_id: str, version: int | None) -> ModelRecord:
        """Return a model version, the newest one for None, or raise `NotFound`."""
        table = schema.models
        query = sa.select(table).where(table.c.model_id == model_id).order_by(table.c.version.desc())
        if version is not None:
            query = query.where(table.c.version == version)
        row = await self._database.read(lambda connection: connection.execute(query.limit(1)).first())
        if row is None:
            name = f"models/{model_id}" if version is None else version_name(model_id, version)
            raise NotFound("MODEL_NOT_FOUND", f"there is no model {shown(name)}", model=name)
        return model_from(row)


def _find_duplicate(connection: sa.Connection, request_id: str | None, request_digest: str, job_id: str) -> Job | None:
    table = schema.jobs
    if request_id is not None:
        row = connection.execute(sa.select(table).where(table.c.request_id == request_id)).first()
        if row is not None:
            earlier = job_from(row)
            if earlier.request_digest == request_digest:
                return earlier
            raise AlreadyExists(
                "REQUEST_ID_REUSED",
                f"request_id {request_id} belongs to another request, that of {job_name(earlier.id)}",
                training_job=job_name(earlier.id),
                original_digest=earlier.request_digest,
            )
    if connection.execute(sa.select(table.c.id).where(table.c.id == job_id)).first() is not None:
        raise AlreadyExists("JOB_ID_TAKEN", f"training_job_id {shown(job_id)} is taken", training_job=job_name(job_id))
    return None


def _append(connection: sa.Connection, job: Job, payloads: Sequence[Payload]) -> tuple[Job, list[Event]]:
    now = time.time_ns()
    events = []
    for payload in payloads:
        if isinstance(payload, MetricsRecorded) and _replayed(connection, job, payload):
            continue
        job = replace(job, last_sequence=job.last_sequence + 1)
        event = Event(job.last_sequence, now, job.attempt, payload)
        events.append(event)
        connection.execute(schema.events.insert().values(_event_row(job, event)))
    changed = {name: value for name, value in _job_row(job).items() if name not in _FIXED_COLUMNS}
    connection.execute(schema.jobs.update().where(schema.jobs.c.id == job.id).values(changed))
    return job, events


def _replayed(connection: sa.Connection, job: Job, metrics: MetricsRecorded) -> bool:
    table = schema.events
    of_run = (table.c.job_id == job.id) & (table.c.run == job.run)
    row = connection.execute(
        sa.select(table).where(of_run, table.c.split == metrics.split, table.c.step == metrics.progress.step)
    ).first()
    if row is None:
        return False
    logged = _event_from(row).payload
    assert isinstance(logged, MetricsRecorded)
    if not metrics.repeats(logged):
        raise DataLoss(
            "REPLAY_MISMATCH",
            f"step {metrics.progress.step} was computed again with another result: "
            f"{metrics.split} loss {metrics.loss!r}, the log says {logged.loss!r}",
        )
    return True


def _publish_model(connection: sa.Connection, job: Job, publication: Publication) -> str:
    table = schema.models
    newest = connection.execute(
        sa.select(sa.func.coalesce(sa.func.max(table.c.version), 0)).where(table.c.model_id == job.model_id)
    ).scalar_one()
    record = ModelRecord(
        model_id=job.model_id,
        version=newest + 1,
        job_id=job.id,
        create_time=time.time_ns(),
        input_names=_input_names(connection, job.spec),
        **{field.name: getattr(publication, field.name) for field in fields(publication)},
    )
    connection.execute(table.insert().values(asdict(record)))
    return version_name(record.model_id, record.version)


def _input_names(connection: sa.Connection, spec: TrainingSpec) -> tuple[str, ...]:
    """Return the names that the training data give a model's inputs, else those of the model it goes on from."""
    names = sa.select(schema.datasets.c.input_names).where(schema.datasets.c.sha256 == spec.train_sha256).limit(1)
    found = connection.execute(names).scalar()
    if not found and spec.warm_start:
        names = sa.select(schema.models.c.input_names).where(schema.models.c.file_sha256 == spec.warm_start.sha256)
        found = connection.execute(names.limit(1)).scalar()
    return tuple(found or ())


def _count(connection: sa.Connection, table: sa.Table, where: sa.ColumnElement[bool]) -> int:
    count: int = connection.execute(sa.select(sa.func.count()).select_from(table).where(where)).scalar_one()
    return count


def _job(connection: sa.Connection, job_id: str) -> Job:
    row = connection.execute(sa.select(schema.jobs).where(schema.jobs.c.id == job_id)).first()
    if row is None:
        raise _no_job(job_id)
    return job_from(row)


def count_ahead(connection: sa.Connection, number: int | sa.ScalarSelect[int]) -> int:
    """Return how many jobs are queued before that of a ``number``."""
    return _count(connection, schema.jobs, (schema.jobs.c.state == JobState.QUEUED) & (schema.jobs.c.number < number))


def _no_job(job_id: str) -> NotFound:
    return NotFound("JOB_NOT_FOUND", f"there is no job {shown(job_id)}", training_job=job_name(job_id))


def _job_row(job: Job) -> dict[str, Any]:
    """Return the columns of a job but for its spec, which takes the longest by far and never changes."""
    return {field.name: to_fields(getattr(job, field.name)) for field in fields(job) if field.name != "spec"}


@lru_cache(maxsize=_SPECS_KEPT)
def _spec_from(text: str) -> TrainingSpec:
    return TrainingSpec.from_json(text)


def job_from(row: sa.Row[Any]) -> Job:
    """Return the job in a row."""
    columns = dict(row._mapping)
    del columns["number"]
    try:
        spec = _spec_from(columns["spec"])
    except (ValueError, TypeError, KeyError) as error:
        name = job_name(columns["id"])
        text = f"the spec of {name} can't be read, its record is damaged"
        raise DataLoss("JOB_DAMAGED", text, training_job=name) from error
    return Job(
        **columns
        | {
            "spec": spec,
            "state": JobState(columns["state"]),
            "progress": Progress(**columns["progress"]),
            "checkpoints": tuple(from_fields(CheckpointSaved, saved) for saved in columns["checkpoints"]),
            "failure": columns["failure"] and from_fields(Failure, columns["failure"]),
        }
    )


def _event_row(job: Job, event: Event) -> dict[str, Any]:
    payload = event.payload
    metrics = payload if isinstance(payload, MetricsRecorded) else None
    return {
        "job_id": job.id,
        "sequence": event.sequence,
        "time": event.time,
        "attempt": event.attempt,
        "run": job.run,
        "payload": to_fields(payload),
        "split": metrics and metrics.split,
        "step": metrics and metrics.progress.step,
    }


def _event_from(row: sa.Row[Any]) -> Event:
    return Event(row.sequence, row.time, row.attempt, from_fields(Payload, row.payload))


def dataset_from(row: sa.Row[Any]) -> DatasetRecord:
    """Return the data set in a row."""
    columns = dict(row._mapping)
    lists = ("class_row_counts", "target_range", "input_range", "input_names")
    return DatasetRecord(**columns | {name: tuple(columns[name]) for name in lists if name in columns})


def model_from(row: sa.Row[Any]) -> ModelRecord:
    """Return the model version in a row."""
    columns = dict(row._mapping)
    del columns["number"]
    own = {"spec": from_fields(ModelSpec, columns["spec"]), "input_names": tuple(columns.get("input_names", ()))}
    return ModelRecord(**columns | own)
