"""Records as rows of the tables, and rows as records."""

from collections.abc import Sequence
from dataclasses import fields
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from mlpd.core.codec import from_fields, to_fields
from mlpd.core.spec.training import TrainingSpec
from mlpd.server.errors import DataLoss
from mlpd.server.names import job_name
from mlpd.server.records import DatasetRecord, Event, Job, JobStatus, MetricsRecorded, ModelRecord, Payload
from mlpd.server.storage import schema

_SPECS_KEPT = 16
_MADE_WITH = tuple(field.name for field in fields(Job) if field.name != "status")
_STATUS = tuple(field.name for field in fields(JobStatus))

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
    columns = dict(row._mapping)
    made_with = {name: columns[name] for name in _MADE_WITH}
    return Job(**made_with | {"spec": spec_from(row.id, row.spec)}, status=status_from(row.id, row))


def status_from(job_id: str, row: sa.Row[Any]) -> JobStatus:
    """Return the status of a job in a row that has `STATUS_COLUMNS`; raises `DataLoss` where it can't be read."""
    columns = row._mapping
    try:
        return from_fields(JobStatus, {name: columns[name] for name in _STATUS})
    except (ValueError, TypeError, KeyError) as error:
        raise _damaged("status", job_id) from error


def spec_from(job_id: str, text: str) -> TrainingSpec:
    """Return the spec of a job; raises `DataLoss` where it can't be read."""
    try:
        return _spec_from(text)
    except (ValueError, TypeError, KeyError) as error:
        raise _damaged("spec", job_id) from error


@lru_cache(maxsize=_SPECS_KEPT)
def _spec_from(text: str) -> TrainingSpec:
    return TrainingSpec.from_json(text)


def _damaged(part: str, job_id: str) -> DataLoss:
    name = job_name(job_id)
    text = f"the {part} of {name} can't be read, its record is damaged"
    return DataLoss("JOB_DAMAGED", text, training_job=name)


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
    """Return the event in a row."""
    return Event(row.sequence, row.time, row.attempt, from_fields(Payload, row.payload))


def dataset_from(row: sa.Row[Any]) -> DatasetRecord:
    """Return the data set in a row."""
    return from_fields(DatasetRecord, dict(row._mapping))


def model_from(row: sa.Row[Any]) -> ModelRecord:
    """Return the model version in a row."""
    columns = dict(row._mapping)
    del columns["number"]
    return from_fields(ModelRecord, columns)
