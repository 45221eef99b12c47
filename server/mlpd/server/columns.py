"""Compares the columns of data sets and models by their names."""

from collections.abc import Sequence

import numpy as np
from mlpd.server.errors import FieldViolation, InvalidRequest
from mlpd.server.names import shown
from numpy.typing import NDArray

_SHOWN_NAMES = 5


def order_of(field: str, found: Sequence[str], wanted: Sequence[str], owner: str) -> NDArray[np.intp] | None:
    """Return the place in ``found`` of each of ``wanted``, the columns of ``owner``; None = in the same order.

    If either side has no names, places count. Raises `InvalidRequest` for ``field`` where one
    side has a name that the other lacks.
    """
    if not found or not wanted or found == wanted:
        return None
    missing, extra = set(wanted) - set(found), set(found) - set(wanted)
    if missing or extra:
        parts = [f"lacks {_listed(missing, wanted)}"] if missing else []
        parts += [f"has also {_listed(extra, found)}"] if extra else []
        text = f"{field} must have the columns of {owner}, but it {' and '.join(parts)}"
        raise InvalidRequest.field(field, text, "COLUMNS_MISMATCH")
    places = {name: place for place, name in enumerate(found)}
    return np.array([places[name] for name in wanted], np.intp)


def check_same(field: str, found: Sequence[str], wanted: Sequence[str], owner: str) -> None:
    """Raise `InvalidRequest` unless ``found`` are ``wanted``, the columns of ``owner``, or either side has no names."""
    order = order_of(field, found, wanted, owner)
    if order is not None:
        place = next(i for i, name in enumerate(wanted) if found[i] != name)
        text = f"{field} must have the columns of {owner} in the same order"
        raise InvalidRequest(
            [FieldViolation(field, f"{text}, got {shown(found[place])} where {shown(wanted[place])} is")],
            "COLUMNS_MISMATCH",
        )


def _listed(names: set[str], order: Sequence[str]) -> str:
    """Return the first of ``names`` as they stand in ``order``, and how many more there are."""
    listed = [shown(name) for name in order if name in names]
    more = f" and {len(listed) - _SHOWN_NAMES} more" if len(listed) > _SHOWN_NAMES else ""
    return ", ".join(listed[:_SHOWN_NAMES]) + more
