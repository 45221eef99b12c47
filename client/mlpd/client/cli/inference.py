"""``mlpd evaluate``, ``predict`` and ``models``."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from mlpd.client.cli import notes
from mlpd.client.cli.connection import COMPUTING_SECONDS, connect
from mlpd.client.cli.output import (
    SERVER,
    Header,
    Json,
    Server,
    console,
    evaluation_fields,
    fields_of,
    print_json,
    show_evaluation,
    show_notes,
    table,
)
from mlpd.client.client import Prediction
from mlpd.client.errors import InvalidRequest
from mlpd.client.tables import Column, columns_from, read_rows
from numpy.typing import NDArray
from rich.table import Table

_ROWS_SHOWN, _COLUMNS_SHOWN = 20, 8
_SINGULARS = {"values": "value", "classes": "class", "probabilities": "probability"}


def evaluate(
    model: Annotated[str, typer.Argument(help="Model, or model/version.")],
    dataset: Annotated[str, typer.Argument(help="Data set to score it on.")],
    scores: Annotated[bool, typer.Option("--scores", help="Also precision, recall, F1, ROC AUC and the like.")] = False,
    server: Server = SERVER,
    as_json: Json = False,
) -> None:
    """Score a model on a data set, in exact counts."""
    with connect(server, COMPUTING_SECONDS) as client:
        evaluation = client.evaluate(model, dataset, include_scores=scores)
        said = notes.of_scoring(client, evaluation.model, dataset)
    if as_json:
        print_json(evaluation_fields(evaluation) | {"notes": said})
    else:
        console.print(f"{evaluation.model}, parameters {evaluation.parameters_sha256[:16]}")
        show_notes(said)
        show_evaluation(evaluation, dataset)


def predict(
    model: Annotated[str, typer.Argument(help="Model, or model/version.")],
    rows: Annotated[
        Path, typer.Argument(help="Inputs without labels: a table (.csv, .parquet, ...) or arrays (.npy, .npz).")
    ],
    output: Annotated[Path | None, typer.Option(help="Write the predictions to this .npz or .csv.")] = None,
    header: Header = None,
    server: Server = SERVER,
    as_json: Json = False,
) -> None:
    """Predict the classes, labels or values of rows in a file."""
    if output and output.suffix not in (".npz", ".csv"):
        raise InvalidRequest(f"output must end in .npz or .csv, got {output.name}")
    with connect(server, COMPUTING_SECONDS) as client:
        version = client.model(model)
        columns = columns_from(version.columns) or tuple(map(Column, version.input_names))
        read = read_rows(rows, columns, version.name, header=header)
        prediction = client.predict(version.name, read.inputs)
    said = [
        *notes.of_rows(read, rows.name),
        *notes.of_columns(read.input_names, version.input_names, rows.name, version.name),
    ]
    if output:
        _write(output, prediction)
    if as_json:
        arrays = {name: array.tolist() for name, array in _arrays(prediction).items()}
        print_json({"model": prediction.model, **arrays, "understood": notes.fields_of_rows(read), "notes": said})
        return
    row_count = len(prediction.logits)
    console.print(f"{prediction.model}: {row_count} rows")
    show_notes(said)
    console.print(_table(prediction))
    if row_count > _ROWS_SHOWN:
        console.print("… the rest with --output or --json")


def models(
    model: Annotated[str, typer.Argument(help="Only this model's versions.")] = "",
    server: Server = SERVER,
    as_json: Json = False,
) -> None:
    """List model versions, newest first."""
    with connect(server) as client:
        found = list(client.models(model))
    if as_json:
        print_json({"models": [fields_of(version) for version in found]})
        return
    rows = table("model version", "task", "layers", "parameters#", "sha256", "job", "created")
    for version in found:
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


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (evaluate, predict, models):
        app.command()(command)


def _arrays(prediction: Prediction) -> dict[str, NDArray[Any]]:
    """Return what the model's task gives."""
    if len(prediction.values):
        return {"values": prediction.values}
    return {"classes": prediction.classes, "probabilities": prediction.probabilities}


def _table(prediction: Prediction) -> Table:
    classes, probabilities = prediction.classes[:_ROWS_SHOWN], prediction.probabilities
    if len(prediction.values):
        found = table("row#", *(f"value {i}#" for i in range(min(prediction.values.shape[1], _COLUMNS_SHOWN))))
        for row, values in enumerate(prediction.values[:_ROWS_SHOWN, :_COLUMNS_SHOWN].tolist()):
            found.add_row(str(row), *(f"{value:.6g}" for value in values))
    elif classes.ndim == 1:
        found = table("row#", "class#", "probability#")
        for row, label in enumerate(classes.tolist()):
            found.add_row(str(row), str(label), f"{probabilities[row, label]:.4f}")
    else:
        found = table("row#", "labels", "probabilities")
        for row, own in enumerate(classes):
            labels = np.flatnonzero(own).tolist()
            shares = (f"{probabilities[row, label]:.4f}" for label in labels)
            found.add_row(str(row), " ".join(map(str, labels)), " ".join(shares))
    return found


def _write(path: Path, prediction: Prediction) -> None:
    try:
        arrays = _arrays(prediction)
        if path.suffix == ".npz":
            np.savez(path, **arrays)  # type: ignore[arg-type]
            return
        header: list[str] = []
        formats: list[str] = []
        for name, array in arrays.items():
            singular = _SINGULARS[name]
            header += [singular] if array.ndim == 1 else [f"{singular}_{i}" for i in range(array.shape[1])]
            own = "%d" if array.dtype.kind == "i" else "%.9g" if array.dtype.itemsize == 4 else "%.17g"
            formats += [own] * (len(header) - len(formats))
        values = np.column_stack(list(arrays.values()))
        np.savetxt(path, values, formats, ",", header=",".join(header), comments="")
    except OSError as error:
        raise InvalidRequest(f"output {path} can't be written: {error.strerror}") from error
