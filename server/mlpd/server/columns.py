"""Compares the columns and classes of data sets and models by their names."""

from mlpd.core.data.arrangement import Arrangement, SchemasDiffer, arrangement
from mlpd.server.errors import InvalidRequest
from mlpd.server.records import DatasetRecord, ModelRecord

_REASON = "COLUMNS_MISMATCH"


def arranged(field: str, found: DatasetRecord, wanted: DatasetRecord | ModelRecord, owner: str) -> Arrangement:
    """Return how rows of ``found`` become rows of ``wanted``, whose name is ``owner``, as `arrangement` does.

    Raises `InvalidRequest` for ``field`` where they can't.
    """
    try:
        how = arrangement(found.schema, wanted.schema, found.class_row_counts)
    except SchemasDiffer as error:
        text = f"{field} must have the {error.what} of {owner}, but it {error}"
        raise InvalidRequest.field(field, text, _REASON) from None
    if not wanted.schema.columns and any(known.missing_count for known in found.statistics):
        text = f"{field} must have a value everywhere for {owner}, whose columns have no names, got some missing"
        raise InvalidRequest.field(field, text, _REASON)
    return how
