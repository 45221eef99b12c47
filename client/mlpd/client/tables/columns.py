"""`Column`: what a column of a table holds, here, in a data set's file and on the wire."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mlpd.v1 import types_pb2 as types


@dataclass(frozen=True)
class Column:
    """A column's name and kind: "number", "boolean", "category" or "date"; a category has ``categories``."""

    name: str
    kind: str = "number"
    categories: tuple[str, ...] = ()

    def fields(self) -> dict[str, Any]:
        """Return the column as a data set's file has it."""
        own = {"categories": list(self.categories)} if self.kind == "category" else {}
        return {"name": self.name, "kind": self.kind, **own}


def columns_from(messages: Iterable[types.Column]) -> tuple[Column, ...]:
    """Return the columns of a data set or model version."""
    return tuple(
        Column(message.name, types.Column.Kind.Name(message.kind).removeprefix("KIND_").lower(), (*message.categories,))
        for message in messages
    )
