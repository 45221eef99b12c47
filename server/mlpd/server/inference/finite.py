"""Refuses requests with rows for which a model computes numbers that are not finite: such rows have no answer.

The request is at fault, not the server: a model version never changes, so only other rows can have an answer.
"""

from math import isfinite

from mlpd.core.models.metrics import Counts, FaultyRows
from mlpd.core.models.scores import Scores
from mlpd.server.errors import InvalidRequest
from mlpd.server.names import version_name
from mlpd.server.records import ModelRecord

_REASON = "OUTPUT_NOT_FINITE"


def check_predicted(field: str, record: ModelRecord, faulty: FaultyRows) -> None:
    """Raise `InvalidRequest` for ``field``, naming the first ``faulty`` rows, if there are any."""
    _check_rows(field, "outputs", record, faulty)


def check_evaluated(field: str, record: ModelRecord, counts: Counts, scores: Scores | None) -> None:
    """Raise `InvalidRequest` if the loss of a row of ``field``, their mean, or one of ``scores`` is not finite."""
    _check_rows(field, "outputs and losses", record, counts.faulty)
    if not isfinite(counts.loss):
        text = f"{field} must have a finite mean loss by {_name(record)}, got {counts.loss}"
        raise InvalidRequest.field(field, text, _REASON)
    values = scores.values if scores else {}
    if wrong := {name: value for name, value in values.items() if not isfinite(value)}:
        got = ", ".join(f"{name} {value}" for name, value in wrong.items())
        text = f"include_scores must be unset where a score is not finite, got {got}"
        raise InvalidRequest.field("include_scores", text, _REASON)


def _check_rows(field: str, what: str, record: ModelRecord, faulty: FaultyRows) -> None:
    if not faulty.count:
        return
    rows = ", ".join(map(str, faulty.first))
    where = f"row {rows}" if faulty.count == 1 else f"rows {rows} ({faulty.count} such rows)"
    text = f"{field} must give finite {what} by {_name(record)}, got others at {where}"
    raise InvalidRequest.field(field, text, _REASON, rows=rows)


def _name(record: ModelRecord) -> str:
    return version_name(record.model_id, record.version)
