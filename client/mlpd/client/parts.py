"""Rows that are sent in several messages: what a refusal says of them, in the caller's own numbers."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from mlpd.client.errors import InvalidRequest


@contextmanager
def refusals_of(part: slice, row_count: int) -> Iterator[None]:
    """Count the rows that a refusal in the block names from the first of all ``row_count``, not of their ``part``."""
    try:
        yield
    except InvalidRequest as error:
        rows = error.metadata.get("rows", "")
        if not re.fullmatch(r"\d+(, \d+)*", rows) or part.stop - part.start >= row_count:
            raise
        own = ", ".join(str(part.start + int(row)) for row in rows.split(", "))
        among = f" among rows {part.start} to {min(part.stop, row_count) - 1}, which are sent together"

        def renumbered(sentence: str) -> str:
            return re.sub(rf"\b(rows?) {rows}\b", rf"\1 {own}", sentence) + among

        fields = {name: renumbered(sentence) for name, sentence in error.fields.items()}
        metadata = error.metadata | {"rows": own}
        raise InvalidRequest(renumbered(error.message), error.reason, fields, metadata) from error.__cause__
