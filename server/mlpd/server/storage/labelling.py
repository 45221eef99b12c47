"""Changes labels and notes of jobs and model versions, and finds what has them; by a transaction's connection."""

from collections.abc import Mapping
from functools import partial

import sqlalchemy as sa
from mlpd.server.errors import NotFound
from mlpd.server.labels import LabelChange
from mlpd.server.names import job_name, shown, version_name
from mlpd.server.record_damage import job_record_damage, model_record_damage
from mlpd.server.storage import rows, schema


def label_job(connection: sa.Connection, job_id: str, change: LabelChange) -> None:
    """Change a job's labels and note; raises `NotFound`, `InvalidRequest` for too many labels, or `DataLoss`."""
    damaged = partial(job_record_damage, job_id)
    if not _change(connection, schema.jobs, schema.jobs.c.id == job_id, change, damaged):
        raise NotFound("JOB_NOT_FOUND", f"there is no job {shown(job_id)}", training_job=job_name(job_id))


def label_version(connection: sa.Connection, model_id: str, version: int, change: LabelChange) -> None:
    """Change a version's labels and note; raises `NotFound`, `InvalidRequest` for too many labels, or `DataLoss`."""
    own = (schema.models.c.model_id == model_id) & (schema.models.c.version == version)
    damaged = partial(model_record_damage, model_id, version)
    if not _change(connection, schema.models, own, change, damaged):
        name = version_name(model_id, version)
        raise NotFound("MODEL_NOT_FOUND", f"there is no model {shown(name)}", model=name)


def has_labels(table: sa.Table, labels: Mapping[str, str]) -> list[sa.ColumnElement[bool]]:
    """Return the conditions that a row of ``table`` has all of ``labels``, whose keys keep their rule."""
    # To look into what is no JSON would be an error of the whole query.
    return [
        sa.case((sa.func.json_valid(table.c.labels), table.c.labels[key].as_string() == value), else_=sa.false())
        for key, value in labels.items()
    ]


def _change(
    connection: sa.Connection, table: sa.Table, own: sa.ColumnElement[bool], change: LabelChange, damaged: rows.Damaged
) -> bool:
    """Return whether there is a row to change; what is damaged need not be read where it is replaced as a whole."""
    row = connection.execute(sa.select(table.c.labels, table.c.note).where(own)).first()
    if row is None:
        return False
    labels = {} if "labels" in change.paths else rows.labels_from(row.labels, damaged)
    labels, note = change.applied(labels, "" if "note" in change.paths else rows.note_from(row.note, damaged))
    connection.execute(table.update().where(own).values(labels=labels, note=note))
    return True
