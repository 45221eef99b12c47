"""``mlpd jobs``, ``cancel``, ``update`` and ``delete``."""

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any

import typer
from mlpd.client.cli.connection import connect
from mlpd.client.cli.fields import fields_of
from mlpd.client.cli.output import (
    SERVER,
    Json,
    Labels,
    Server,
    console,
    labels_of,
    plain,
    print_json,
    size_text,
    state_of,
    table,
)
from mlpd.client.client import Client
from mlpd.client.errors import InvalidRequest, MlpdError, Unavailable
from mlpd.client.housekeeping import STATES
from mlpd.v1.model_service_pb2 import ModelVersion
from mlpd.v1.trainer_service_pb2 import TrainingJob
from rich.markup import escape
from rich.table import Table

Names = Annotated[list[str], typer.Argument(help="Names, one or more.")]
Removed = Annotated[list[str] | None, typer.Option("--remove-label", help="Key of a label to remove; may be repeated.")]
Note = Annotated[str | None, typer.Option(help="Note in place of the one there is.")]

_COLUMNS: dict[str, Callable[[TrainingJob], str]] = {
    "id": lambda job: job.name.removeprefix("trainingJobs/"),
    "state": state_of,
    "epoch": lambda job: f"{job.progress.epoch}/{job.progress.epoch_count}",
    "loss": lambda job: f"{job.train_loss:.4g}" if job.HasField("train_loss") else "",
    "validation_loss": lambda job: f"{job.validation_loss:.4g}" if job.HasField("validation_loss") else "",
    "created": lambda job: _time(job.create_time),
    "started": lambda job: _time(job.start_time),
    "ended": lambda job: _time(job.end_time),
    "model": lambda job: job.model_version.removeprefix("models/").replace("/versions/", "/"),
    "dataset": lambda job: job.spec.train_dataset.removeprefix("datasets/"),
    "labels": lambda job: ", ".join(f"{key}={value}" for key, value in sorted(job.labels.items())),
    "note": lambda job: job.note,
    "error": lambda job: job.error.message,
}
_RIGHT = {"epoch", "loss", "validation_loss"}
# Of these the ones that fit and say something, from the first.
_SHOWN = ("id", "state", "epoch", "loss", "created", "model", "labels", "error")
_ALWAYS_SHOWN = {"id", "state"}
_GAP, _ERROR_WIDTH = 2, 30

update = typer.Typer(help="Change labels and notes.", no_args_is_help=True)
delete = typer.Typer(help="Delete what is no longer needed.", no_args_is_help=True)


def jobs(
    state: Annotated[
        list[str] | None, typer.Option(help=f"Only jobs in this state: {', '.join(STATES)}; may be repeated.")
    ] = None,
    model: Annotated[str, typer.Option(help="Only jobs that publish under this model.")] = "",
    label: Labels = None,
    columns: Annotated[
        str | None, typer.Option(help=f"Columns, with commas: {', '.join(_COLUMNS)}.", show_default="those that fit")
    ] = None,
    server: Server = SERVER,
    as_json: Json = False,
) -> None:
    """List jobs, newest first."""
    chosen = _chosen(columns)
    with connect(server) as client:
        found = list(client.jobs(states=state or (), model=model, labels=labels_of(label)))
    if as_json:
        print_json({"jobs": [fields_of(job) for job in found]})
    else:
        console.print(jobs_table(found, chosen, console.width))


def cancel(names: Names, server: Server = SERVER, as_json: Json = False) -> None:
    """End jobs; the device of each is freed first."""

    def one(client: Client, name: str) -> tuple[dict[str, Any], str]:
        job = client.cancel(name)
        return fields_of(job), f"{job.name} is {state_of(job)}"

    _each("jobs", names, one, server, as_json=as_json)


def _update_command(key: str, what: str, change: Callable[..., TrainingJob | ModelVersion]) -> None:
    """Add ``mlpd update KEY``, where ``change`` is the client's method for one of ``what``."""

    @update.command(key, help=f"Change labels and notes of {what}; what is not named stays.")
    def command(
        names: Names,
        label: Labels = None,
        remove_label: Removed = None,
        note: Note = None,
        server: Server = SERVER,
        as_json: Json = False,
    ) -> None:
        labels = labels_of(label) | dict.fromkeys(remove_label or ())

        def one(client: Client, name: str) -> tuple[dict[str, Any], str]:
            changed = change(client, name, labels=labels, note=note)
            return fields_of(changed), f"{changed.name} has {_described(changed.labels, changed.note)}"

        _each(key, names, one, server, as_json=as_json)


_update_command("jobs", "jobs", Client.update_job)
_update_command("models", "model versions (model/version)", Client.update_version)


@delete.command("jobs")
def delete_jobs(names: Names, server: Server = SERVER, as_json: Json = False) -> None:
    """Delete jobs that have ended, with their events and checkpoints; the models that they published stay."""
    _each("deleted", names, lambda client, name: _deleted(name, client.delete_job(name)), server, as_json=as_json)


@delete.command("models")
def delete_models(names: Names, server: Server = SERVER, as_json: Json = False) -> None:
    """Delete versions (model/version), or models with all their versions."""

    def one(client: Client, name: str) -> tuple[dict[str, Any], str]:
        if "/" in name.removeprefix("models/"):
            return _deleted(name, client.delete_version(name))
        answer = client.delete_model(name)
        fields, text = _deleted(name, answer.freed_bytes)
        return fields | {"version_count": answer.version_count}, f"{text}, {answer.version_count} versions"

    _each("deleted", names, one, server, as_json=as_json)


@delete.command("datasets")
def delete_datasets(names: Names, server: Server = SERVER, as_json: Json = False) -> None:
    """Delete data sets that no job needs."""
    _each("deleted", names, lambda client, name: _deleted(name, client.delete_dataset(name)), server, as_json=as_json)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (jobs, cancel):
        app.command()(command)
    app.add_typer(update, name="update")
    app.add_typer(delete, name="delete")


def jobs_table(found: Sequence[TrainingJob], columns: Iterable[str] | None, width: int) -> Table:
    """Return a table of jobs whose ids are whole; without ``columns`` it has those that fit into ``width``."""
    cells = {name: [_COLUMNS[name](job) for job in found] for name in columns or _SHOWN}
    widths = {name: max(map(len, [name, *own])) for name, own in cells.items()}
    if columns is None:
        widths["error"] = min(widths["error"], _ERROR_WIDTH)
        left = width + _GAP
        for name in _SHOWN:
            needed = widths[name] + _GAP
            if name in _ALWAYS_SHOWN or (needed <= left and any(cells[name])):
                left -= needed
            else:
                del cells[name]
    rows = table(*(f"{name.replace('_', ' ')}{'#' * (name in _RIGHT)}" for name in cells))
    for column, name in zip(rows.columns, cells, strict=True):
        if name == "id":
            column.min_width, column.no_wrap = widths[name], True
    for row in zip(*cells.values(), strict=True):
        rows.add_row(*map(escape, row))
    return rows


def _each(
    key: str,
    names: Sequence[str],
    one: Callable[[Client, str], tuple[dict[str, Any], str]],
    server: str,
    *,
    as_json: bool,
) -> None:
    """Do the same to each of ``names``, whatever becomes of the others; exit with 1 if one is refused.

    Raises what a single name, or a server that is away, is refused with.
    """
    answers, errors = [], []
    with connect(server) as client:
        for name in names:
            try:
                fields, text = one(client, name)
            except MlpdError as error:
                if len(names) == 1 or isinstance(error, Unavailable):
                    raise
                errors.append({"name": name, "message": error.message, "reason": error.reason, "fields": error.fields})
                if not as_json:
                    print(f"mlpd: {plain(error.message)}", file=sys.stderr)
                continue
            answers.append(fields)
            if not as_json:
                console.print(text, markup=False)
    if as_json:
        print_json({key: answers, "errors": errors})
    if errors:
        raise typer.Exit(1)


def _deleted(name: str, freed_bytes: int) -> tuple[dict[str, Any], str]:
    return {"name": name, "freed_bytes": freed_bytes}, f"deleted {plain(name)}: {size_text(freed_bytes)} freed"


def _described(labels: Any, note: str) -> str:
    shown = ", ".join(f"{key}={value}" for key, value in sorted(labels.items()))
    return f"labels {shown or 'none'}" + (f", note: {plain(note)}" if note else "")


def _chosen(columns: str | None) -> list[str] | None:
    if columns is None:
        return None
    chosen = [name.strip() for name in columns.split(",")]
    if unknown := [name for name in chosen if name not in _COLUMNS]:
        raise InvalidRequest(f"columns must be of {', '.join(_COLUMNS)}, got {unknown[0]}")
    return chosen


def _time(timestamp: Any) -> str:
    return timestamp.ToDatetime().isoformat(" ", "seconds") if timestamp.ByteSize() else ""
