"""``mlpd train``: a run from settings, or from a table of one's own."""

import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from mlpd.client.cli import follow, notes, own_data
from mlpd.client.cli.connection import COMPUTING_SECONDS, answers, connect
from mlpd.client.cli.fields import fields_of
from mlpd.client.cli.jobs import hint_at_interrupt, watch_hint
from mlpd.client.cli.output import (
    SERVER,
    Json,
    Labels,
    Server,
    console,
    evaluation_fields,
    labels_of,
    print_json,
    show_evaluation,
    show_notes,
    state_of,
)
from mlpd.client.cli.settings import SETTING_FLAGS, parsed, with_flags
from mlpd.client.cli.tables import TABLE_FLAGS, table_options
from mlpd.client.client import Client
from mlpd.client.embedded import embedded_server
from mlpd.client.errors import InvalidRequest
from mlpd.client.kinds import LABELS, TEXT, check_kind, check_unset
from mlpd.client.recipes import PRESETS, training_spec
from mlpd.client.results import Evaluation
from mlpd.client.settings import SETTINGS
from mlpd.client.spelling import did_you_mean
from mlpd.client.tables import TableOptions
from mlpd.client.vocabulary import in_flags
from mlpd.v1.trainer_service_pb2 import TrainingJob, TrainingSpec

_FILE_SETTINGS = {"preset", "job_id", "model_id", "labels", "note"}


@dataclass(frozen=True)
class _Names:
    """What a job and its model are called, and what is noted of it."""

    job_id: str
    model_id: str
    labels: Mapping[str, str]
    note: str


@dataclass(frozen=True)
class _Asked:
    """What a command asks for: a spec, names, and what was said and stored on the way to it."""

    spec: TrainingSpec
    names: _Names
    notes: list[str] = field(default_factory=list)
    table: own_data.OwnData | None = None


def train(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="[TABLE]", help="File to train on (.csv, .parquet, ...); its data decide what no flag says."
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with settings; flags win.")] = None,
    preset: Annotated[str | None, typer.Option(help=f"Start from a recipe: {', '.join(PRESETS)}.")] = None,
    test: Annotated[Path | None, typer.Option(help="File with rows to score the model on at the end.")] = None,
    test_fraction: Annotated[
        float | None, typer.Option(min=0, max=0.9, help="Of a table: share of its rows held out for that.")
    ] = None,
    job_id: Annotated[str | None, typer.Option(help="Name for the job.")] = None,
    model_id: Annotated[
        str | None, typer.Option(help="Model to publish a version under; default: the table's name, else the job's.")
    ] = None,
    label: Labels = None,
    note: Annotated[str, typer.Option(help="Note for the job.")] = "",
    wait: Annotated[
        bool | None, typer.Option(help="Follow the job to its end.", show_default="wait, but not with --json")
    ] = None,
    embedded: Annotated[bool, typer.Option("--embedded", help="Start a server for this run if none answers.")] = False,
    data_dir: Annotated[Path | None, typer.Option(help="Where an embedded server keeps its data.")] = None,
    server: Server = SERVER,
    as_json: Json = False,
    **flags: Any,
) -> None:
    """Train a model: on a table of your own, or by flags, a TOML file or a preset."""
    with in_flags() if config is None else nullcontext():
        options = table_options(flags)
        settings, others = asked_settings(config, {name: flags[name] for name in SETTINGS})
        names = _names(others, labels_of(label), {"job_id": job_id, "model_id": model_id, "note": note})
        recipe: Any = preset or others.get("preset")
        if path is None:
            check_unset({**options, "test": test, "test_fraction": test_fraction}, "come with a table to train on")
        else:
            check_unset({"preset": recipe}, "be unset with a table")
        # What is wrong with it is told before a server is looked for, and before rows are stored.
        spec = training_spec(recipe, **settings)
        with (
            reachable(server, embedded=embedded, data_directory=data_dir) as address,
            connect(address, COMPUTING_SECONDS) as client,
        ):
            is_followed = address != server or (not as_json if wait is None else wait)
            asked = _Asked(spec, names)
            if path:
                asked = _of_table(client, path, options, own_data.HeldOut(test, test_fraction), settings, names)
            hint = None if address == server else _embedded_hint(data_dir)
            _run(client, asked, is_followed=is_followed, hint=hint, as_json=as_json)


def _names(others: Mapping[str, Any], labels: Mapping[str, str], given: Mapping[str, str | None]) -> _Names:
    """Return what flags say, and for what they leave out ``others``, what a file says."""
    texts = {name: value or others.get(name, "") for name, value in given.items()}
    return _Names(**texts, labels={**others.get("labels", {}), **labels})


def _of_table(
    client: Client,
    path: Path,
    options: TableOptions,
    held_out: own_data.HeldOut,
    settings: Mapping[str, Any],
    names: _Names,
) -> _Asked:
    """Store a table as data sets; return the run that suits it, with the ``settings`` that are given."""
    table = own_data.stored(client, path, options, held_out, settings.get("task", ""), name=names.model_id)
    chosen = table.settings(settings)
    said = [*table.notes, f"settings by the data, which flags override: {own_data.as_flags(chosen, settings)}"]
    return _Asked(training_spec(**chosen), replace(names, model_id=names.model_id or table.name), said, table)


def _run(client: Client, asked: _Asked, *, is_followed: bool, hint: str | None, as_json: bool) -> None:
    """Submit a job; follow it, show what came of it and score its model, unless it is not to be followed."""
    started = time.monotonic()
    if not asked.spec.test_dataset and asked.spec.train_dataset == "datasets/mnist-train":
        asked.spec.test_dataset = "datasets/mnist-test"
    names = asked.names
    job = client.train(asked.spec, job_id=names.job_id, model_id=names.model_id, labels=names.labels, note=names.note)
    said = asked.notes + notes.of_job(asked.spec, job, client)
    if not is_followed:
        _show_submitted(job, said, as_json=as_json)
        return
    with hint_at_interrupt(hint or watch_hint(job, client.address)):
        job, summary = _followed(client, job, said, as_json=as_json)
    seconds = time.monotonic() - started
    test = job.spec.test_dataset
    # A loss says little of numbers in units of their own.
    include_scores = asked.table is not None and job.spec.task == "regression"
    evaluation = client.evaluate(job.model_version, test, include_scores=include_scores) if test else None
    scored = notes.of_scoring(client, job.model_version, test) if test else []
    digest = client.model(job.model_version).parameters_sha256
    if as_json:
        print_json(_result(job, summary, evaluation, digest, seconds) | {"notes": said + scored})
        return
    _show_result(job, summary, digest, seconds)
    if evaluation:
        show_notes(scored)
        show_evaluation(evaluation, test.removeprefix("datasets/"))
    if asked.table:
        console.print(asked.table.next_steps(job.model_version), markup=False, soft_wrap=True)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(with_flags({**TABLE_FLAGS, **SETTING_FLAGS}, train))


@contextmanager
def reachable(server: str, *, embedded: bool, data_directory: Path | None) -> Iterator[str]:
    """Give the address of the server, or of an embedded one where none answers and that is wished for."""
    if embedded and not answers(server):
        with embedded_server(data_directory) as address:
            yield address
    else:
        yield server


def _embedded_hint(data_directory: Path | None) -> str:
    if data_directory is None:
        return "the job ends with its embedded server; with --data-dir it could go on later"
    return f"the job stops with its embedded server; let it go on with: mlpd serve --data-dir {data_directory}"


def asked_spec(config: Path | None, preset: str | None, flags: Mapping[str, Any]) -> TrainingSpec:
    """Return the spec that a TOML file, a preset and flags ask for; raises `InvalidRequest`."""
    settings, others = asked_settings(config, flags)
    recipe: Any = preset or others.get("preset")
    return training_spec(recipe, **settings)


def asked_settings(config: Path | None, flags: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings in a TOML file and in flags, which win, and what else the file says of a job.

    Raises `InvalidRequest`.
    """
    settings = _from_file(config) | {name: parsed(name, value) for name, value in flags.items() if value is not None}
    others = {name: settings.pop(name) for name in _FILE_SETTINGS & settings.keys()}
    return settings, others


def _from_file(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidRequest(f"{path} can't be read as TOML: {error}") from error
    if unknown := settings.keys() - SETTINGS.keys() - _FILE_SETTINGS:
        known = ", ".join(sorted(SETTINGS.keys() | _FILE_SETTINGS))
        hint = did_you_mean(min(unknown), [*SETTINGS, *_FILE_SETTINGS])
        raise InvalidRequest(f"{path.name} must set only {known}, got {', '.join(sorted(unknown))}{hint}")
    for name in sorted(_FILE_SETTINGS & settings.keys()):
        check_kind(name, settings[name], LABELS if name == "labels" else TEXT)
    return settings


def _followed(
    client: Client, job: TrainingJob, said: list[str], *, as_json: bool
) -> tuple[TrainingJob, follow.Summary]:
    """Follow a job to its end, shown unless ``as_json``; return it as it is then, and a summary of its events."""
    events = client.progress(job)
    if as_json:
        summary = follow.collect(events)
    else:
        console.print(f"{job.name} is {state_of(job)}")
        show_notes(said)
        summary = follow.show(events)
    return client.wait(job), summary


def _show_submitted(job: TrainingJob, said: list[str], *, as_json: bool) -> None:
    if as_json:
        print_json({"job": fields_of(job), "notes": said})
    else:
        job_id = job.name.removeprefix("trainingJobs/")
        console.print(f"{job.name} is {state_of(job)}; follow it with: mlpd watch {job_id}")
        show_notes(said)


def _result(
    job: TrainingJob, summary: follow.Summary, evaluation: Evaluation | None, digest: str, seconds: float
) -> dict[str, Any]:
    result: dict[str, Any] = {
        "job": fields_of(job),
        "model_version": job.model_version,
        "parameters_sha256": digest,
        "seconds": round(seconds, 3),
        "train_loss": summary.train_losses[-1],
        "train_loss_always_fell": summary.loss_always_fell,
        "warnings": summary.warnings,
    }
    if summary.validation_accuracy is not None:
        result["validation_accuracy"] = summary.validation_accuracy
    if summary.validation_loss is not None:
        result["validation_loss"] = summary.validation_loss
    if evaluation:
        result |= {"test_accuracy": evaluation.accuracy, "test": evaluation_fields(evaluation)}
    return result


def _show_result(job: TrainingJob, summary: follow.Summary, digest: str, seconds: float) -> None:
    losses = summary.train_losses
    fell = f", falling at every one of {len(losses)} reports" if summary.loss_always_fell else ""
    console.print(f"{job.name} {state_of(job)} after {seconds:.1f} s: loss {losses[0]:.4f} to {losses[-1]:.4f}{fell}")
    console.print(f"published {job.model_version}, parameters {digest[:16]}")
