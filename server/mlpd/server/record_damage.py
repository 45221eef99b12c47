"""What is said of records in the database that can't be read: the field, and what can be done about it."""

from functools import lru_cache

import structlog
from mlpd.server.errors import DataLoss
from mlpd.server.names import dataset_name, job_name, version_name

_logger = structlog.get_logger()
_SENTENCES_KEPT = 1024

# What it raises to read a damaged value, or to say it.
UNREADABLE = ValueError, TypeError, KeyError, OverflowError


def job_record_damage(job_id: str, field: str) -> DataLoss:
    """Return the error of a job of whose record ``field`` can't be read."""
    name = job_name(job_id)
    return DataLoss("JOB_DAMAGED", _record_damage(name, field, "train again"), training_job=name, field=field)


def dataset_record_damage(dataset_id: str, field: str) -> DataLoss:
    """Return the error of a data set of whose record ``field`` can't be read."""
    name = dataset_name(dataset_id)
    text = _record_damage(name, field, "upload the same content again")
    return DataLoss("DATASET_DAMAGED", text, dataset=name, field=field)


def model_record_damage(model_id: str, version: int, field: str) -> DataLoss:
    """Return the error of a model version of whose record ``field`` can't be read."""
    name = version_name(model_id, version)
    return DataLoss("MODEL_DAMAGED", _record_damage(name, field, "train it again"), model=name, field=field)


@lru_cache(maxsize=_SENTENCES_KEPT)
def _record_damage(name: str, field: str, remedy: str) -> str:
    """Return a sentence, which is logged when it is first said, and not whenever someone lists what is there."""
    text = f"the {field} of {name} can't be read, its record is damaged; {remedy}"
    _logger.error("a record is damaged", found=text)
    return text
