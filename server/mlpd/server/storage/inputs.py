"""What a job reads: the contents of its data sets and of the model that it goes on from, each named by a row.

A job is stored only while all its inputs are named, and what a job that has not ended reads is not deleted. Both are
checked in the transaction that makes the change, so what a queued or running job needs is always there.
"""

from collections.abc import Iterator

import sqlalchemy as sa
from mlpd.core.spec.training import TrainingSpec
from mlpd.server.errors import NotFound
from mlpd.server.names import job_name
from mlpd.server.records import JobState
from mlpd.server.storage import schema

_USERS_TOLD = 5
UNENDED = tuple(state for state in JobState if not state.terminal)
ENDED = tuple(state for state in JobState if state.terminal)


def store_inputs(connection: sa.Connection, number: int, spec: TrainingSpec) -> None:
    """Store what the job of this ``number`` reads; raises `NotFound` for what was deleted after its spec was made."""
    found = set()
    for name, sha256, column in _inputs_of(spec):
        if connection.execute(sa.select(column).where(column == sha256).limit(1)).first() is None:
            kind = "MODEL" if column.table is schema.models else "DATASET"
            raise NotFound(f"{kind}_NOT_FOUND", f"{name} must be there when the job is queued; it was just deleted")
        found.add(sha256)
    connection.execute(schema.job_inputs.insert(), [{"number": number, "sha256": sha256} for sha256 in found])


def users_of(connection: sa.Connection, sha256: str) -> list[str]:
    """Return the names of the first few jobs that have not ended and read this content."""
    query = (
        sa.select(schema.jobs.c.id)
        .join(schema.job_inputs)
        .join(schema.job_statuses)
        .where(schema.job_inputs.c.sha256 == sha256, schema.job_statuses.c.state.in_(UNENDED))
        .order_by(schema.jobs.c.number)
        .limit(_USERS_TOLD)
    )
    return [job_name(job_id) for job_id in connection.execute(query).scalars()]


def _inputs_of(spec: TrainingSpec) -> Iterator[tuple[str, str, sa.Column[str]]]:
    """Yield the name and the content of each input, and the column of the rows that name such contents."""
    yield spec.train_dataset, spec.train_sha256, schema.datasets.c.sha256
    if spec.validation.sha256:
        yield spec.validation.dataset, spec.validation.sha256, schema.datasets.c.sha256
    if spec.test.sha256:
        yield spec.test.dataset, spec.test.sha256, schema.datasets.c.sha256
    if spec.warm_start:
        yield spec.warm_start.model, spec.warm_start.sha256, schema.models.c.file_sha256
