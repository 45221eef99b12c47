"""``mlpd watch``, ``jobs`` and ``cancel``."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from mlpd.client.cli import follow
from mlpd.client.cli.connection import connect
from mlpd.client.cli.output import (
    SERVER,
    Json,
    Server,
    console,
    fields_of,
    print_json,
    state_of,
    table,
)
from mlpd.v1.trainer_service_pb2 import TrainingJob
from rich.markup import escape


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
        with hint_at_interrupt(watch_hint(found, server)):
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
    for command in (watch, jobs, cancel):
        app.command()(command)


@contextmanager
def hint_at_interrupt(hint: str) -> Iterator[None]:
    """Print ``hint`` when Ctrl-C ends the following of a job, which goes on."""
    try:
        yield
    except KeyboardInterrupt:
        print(hint, file=sys.stderr)
        raise


def watch_hint(job: TrainingJob, server: str) -> str:
    """Return how a job is followed again."""
    job_id = job.name.removeprefix("trainingJobs/")
    return f"the job goes on; follow it with: mlpd watch {job_id} --server {server}"
