"""Changes labels and notes of jobs and model versions, and finds what has them; by a transaction's connection."""

from collections.abc import Mapping

import sqlalchemy as sa
from mlpd.server.errors import NotFound
from mlpd.server.labels import LabelChange
from mlpd.server.names import job_name, shown, version_name
from mlpd.server.storage import schema


def label_job(connection: sa.Connection, job_id: str, change: LabelChange) -> None:
    """Change a job's labels and note; raises `NotFound`, or `InvalidRequest` for too many labels."""
    if not _change(connection, schema.jobs, schema.jobs.c.id == job_id, change):
        raise NotFound("JOB_NOT_FOUND", f"there is no job {shown(job_id)}", training_job=job_name(job_id))


def label_version(connection: sa.Connection, model_id: str, version: int, change: LabelChange) -> None:
    """Change a version's labels and note; raises `NotFound`, or `InvalidRequest` for too many labels."""
    own = (schema.models.c.model_id == model_id) & (schema.models.c.version == version)
    if not _change(connection, schema.models, own, change):
        name = version_name(model_id, version)
        raise NotFound("MODEL_NOT_FOUND", f"there is no model {shown(name)}", model=name)


def has_labels(table: sa.Table, labels: Mapping[str, str]) -> list[sa.ColumnElement[bool]]:
    """Return the conditions that a row of ``table`` has all of ``labels``, whose keys keep their rule."""
    return [table.c.labels[key].as_string() == value for key, value in labels.items()]


def _change(connection: sa.Connection, table: sa.Table, own: sa.ColumnElement[bool], change: LabelChange) -> bool:
    """Return whether there is a row to change."""
    row = connection.execute(sa.select(table.c.labels, table.c.note).where(own)).first()
    if row is None:
        return False
    labels, note = change.applied(row.labels, row.note)
    connection.execute(table.update().where(own).values(labels=labels, note=note))
    return True
