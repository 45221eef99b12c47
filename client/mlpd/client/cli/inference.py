"""``mlpd evaluate``, ``predict`` and ``models``."""

from pathlib import Path
from typing import Annotated, Any

import typer
from mlpd.client.cli import notes, predictions
from mlpd.client.cli.connection import COMPUTING_SECONDS, connect
from mlpd.client.cli.fields import fields_of
from mlpd.client.cli.output import (
    SERVER,
    Json,
    Labels,
    Server,
    console,
    evaluation_fields,
    labels_of,
    print_json,
    progress_of,
    show_damaged,
    show_evaluation,
    show_notes,
    table,
)
from mlpd.client.cli.settings import with_flags
from mlpd.client.cli.tables import DROP_FLAGS, TEXT_FLAGS, table_options, text_options
from mlpd.client.errors import InvalidRequest
from mlpd.client.kinds import check_unset
from mlpd.client.tables import Column, TableOptions, columns_from, model_schema, read_labelled, read_rows
from mlpd.client.tables.memory import filled_in


def evaluate(
    model: Annotated[str, typer.Argument(help="Model, or model/version.")],
    data: Annotated[str, typer.Argument(help="Data set, or file with the columns of the model and the target.")],
    scores: Annotated[bool, typer.Option("--scores", help="Also precision, recall, F1, ROC AUC and the like.")] = False,
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="Of a file: column to compare with; several options for several.", show_default="the model's"
        ),
    ] = None,
    server: Server = SERVER,
    as_json: Json = False,
    **flags: Any,
) -> None:
    """Score a model on a data set or on the rows of a file, in exact counts."""
    with connect(server, COMPUTING_SECONDS) as client:
        if Path(data).suffix or "/" in data.removeprefix("datasets/"):
            version = client.model(model)
            options = table_options(flags) | TableOptions(target=target)
            with progress_of(f"reading {Path(data).name}") as on_progress:
                read = read_labelled(Path(data), model_schema(version), on_progress=on_progress, **options)
            evaluation = client.evaluate(version.name, read, include_scores=scores)
            said = notes.of_rows(read, data)
        else:
            check_unset({"target": target, **flags}, "be unset for a stored data set")
            evaluation = client.evaluate(model, data, include_scores=scores)
            said = notes.of_scoring(client, evaluation.model, data)
    if as_json:
        print_json(evaluation_fields(evaluation) | {"notes": said})
    else:
        console.print(f"{evaluation.model}, parameters {evaluation.parameters_sha256[:16]}")
        show_notes(said)
        show_evaluation(evaluation, data)


def predict(
    model: Annotated[str, typer.Argument(help="Model, or model/version.")],
    rows: Annotated[Path, typer.Argument(help="Rows: a table (.csv, .parquet, ...) or arrays (.npy, .npz).")],
    output: Annotated[Path | None, typer.Option(help="Write the predictions to this .csv or .npz.")] = None,
    top: Annotated[int, typer.Option(min=1, help="Show so many of the most probable classes.")] = 1,
    server: Server = SERVER,
    as_json: Json = False,
    **flags: Any,
) -> None:
    """Predict the classes, labels or values of rows in a file."""
    if output and output.suffix not in (".npz", ".csv"):
        raise InvalidRequest(f"output must end in .npz or .csv, got {output.name}")
    with connect(server, COMPUTING_SECONDS) as client:
        version = client.model(model)
        columns = columns_from(version.columns) or tuple(map(Column, version.input_names))
        with progress_of(f"reading {rows.name}") as on_progress:
            read = read_rows(rows, columns, version.name, on_progress=on_progress, **text_options(flags))
        prediction = client.predict(version.name, read.inputs)
    said = [
        *notes.of_rows(read, rows.name),
        *notes.of_columns(read.input_names, version.input_names, rows.name, version.name),
        *filled_in(read.inputs, version),
    ]
    said = list(dict.fromkeys(said))
    shown = predictions.table_of(prediction, top)
    if output:
        predictions.write(output, prediction)
    if as_json:
        fields = predictions.fields_of_prediction(prediction, top)
        print_json(fields | {"understood": notes.fields_of_rows(read), "notes": said})
        return
    console.print(f"{prediction.model}: {len(prediction.logits)} rows")
    show_notes(said)
    console.print(shown)
    if len(prediction.logits) > predictions.ROWS_SHOWN:
        console.print("… the rest with --output or --json")


def models(
    model: Annotated[str, typer.Argument(help="Only this model's versions.")] = "",
    label: Labels = None,
    server: Server = SERVER,
    as_json: Json = False,
) -> None:
    """List model versions, newest first."""
    with connect(server) as client:
        found = list(client.models(model, labels=labels_of(label)))
    if as_json:
        print_json({"models": [fields_of(version) for version in found]})
        return
    rows = table("model version", "task", "layers", "parameters#", "sha256", "job", "created")
    for version in found:
        if version.HasField("error"):
            rows.add_row(version.name, "damaged")
            continue
        rows.add_row(
            version.name,
            version.task,
            "-".join(map(str, version.spec.layer_sizes)),
            f"{version.parameter_count:,}",
            version.parameters_sha256[:16],
            version.training_job.removeprefix("trainingJobs/"),
            version.create_time.ToDatetime().isoformat(" ", "seconds"),
        )
    console.print(rows)
    show_damaged(found)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(with_flags({**DROP_FLAGS, **TEXT_FLAGS}, evaluate))
    app.command()(with_flags(TEXT_FLAGS, predict))
    app.command()(models)
