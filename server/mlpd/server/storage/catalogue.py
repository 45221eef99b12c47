"""Records of data sets and model versions, by a transaction's connection."""

from contextlib import suppress

import sqlalchemy as sa
from mlpd.core.codec import to_fields
from mlpd.server.errors import AlreadyExists, DataLoss, NotFound
from mlpd.server.names import shown, version_name
from mlpd.server.records import DatasetRecord, ModelRecord
from mlpd.server.storage import rows, schema
from mlpd.server.storage.deletion import newest_deleted, require_same_content

# A version's number, unless that is damaged; in SQLite each cell has a type of its own.
IS_VERSION = sa.func.typeof(schema.models.c.version) == "integer"


def create_dataset(connection: sa.Connection, record: DatasetRecord, *, built_in: bool) -> DatasetRecord:
    """Store a data set's record unless it is there with the same name and content; return the stored one.

    One that can't be read is replaced, as its content tells all that was lost; so is one of other content that stands
    under the name of what is ``built_in``. Raises `AlreadyExists` where the name has other content.
    """
    table = schema.datasets
    row = connection.execute(sa.select(table).where(table.c.id == record.id)).first()
    if row is None:
        require_same_content(connection, record.id, record.sha256)
        connection.execute(table.insert().values(to_fields(record)))
        return record
    if row.sha256 != record.sha256 and not built_in:
        raise AlreadyExists(
            "DATASET_ID_TAKEN",
            f"dataset_id {shown(record.id)} holds other content (sha256 {row.sha256}); choose another name",
            dataset=f"datasets/{record.id}",
        )
    if row.sha256 == record.sha256:
        with suppress(DataLoss):
            return rows.dataset_from(row)
    connection.execute(table.update().where(table.c.id == record.id).values(to_fields(record)))
    return record


def dataset(connection: sa.Connection, dataset_id: str) -> DatasetRecord:
    """Return the data set called ``dataset_id``, or with the content ``sha256-{hex}``.

    Raises `NotFound`, or `DataLoss` where its record can't be read.
    """
    table = schema.datasets
    by_content = table.c.sha256 == dataset_id.removeprefix("sha256-")
    query = sa.select(table).where(sa.or_(table.c.id == dataset_id, by_content)).order_by(table.c.id != dataset_id)
    row = connection.execute(query).first()
    if row is None:
        raise NotFound("DATASET_NOT_FOUND", f"there is no data set {shown(dataset_id)}", dataset=dataset_id)
    return rows.dataset_from(row)


def model(connection: sa.Connection, model_id: str, version: int | None) -> ModelRecord:
    """Return a model version, the newest one for None; raises as `dataset`."""
    table = schema.models
    query = sa.select(table).where(table.c.model_id == model_id).order_by(IS_VERSION.desc(), table.c.version.desc())
    if version is not None:
        query = query.where(table.c.version == version)
    row = connection.execute(query.limit(1)).first()
    if row is None:
        name = f"models/{model_id}" if version is None else version_name(model_id, version)
        raise NotFound("MODEL_NOT_FOUND", f"there is no model {shown(name)}", model=name)
    return rows.model_from(row)


def next_version(connection: sa.Connection, model_id: str) -> int:
    """Return the number of a model's next version, which none had before, deleted or damaged; raises `DataLoss`."""
    table = schema.models
    own = sa.select(sa.func.coalesce(sa.func.max(table.c.version), 0)).where(table.c.model_id == model_id, IS_VERSION)
    newest: int = connection.execute(own).scalar_one()
    damaged = sa.select(sa.func.count()).where(table.c.model_id == model_id, sa.not_(IS_VERSION))
    # Each that can't be read may have had one of the numbers after those that can be.
    lost: int = connection.execute(damaged).scalar_one()
    return max(newest + lost, newest_deleted(connection, model_id)) + 1
