"""``mlpd evaluate``, ``predict`` and ``models``."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from mlpd.client.cli.output import (
    SERVER,
    Json,
    Server,
    console,
    evaluation_fields,
    fields_of,
    print_json,
    show_evaluation,
    table,
)
from mlpd.client.client import Client, Prediction
from mlpd.client.errors import InvalidRequest
from mlpd.client.files import read_rows

_ROWS_SHOWN = 20


def evaluate(
    model: Annotated[str, typer.Argument(help="Model, or model/version.")],
    dataset: Annotated[str, typer.Argument(help="Data set to score it on.")],
    server: Server = SERVER,
    as_json: Json = False,
) -> None:
    """Score a model on a data set, in exact counts."""
    with Client(server) as client:
        include_confusion = client.model(model).layer_sizes[-1] <= 1000
        evaluation = client.evaluate(model, dataset, include_confusion=include_confusion)
    if as_json:
        print_json(evaluation_fields(evaluation))
    else:
        console.print(f"{evaluation.model}, parameters {evaluation.parameters_sha256[:16]}")
        show_evaluation(evaluation, dataset)


def predict(
    model: Annotated[str, typer.Argument(help="Model, or model/version.")],
    rows: Annotated[Path, typer.Argument(help="Inputs without labels: .npy, .npz or .csv.")],
    output: Annotated[Path | None, typer.Option(help="Write classes and probabilities to this .npz or .csv.")] = None,
    server: Server = SERVER,
    as_json: Json = False,
) -> None:
    """Predict the classes of rows in a file."""
    if output and output.suffix not in (".npz", ".csv"):
        raise InvalidRequest(f"output must end in .npz or .csv, got {output.name}")
    inputs = read_rows(rows)
    with Client(server) as client:
        prediction = client.predict(model, inputs)
    if output:
        _write(output, prediction)
    if as_json:
        print_json(
            {
                "model": prediction.model,
                "classes": prediction.classes.tolist(),
                "probabilities": prediction.probabilities.tolist(),
            }
        )
        return
    console.print(f"{prediction.model}: {len(prediction.classes)} rows")
    found = table("row#", "class#", "probability#")
    for row, label in enumerate(prediction.classes[:_ROWS_SHOWN].tolist()):
        found.add_row(str(row), str(label), f"{prediction.probabilities[row, label]:.4f}")
    console.print(found)
    if len(prediction.classes) > _ROWS_SHOWN:
        console.print("… the rest with --output or --json")


def models(
    model: Annotated[str, typer.Argument(help="Only this model's versions.")] = "",
    server: Server = SERVER,
    as_json: Json = False,
) -> None:
    """List model versions, newest first."""
    with Client(server) as client:
        found = list(client.models(model))
    if as_json:
        print_json({"models": [fields_of(version) for version in found]})
        return
    rows = table("model version", "layers", "parameters#", "sha256", "job", "created")
    for version in found:
        rows.add_row(
            version.name,
            "-".join(map(str, version.layer_sizes)),
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


def _write(path: Path, prediction: Prediction) -> None:
    try:
        if path.suffix == ".npz":
            np.savez(path, classes=prediction.classes, probabilities=prediction.probabilities)
        else:
            classes = prediction.probabilities.shape[1]
            header = ",".join(["class", *(f"probability_{label}" for label in range(classes))])
            values = np.column_stack([prediction.classes, prediction.probabilities])
            np.savetxt(path, values, ["%d", *["%.9g"] * classes], ",", header=header, comments="")
    except OSError as error:
        raise InvalidRequest(f"output {path} can't be written: {error.strerror}") from error
