"""``mlpd train``, ``watch``, ``jobs`` and ``cancel``."""

import sys
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from mlpd.client.cli import follow, notes
from mlpd.client.cli.connection import COMPUTING_SECONDS, answers, connect
from mlpd.client.cli.output import (
    SERVER,
    Json,
    Server,
    console,
    evaluation_fields,
    fields_of,
    print_json,
    show_evaluation,
    show_notes,
    state_of,
    table,
)
from mlpd.client.cli.scoring import check_test_dataset
from mlpd.client.cli.settings import parsed, with_settings
from mlpd.client.client import Client, Evaluation
from mlpd.client.embedded import embedded_server
from mlpd.client.errors import InvalidRequest
from mlpd.client.kinds import check_kind
from mlpd.client.recipes import PRESETS, training_spec
from mlpd.client.settings import SETTINGS
from mlpd.v1.trainer_service_pb2 import TrainingJob, TrainingSpec
from rich.markup import escape

_FILE_SETTINGS = {"preset", "job_id", "model_id", "test_dataset"}


def train(
    config: Annotated[Path | None, typer.Option(help="TOML file with settings; flags win.")] = None,
    preset: Annotated[str | None, typer.Option(help=f"Start from a recipe: {', '.join(PRESETS)}.")] = None,
    test_dataset: Annotated[str | None, typer.Option(help="Data set scored at the end.")] = None,
    job_id: Annotated[str | None, typer.Option(help="Name for the job.")] = None,
    model_id: Annotated[str | None, typer.Option(help="Model to publish a version under; default: the job.")] = None,
    wait: Annotated[
        bool | None, typer.Option(help="Follow the job to its end.", show_default="wait, but not with --json")
    ] = None,
    embedded: Annotated[bool, typer.Option("--embedded", help="Start a server for this run if none answers.")] = False,
    data_dir: Annotated[Path | None, typer.Option(help="Where an embedded server keeps its data.")] = None,
    server: Server = SERVER,
    as_json: Json = False,
    **flags: Any,
) -> None:
    """Submit a training job, from flags, a TOML file or a preset."""
    spec, others = asked_spec(config, preset, flags)
    job_id, model_id = job_id or others.get("job_id", ""), model_id or others.get("model_id", "")
    test_dataset = test_dataset or others.get("test_dataset")
    with (
        reachable(server, embedded=embedded, data_directory=data_dir) as address,
        connect(address, COMPUTING_SECONDS) as client,
    ):
        is_followed = address != server or (not as_json if wait is None else wait)
        if test_dataset is None and is_followed and spec.train_dataset == "datasets/mnist-train":
            test_dataset = "mnist-test"
        if test_dataset:
            check_test_dataset(client, test_dataset, spec)
        started = time.monotonic()
        job = client.train(spec, job_id=job_id, model_id=model_id)
        said = notes.of_job(spec, job, client)
        if not is_followed:
            said += notes.of_unscored(model_id or job.name.removeprefix("trainingJobs/"), test_dataset)
            _show_submitted(job, said, as_json=as_json)
            return
        hint = _watch_hint(job, address) if address == server else _embedded_hint(data_dir)
        with _hint_at_interrupt(hint):
            job, summary = _followed(client, job, said, as_json=as_json)
        seconds = time.monotonic() - started
        evaluation = client.evaluate(job.model_version, test_dataset) if test_dataset else None
        scored = notes.of_scoring(client, job.model_version, test_dataset) if test_dataset else []
        digest = client.model(job.model_version).parameters_sha256
    if as_json:
        print_json(_result(job, summary, evaluation, digest, seconds) | {"notes": said + scored})
        return
    _show_result(job, summary, digest, seconds)
    if evaluation:
        show_notes(scored)
        show_evaluation(evaluation, str(test_dataset))


def watch(
    job: Annotated[str, typer.Argument(help="Job to follow.")],
    after_sequence: Annotated[int, typer.Option("--after", help="Leave out events up to this one.")] = 0,
    server: Server = SERVER,
    as_json: Json = False,
) -> None:
    """Follow a job to its end; it goes on when you stop watching."""
    with connect(server) as client:
        found = client.job(job)  # a server or job that is not there is told at once
        if as_json:
            events = [fields_of(event) for event in client.progress(found, after_sequence)]
            print_json({"job": fields_of(client.job(found)), "events": events})
            return
        with _hint_at_interrupt(_watch_hint(found, server)):
            follow.show(client.progress(found, after_sequence))
            ended = client.wait(found)
        console.print(f"{ended.name} {state_of(ended)}: {ended.model_version}")


def jobs(server: Server = SERVER, as_json: Json = False) -> None:
    """List jobs, newest first."""
    with connect(server) as client:
        found = list(client.jobs())
    if as_json:
        print_json({"jobs": [fields_of(job) for job in found]})
        return
    rows = table("job", "state", "epoch#", "model version", "created", "error")
    for job in found:
        epoch = f"{job.progress.epoch}/{job.progress.epoch_count}"
        created = job.create_time.ToDatetime().isoformat(" ", "seconds")
        name = job.name.removeprefix("trainingJobs/")
        rows.add_row(name, state_of(job), epoch, job.model_version, created, escape(job.error.message))
    console.print(rows)


def cancel(
    job: Annotated[str, typer.Argument(help="Job to cancel.")], server: Server = SERVER, as_json: Json = False
) -> None:
    """End a job; its device is freed first."""
    with connect(server) as client:
        answer = client.cancel(job)
    if as_json:
        print_json({"job": fields_of(answer)})
    else:
        console.print(f"{answer.name} is {state_of(answer)}")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (with_settings(train), watch, jobs, cancel):
        app.command()(command)


@contextmanager
def reachable(server: str, *, embedded: bool, data_directory: Path | None) -> Iterator[str]:
    """Give the address of the server, or of an embedded one where none answers and that is wished for."""
    if embedded and not answers(server):
        with embedded_server(data_directory) as address:
            yield address
    else:
        yield server


@contextmanager
def _hint_at_interrupt(hint: str) -> Iterator[None]:
    """Print ``hint`` when Ctrl-C ends the following of a job, which goes on."""
    try:
        yield
    except KeyboardInterrupt:
        print(hint, file=sys.stderr)
        raise


def _watch_hint(job: TrainingJob, server: str) -> str:
    job_id = job.name.removeprefix("trainingJobs/")
    return f"the job goes on; follow it with: mlpd watch {job_id} --server {server}"


def _embedded_hint(data_directory: Path | None) -> str:
    if data_directory is None:
        return "the job ends with its embedded server; with --data-dir it could go on later"
    return f"the job stops with its embedded server; let it go on with: mlpd serve --data-dir {data_directory}"


def asked_spec(
    config: Path | None, preset: str | None, flags: Mapping[str, Any]
) -> tuple[TrainingSpec, dict[str, Any]]:
    """Return the spec that a TOML file, a preset and flags ask for, and what else the file says of a job.

    Raises `InvalidRequest`.
    """
    settings = _from_file(config) | {name: parsed(name, value) for name, value in flags.items() if value is not None}
    others = {name: settings.pop(name) for name in _FILE_SETTINGS & settings.keys()}
    return training_spec(preset or others.get("preset"), **settings), others


def _from_file(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidRequest(f"{path} can't be read as TOML: {error}") from error
    if unknown := settings.keys() - SETTINGS.keys() - _FILE_SETTINGS:
        known = ", ".join(sorted(SETTINGS.keys() | _FILE_SETTINGS))
        raise InvalidRequest(f"{path.name} must set only {known}, got {', '.join(sorted(unknown))}")
    for name in sorted(_FILE_SETTINGS & settings.keys()):
        check_kind(name, settings[name])
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
