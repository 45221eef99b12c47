"""Flags that say how a table is read."""

from collections.abc import Mapping
from typing import Annotated, Any, cast

import typer
from mlpd.client.tables import TableOptions, TextOptions

_Names = list[str] | None

TEXT_FLAGS: Mapping[str, Any] = {
    "header": Annotated[
        bool | None,
        typer.Option(
            help="Whether the first line of a text file names the columns.", show_default="if it has names, no numbers"
        ),
    ],
    "separator": Annotated[
        str | None, typer.Option(help="Between the cells of a text file: , ; tab ...", show_default="found")
    ],
    "decimal": Annotated[str | None, typer.Option(help="Decimal point of a text file: . or ,", show_default="found")],
    "encoding": Annotated[str | None, typer.Option(help="Of a text file.", show_default="utf-8, or as it is marked")],
    "date_order": Annotated[
        str | None,
        typer.Option(
            help="Of dates that are not ISO: dmy (27.11.2026), mdy (11/27/2026) or ymd.",
            show_default="they are refused",
        ),
    ],
}
DROP_FLAGS: Mapping[str, Any] = {
    "drop_unlabelled": Annotated[
        bool | None, typer.Option(help="Leave out rows of a table without a target.", show_default="they are refused")
    ],
}
TABLE_FLAGS: Mapping[str, Any] = {
    "target": Annotated[
        _Names,
        typer.Option(
            help="Column of a table to learn, by name or number, -1 = last; several with commas or several options.",
            show_default="label, target, class or y, else the last",
        ),
    ],
    "weight": Annotated[str | None, typer.Option(help="Column of a table that says how much each row counts.")],
    "category": Annotated[_Names, typer.Option(help="Columns of a table to take as texts, like numbers of kinds.")],
    "leave_out": Annotated[_Names, typer.Option(help="Columns of a table that are no inputs.")],
    **DROP_FLAGS,
    **TEXT_FLAGS,
}


def text_options(flags: Mapping[str, Any]) -> TextOptions:
    """Return how ``flags`` say that a table's texts are written."""
    return cast("TextOptions", {name: flags[name] for name in TEXT_FLAGS})


def table_options(flags: Mapping[str, Any]) -> TableOptions:
    """Return how ``flags`` say that a table is understood."""
    return cast("TableOptions", {name: flags[name] for name in TABLE_FLAGS if name in flags})
