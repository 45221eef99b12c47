"""``mlpd datasets``: list, add and show."""

from pathlib import Path
from typing import Annotated

import typer
from mlpd.client.cli import notes
from mlpd.client.cli.connection import COMPUTING_SECONDS, connect
from mlpd.client.cli.output import SERVER, Header, Json, Server, console, fields_of, print_json, show_notes, table
from mlpd.client.files import read_labelled
from mlpd.v1 import types_pb2 as types
from mlpd.v1.dataset_service_pb2 import Dataset

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


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Data set.")], server: Server = SERVER, as_json: Json = False
) -> None:
    """Show one data set."""
    with connect(server) as client:
        found = client.dataset(name)
    said = notes.of_inputs(found)
    if as_json:
        print_json({"dataset": fields_of(found), "notes": said})
    else:
        _show([found])
        if found.input_names:
            console.print(f"columns: {', '.join(found.input_names)}", markup=False)
        whole = "whole numbers " if found.whole_inputs else ""
        console.print(f"inputs: {whole}from {found.input_minimum:g} to {found.input_maximum:g}")
        show_notes(said)
        if found.target_size:
            console.print(f"targets from {found.target_minimum:g} to {found.target_maximum:g}")
        else:
            console.print("rows of each class:", ", ".join(map(str, found.class_row_counts)))


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="Name for the data set.")],
    path: Annotated[Path, typer.Argument(help="Rows: .npz (inputs; labels or targets; weights) or .csv.")],
    label_column: Annotated[
        str | None, typer.Option(help="Of a .csv: column name, or number, -1 = last, which is the default.")
    ] = None,
    target_columns: Annotated[
        str, typer.Option(help="Of a .csv: columns of numbers to predict, with commas, in place of labels.")
    ] = "",
    weight_column: Annotated[str, typer.Option(help="Of a .csv: how much each row counts.")] = "",
    leave_out: Annotated[
        str, typer.Option(help="Of a .csv: columns that are no inputs, with commas, like those that number the rows.")
    ] = "",
    header: Header = None,
    server: Server = SERVER,
    as_json: Json = False,
) -> None:
    """Store the rows of a file on the server."""
    columns, ignored = (
        [column.strip() for column in text.split(",")] if text else [] for text in (target_columns, leave_out)
    )
    rows = read_labelled(path, label_column, columns, weight_column, leave_out=ignored, header=header)
    with connect(server, COMPUTING_SECONDS) as client:
        stored = client.upload(
            name,
            rows.inputs,
            rows.labels,
            targets=rows.targets,
            weights=rows.weights,
            input_names=rows.input_names,
        )
    said = [*notes.of_labelled(rows, path.name), *notes.of_inputs(stored)]
    if as_json:
        print_json({"dataset": fields_of(stored), "understood": notes.fields_of_rows(rows), "notes": said})
    else:
        show_notes(said)
        _show([stored])


def _show(datasets: list[Dataset]) -> None:
    rows = table("data set", "rows#", "width#", "targets", "type", "bytes#", "sha256")
    for dataset in datasets:
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
