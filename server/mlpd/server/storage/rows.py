"""Records as rows of the tables, and rows as records."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from functools import cache, lru_cache, partial
from typing import Any, get_type_hints

import sqlalchemy as sa
from mlpd.core.codec import from_fields, to_fields
from mlpd.core.data_types import DATA_TYPES
from mlpd.core.network.losses import LOSSES
from mlpd.core.network.tasks import TASKS
from mlpd.core.spec.training import TrainingSpec
from mlpd.server.errors import DataLoss
from mlpd.server.record_damage import UNREADABLE, dataset_record_damage, job_record_damage, model_record_damage
from mlpd.server.records import (
    DatasetRecord,
    Event,
    Job,
    JobState,
    JobStatus,
    MetricsRecorded,
    ModelRecord,
    Progress,
)
from mlpd.server.storage import schema

_SPECS_KEPT = 16
# Texts that are only sound if the program knows them.
_KNOWN: dict[str, Collection[str]] = {"task": TASKS, "loss": LOSSES, "dtype": DATA_TYPES, "target_dtype": DATA_TYPES}

Damaged = Callable[[str], DataLoss]

_MADE_WITH = tuple(field.name for field in fields(Job) if field.name != "status")
_REQUEST = tuple(name for name in _MADE_WITH if name != "spec")
_STATUS = tuple(field.name for field in fields(JobStatus))
_EVENT = tuple(field.name for field in fields(Event))

STATUS_COLUMNS = tuple(schema.job_statuses.c[name] for name in _STATUS)
# Every job with its status.
JOBS = sa.select(schema.jobs, *STATUS_COLUMNS).join(schema.job_statuses)


def job_row(job: Job) -> dict[str, Any]:
    """Return a job's row in ``jobs``: all of it but its status."""
    return {name: getattr(job, name) for name in _MADE_WITH} | {"spec": job.spec.to_json()}


def changed_columns(before: JobStatus, after: JobStatus) -> dict[str, Any]:
    """Return the columns in which two statuses differ, with the values of ``after``."""
    pairs = ((name, getattr(before, name), getattr(after, name)) for name in _STATUS)
    return {name: to_fields(new) for name, old, new in pairs if new != old}


def job_from(row: sa.Row[Any]) -> Job:
    """Return the job in a row of `JOBS`; raises `DataLoss` where it can't be read."""
    made_with = _read(Job, dict(row._mapping), _REQUEST, partial(job_record_damage, row.id))
    return Job(**made_with, spec=spec_from(row.id, row.spec), status=status_from(row.id, row))


def status_from(job_id: str, row: sa.Row[Any]) -> JobStatus:
    """Return the status of a job in a row that has `STATUS_COLUMNS`; raises `DataLoss` where it can't be read."""
    return JobStatus(**_read(JobStatus, dict(row._mapping), _STATUS, partial(job_record_damage, job_id)))


def what_is_left(job_id: str, row: sa.Row[Any]) -> JobStatus:
    """Return `status_from`, but for each field that can't be read what a new job has."""
    columns = dict(row._mapping)
    values: dict[str, Any] = {"state": JobState.QUEUED, "progress": Progress(0, 0, 0, 0)}
    for name in _STATUS:
        with suppress(DataLoss):
            values |= _read(JobStatus, columns, [name], partial(job_record_damage, job_id))
    return JobStatus(**values)


def log_from(job_id: str, row: sa.Row[Any]) -> tuple[str, int, JobState]:
    """Return the id of a job's log, the sequence of its newest event, and the job's state; raises `DataLoss`."""
    columns, damaged = dict(row._mapping), partial(job_record_damage, job_id)
    status = _read(JobStatus, columns, ["last_sequence", "state"], damaged)
    return _read(Job, columns, ["log_id"], damaged)["log_id"], status["last_sequence"], status["state"]


def spec_from(job_id: str, text: str) -> TrainingSpec:
    """Return the spec of a job; raises `DataLoss` where it can't be read."""
    try:
        return _spec_from(text)
    except UNREADABLE as error:
        raise job_record_damage(job_id, "spec") from error


@lru_cache(maxsize=_SPECS_KEPT)
def _spec_from(text: str) -> TrainingSpec:
    return TrainingSpec.from_json(text)


def labels_from(labels: Any, damaged: Damaged) -> dict[str, str]:
    """Return ``labels`` of a row; raises what ``damaged`` makes of their column's name."""
    known: dict[str, str] = _read(Job, {"labels": labels}, ["labels"], damaged)["labels"]
    return known


def note_from(note: Any, damaged: Damaged) -> str:
    """Return ``note`` of a row, as `labels_from` does labels."""
    known: str = _read(Job, {"note": note}, ["note"], damaged)["note"]
    return known


def _read(kind: Any, columns: Mapping[str, Any], names: Iterable[str], damaged: Damaged) -> dict[str, Any]:
    """Return the fields ``names`` of a ``kind``, in columns of these names; raises what ``damaged`` makes of a name."""
    hints = _hints(kind)
    values = {}
    for name in names:
        try:
            values[name] = from_fields(hints[name], columns[name])
            if name in _KNOWN and values[name] not in _KNOWN[name]:
                raise ValueError(f"{name} must be known, got {values[name]!r:.80}")
        except UNREADABLE as error:
            raise damaged(name) from error
    return values


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def event_rows(job_id: str, run: int, events: Sequence[Event]) -> list[dict[str, Any]]:
    """Return the rows of ``events`` that belong to ``run`` of a job."""
    return [_event_row(job_id, run, event) for event in events]


def _event_row(job_id: str, run: int, event: Event) -> dict[str, Any]:
    payload = event.payload
    metrics = payload if isinstance(payload, MetricsRecorded) else None
    return {
        "job_id": job_id,
        "sequence": event.sequence,
        "time": event.time,
        "attempt": event.attempt,
        "run": run,
        "payload": to_fields(payload),
        "split": metrics and metrics.split,
        "step": metrics and metrics.progress.step,
    }


def event_from(row: sa.Row[Any]) -> Event:
    """Return the event in a row; raises `DataLoss` where it can't be read."""
    return Event(
        **_read(Event, dict(row._mapping), _EVENT, lambda _: job_record_damage(row.job_id, f"event {row.sequence}"))
    )


def dataset_from(row: sa.Row[Any]) -> DatasetRecord:
    """Return the data set in a row; raises `DataLoss` where it can't be read."""
    columns = dict(row._mapping)
    return DatasetRecord(**_read(DatasetRecord, columns, columns, partial(dataset_record_damage, row.id)))


def model_from(row: sa.Row[Any]) -> ModelRecord:
    """Return the model version in a row; raises `DataLoss` where it can't be read."""
    columns = dict(row._mapping)
    del columns["number"]
    return ModelRecord(**_read(ModelRecord, columns, columns, partial(model_record_damage, row.model_id, row.version)))
