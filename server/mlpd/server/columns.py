"""Compares the columns and classes of data sets and models by their names."""

from mlpd.core.data.arrangement import Arrangement, SchemasDiffer, arrangement
from mlpd.core.data.columns import CATEGORY
from mlpd.server.errors import InvalidRequest
from mlpd.server.names import shown
from mlpd.server.records import DatasetRecord, ModelRecord

_REASON = "COLUMNS_MISMATCH"


def arranged(field: str, found: DatasetRecord, wanted: DatasetRecord | ModelRecord, owner: str) -> Arrangement:
    """Return how rows of ``found`` become rows of ``wanted``, whose name is ``owner``, as `arrangement` does.

    Raises `InvalidRequest` for ``field`` where they can't, or where some lack a number that none of ``wanted``'s lacks.
    """
    try:
        how = arrangement(found.schema, wanted.schema, found.class_row_counts)
    except SchemasDiffer as error:
        text = f"{field} must have the {error.what} of {owner}, but it {error}"
        raise InvalidRequest.field(field, text, _REASON) from None
    needed = _never_missing(wanted)
    for column, known in zip(found.schema.columns, found.statistics, strict=True):
        if known.missing_count and column.kind != CATEGORY and column.name in needed:
            text = f"{field} must have a value of {shown(column.name)} in each row, as {owner} has"
            raise InvalidRequest.field(field, f"{text}, got {known.missing_count} rows without", _REASON)
    return how


def _never_missing(wanted: DatasetRecord | ModelRecord) -> set[str]:
    if isinstance(wanted, ModelRecord):
        return {column.name for column in wanted.schema.columns if column.missing_value is None}
    pairs = zip(wanted.schema.columns, wanted.statistics, strict=True)
    return {column.name for column, known in pairs if not known.missing_count}
