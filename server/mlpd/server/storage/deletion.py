"""Deletes rows, each thing in one transaction, unless something needs it; their files go afterwards (`contents`).

What a deleted name stood for is kept, so that no name is ever given to something else: job ids and the numbers of
versions are not used again, a data set's name takes the content that it had, and a request starts no second run.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from mlpd.server.errors import AlreadyExists, DataLoss, NotFound, PreconditionFailed
from mlpd.server.names import dataset_name, job_name, shown, version_name
from mlpd.server.storage import schema
from mlpd.server.storage.inputs import UNENDED, users_of

# They are made anew at every start.
BUILT_IN_DATASETS = frozenset({"mnist-train", "mnist-test"})
_EVENTS_AT_A_TIME = 2000


def delete_dataset(connection: sa.Connection, dataset_id: str) -> str:
    """Delete the data set that is listed as ``dataset_id``, and return the digest of its content.

    Raises `NotFound`, and `PreconditionFailed` for one that is built in, or whose content a job needs.
    """
    table = schema.datasets
    sha256: str | None = connection.execute(sa.select(table.c.sha256).where(table.c.id == dataset_id)).scalar()
    name = dataset_name(dataset_id)
    if sha256 is None:
        raise NotFound("DATASET_NOT_FOUND", f"there is no data set {shown(dataset_id)}", dataset=dataset_id)
    if dataset_id in BUILT_IN_DATASETS:
        raise PreconditionFailed("DATASET_BUILT_IN", f"{name} can't be deleted: it is on every server", dataset=name)
    _require_unused(connection, "DATASET_IN_USE", name, sha256)
    connection.execute(table.delete().where(table.c.id == dataset_id))
    _keep(connection, schema.deleted_datasets, id=dataset_id, sha256=sha256)
    return sha256


def delete_versions(connection: sa.Connection, model_id: str, version: int | None) -> Sequence[str]:
    """Delete a version, None = all of the model, and return the digests of their files.

    Raises `NotFound`, and `PreconditionFailed` where a job goes on from one of them; then none is deleted.
    """
    table, gone = schema.models, schema.deleted_versions
    chosen = table.c.model_id == model_id
    if version is not None:
        chosen &= table.c.version == version
    found = connection.execute(sa.select(table.c.version, table.c.file_sha256).where(chosen)).all()
    if not found:
        name = f"models/{model_id}" if version is None else version_name(model_id, version)
        raise NotFound("MODEL_NOT_FOUND", f"there is no model {shown(name)}", model=name)
    for row in found:
        _require_unused(connection, "MODEL_IN_USE", version_name(model_id, row.version), row.file_sha256)
    numbers = [row.version for row in found if isinstance(row.version, int)]  # others are damaged
    newest = max([newest_deleted(connection, model_id), *numbers])
    connection.execute(table.delete().where(chosen))
    _keep(connection, gone, model_id=model_id, version=newest)
    return [row.file_sha256 for row in found]


def delete_job(connection: sa.Connection, job_id: str) -> None:
    """Delete a job; its log, which nobody can read any more, is left to `delete_events`.

    Raises `NotFound`, and `PreconditionFailed` unless the job has ended.
    """
    jobs, name = schema.jobs, job_name(job_id)
    query = sa.select(jobs.c.number, jobs.c.request_id, jobs.c.request_digest, schema.job_statuses.c.state)
    job = connection.execute(query.join(schema.job_statuses).where(jobs.c.id == job_id)).first()
    if job is None:
        raise NotFound("JOB_NOT_FOUND", f"there is no job {shown(job_id)}", training_job=name)
    if job.state in UNENDED:
        text = f"{name} must have ended to be deleted, it is {job.state}; cancel it first"
        raise PreconditionFailed("JOB_NOT_ENDED", text, training_job=name, state=job.state)
    for table in (schema.job_statuses, schema.job_inputs, jobs):
        connection.execute(table.delete().where(table.c.number == job.number))
    _keep(connection, schema.deleted_jobs, id=job_id, request_id=job.request_id, request_digest=job.request_digest)


def delete_events(connection: sa.Connection, job_id: str) -> bool:
    """Delete the oldest events of a deleted job, as many as others can wait for; return whether there were any."""
    events = schema.events
    own = events.c.job_id == job_id
    first = connection.execute(sa.select(sa.func.min(events.c.sequence)).where(own)).scalar()
    if first is None:
        return False
    connection.execute(events.delete().where(own, events.c.sequence < first + _EVENTS_AT_A_TIME))
    return True


def deleted_jobs_with_events(connection: sa.Connection) -> Sequence[str]:
    """Return the ids of the deleted jobs of whose logs something is left."""
    gone = schema.deleted_jobs.c.id
    left = sa.exists().where(schema.events.c.job_id == gone)
    return connection.execute(sa.select(gone).where(left)).scalars().all()


def newest_deleted(connection: sa.Connection, model_id: str) -> int:
    """Return the number of the newest version of a model that was deleted, 0 if none was; raises `DataLoss`."""
    gone = schema.deleted_versions.c
    newest = connection.execute(sa.select(gone.version).where(gone.model_id == model_id)).scalar() or 0
    if not isinstance(newest, int):
        text = f"the newest deleted version of models/{model_id} can't be read, its record is damaged; use another name"
        raise DataLoss("MODEL_DAMAGED", text, model=f"models/{model_id}", field="version")
    return newest


def require_new_request(connection: sa.Connection, request_id: str | None, digest: str, job_id: str) -> None:
    """Raise `AlreadyExists` where a request id or a job id belongs to a job that was deleted."""
    gone = schema.deleted_jobs
    if request_id is not None:
        job = connection.execute(sa.select(gone).where(gone.c.request_id == request_id)).first()
        if job is not None:
            text = f"request_id {request_id} belongs to {job_name(job.id)}, which was deleted"
            reason = "JOB_DELETED" if job.request_digest == digest else "REQUEST_ID_REUSED"
            raise AlreadyExists(reason, f"{text}; to run it again, choose another", training_job=job_name(job.id))
    if connection.execute(sa.select(gone.c.id).where(gone.c.id == job_id)).first() is not None:
        text = f"training_job_id {shown(job_id)} belongs to a job that was deleted; choose another"
        raise AlreadyExists("JOB_ID_TAKEN", text, training_job=job_name(job_id))


def require_same_content(connection: sa.Connection, dataset_id: str, sha256: str) -> None:
    """Raise `AlreadyExists` where the name of a data set that was deleted stood for other content."""
    gone = schema.deleted_datasets.c
    before = connection.execute(sa.select(gone.sha256).where(gone.id == dataset_id)).scalar()
    if before not in (None, sha256):
        raise AlreadyExists(
            "DATASET_ID_TAKEN",
            f"dataset_id {shown(dataset_id)} held other content (sha256 {before}) until it was deleted, and a name "
            "never moves; choose another name",
            dataset=dataset_name(dataset_id),
        )


def _require_unused(connection: sa.Connection, reason: str, name: str, sha256: str) -> None:
    if users := users_of(connection, sha256):
        listed = ", ".join(users)
        text = f"{name} can't be deleted: jobs that have not ended need it, {listed}; cancel them, or let them end"
        raise PreconditionFailed(reason, text, name=name, training_jobs=listed)


def _keep(connection: sa.Connection, table: sa.Table, **values: Any) -> None:
    """Store a row in place of the one with its key, if there is one."""
    (key,) = table.primary_key.columns
    connection.execute(table.delete().where(key == values[key.name]))
    connection.execute(table.insert().values(values))
