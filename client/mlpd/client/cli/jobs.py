"""``mlpd watch``."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from mlpd.client.cli import follow
from mlpd.client.cli.connection import connect
from mlpd.client.cli.fields import fields_of
from mlpd.client.cli.output import (
    SERVER,
    Json,
    Server,
    console,
    print_json,
    state_of,
)
from mlpd.v1.trainer_service_pb2 import TrainingJob


def watch(
    job: Annotated[str, typer.Argument(help="Job to follow.")],
    after_sequence: Annotated[int, typer.Option("--after", help="Leave out events up to this one.")] = 0,
    server: Server = SERVER,
    as_json: Json = False,
) -> None:
    """Follow a job to its end; it goes on when you stop watching. With --json, a line each event, the job last."""
    with connect(server) as client:
        found = client.job(job)  # a server or job that is not there is told at once
        if as_json:
            for event in client.progress(found, after_sequence):
                print_json({"event": fields_of(event)})
            print_json({"job": fields_of(client.job(found))})
            return
        with hint_at_interrupt(watch_hint(found, server)):
            follow.show(client.progress(found, after_sequence))
            ended = client.wait(found)
        console.print(f"{ended.name} {state_of(ended)}: {ended.model_version}")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(watch)


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
