"""``mlpd datasets``: list, add and show."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from mlpd.client.cli import notes
from mlpd.client.cli.connection import COMPUTING_SECONDS, connect
from mlpd.client.cli.fields import fields_of
from mlpd.client.cli.output import (
    SERVER,
    Json,
    Server,
    console,
    plain,
    print_json,
    progress_of,
    show_damaged,
    show_notes,
    table,
)
from mlpd.client.cli.settings import with_flags
from mlpd.client.cli.tables import TABLE_FLAGS, table_options
from mlpd.client.columns import listed
from mlpd.client.tables import TableOptions, read_labelled, schema_of
from mlpd.v1 import types_pb2 as types
from mlpd.v1.dataset_service_pb2 import Dataset
from rich.markup import escape
from rich.table import Table

app = typer.Typer(help="List data sets, add your own.", no_args_is_help=True)


@app.command("list")
def list_datasets(server: Server = SERVER, as_json: Json = False) -> None:
    """List data sets by name."""
    with connect(server) as client:
        found = list(client.datasets())
    if as_json:
        print_json({"datasets": [fields_of(dataset) for dataset in found]})
    else:
        _show(found)


@app.command("describe")
@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Data set.")], server: Server = SERVER, as_json: Json = False
) -> None:
    """Show one data set: its columns, and classes or targets."""
    with connect(server) as client:
        found = client.dataset(name)
    said = notes.of_inputs(found)
    if as_json:
        print_json({"dataset": fields_of(found), "notes": said})
        return
    _show([found])
    if found.columns:
        console.print(_columns_table(found.columns))
    elif found.input_names:
        console.print(f"columns: {', '.join(found.input_names)}", markup=False)
    whole = "whole numbers " if found.whole_inputs else ""
    console.print(f"inputs: {whole}from {found.input_minimum:g} to {found.input_maximum:g}")
    show_notes(said)
    learnt = f" {', '.join(found.target_names)}" if found.target_names else ""
    if found.target_size:
        console.print(f"targets{learnt} from {found.target_minimum:g} to {found.target_maximum:g}", markup=False)
    elif found.class_names:
        counts = zip(found.class_names, found.class_row_counts, strict=True)
        rows = ", ".join(f"{plain(name)} {count}" for name, count in counts)
        console.print(f"rows of each class of{learnt}: {rows}", markup=False)
    else:
        console.print("rows of each class:", ", ".join(map(str, found.class_row_counts)))


def add(
    name: Annotated[str, typer.Argument(help="Name for the data set.")],
    path: Annotated[Path, typer.Argument(help="A table (.csv, .tsv, .parquet, .feather, .jsonl) or arrays (.npz).")],
    task: Annotated[
        str,
        typer.Option(help="Take the target for classes (multiclass) or numbers (regression).", show_default="by it"),
    ] = "",
    like: Annotated[str, typer.Option(help="Data set whose columns and classes these are too.")] = "",
    server: Server = SERVER,
    as_json: Json = False,
    **flags: Any,
) -> None:
    """Store the rows of a file on the server."""
    with connect(server, COMPUTING_SECONDS) as client:
        schema = schema_of(client.dataset(like)) if like else None
        with progress_of(f"reading {path.name}") as on_progress:
            options = table_options(flags) | TableOptions(task=task)
            rows = read_labelled(path, schema, on_progress=on_progress, **options)
        with progress_of(f"sending {name}") as on_progress:
            stored = client.upload(name, rows, on_progress=on_progress)
    said = [*notes.of_labelled(rows, path.name), *notes.of_inputs(stored)]
    if as_json:
        print_json({"dataset": fields_of(stored), "understood": notes.fields_of_rows(rows), "notes": said})
    else:
        show_notes(said)
        _show([stored])


app.command()(with_flags(TABLE_FLAGS, add))


def _columns_table(columns: Sequence[types.Column]) -> Table:
    rows = table("column", "kind", "missing#", "mean#", "deviation#", "least#", "largest#", "categories")
    for column in columns:
        kind = types.Column.Kind.Name(column.kind).removeprefix("KIND_").lower()
        numbers = (column.mean, column.deviation, column.minimum, column.maximum)
        if kind == "category":
            shown = [""] * len(numbers)
        elif kind == "date":
            first, last = (_date(days) for days in (column.minimum, column.maximum))
            shown = [_date(column.mean), f"{column.deviation:.6g} days", first, last]
        else:
            shown = [f"{number:.6g}" for number in numbers]
        rows.add_row(
            escape(plain(column.name)),
            kind,
            f"{column.missing_count:,}",
            *shown,
            escape(plain(listed(column.categories))),
        )
    return rows


def _date(days: float) -> str:
    return str(np.datetime64("1970-01-01T00:00") + np.timedelta64(round(days * 1440), "m")).replace("T00:00", "")


def _show(datasets: list[Dataset]) -> None:
    rows = table("data set", "rows#", "width#", "targets", "type", "bytes#", "sha256")
    for dataset in datasets:
        if dataset.HasField("error"):
            rows.add_row(dataset.name.removeprefix("datasets/"), "", "", "damaged")
            continue
        rows.add_row(
            dataset.name.removeprefix("datasets/"),
            f"{dataset.row_count:,}",
            str(dataset.input_size),
            f"{dataset.target_size} numbers" if dataset.target_size else f"{dataset.class_count} classes",
            types.DataType.Name(dataset.data_type).removeprefix("DATA_TYPE_").lower(),
            f"{dataset.size_bytes:,}",
            dataset.sha256[:16],
        )
    console.print(rows)
    show_damaged(datasets)
