"""The command line: ``mlpd``."""

import json
import sys
from importlib.metadata import version
from typing import Annotated, NoReturn

import typer
from mlpd.client.cli import datasets, explaining, housekeeping, inference, jobs, output, quickstart, serving, training
from mlpd.client.cli.connection import (
    COMPUTING_SECONDS,
    LOOKING_UP_SECONDS,
    LimitReached,
    chosen_seconds,
    end_after,
)
from mlpd.client.errors import DeadlineExceeded, MlpdError

app = typer.Typer(
    name="mlpd",
    help="Train multilayer perceptrons on a server, follow them, evaluate and predict.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"mlpd {version('mlpd')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    timeout_seconds: Annotated[
        float | None,
        typer.Option(
            envvar="MLPD_TIMEOUT_SECONDS",
            min=0.0,
            help="How long a call may take, and go on trying where no server answers yet.",
            show_default=f"{LOOKING_UP_SECONDS:g}, or {COMPUTING_SECONDS:g} where something is computed or sent",
        ),
    ] = None,
    limit_seconds: Annotated[
        float | None,
        typer.Option(
            envvar="MLPD_LIMIT_SECONDS",
            min=0.001,
            max=1e7,
            help="End the command after so long, following a job too; a server's jobs go on.",
            show_default="no limit",
        ),
    ] = None,
) -> None:
    """Take the options that stand before a command."""
    chosen_seconds.set(timeout_seconds)
    if limit_seconds:
        end_after(limit_seconds)


for module in (quickstart, serving, training, jobs, housekeeping, explaining, inference):
    module.register(app)
app.add_typer(datasets.app, name="datasets")


def main() -> None:
    """Run the command line and exit: 0 done, 1 failed with one sentence, 2 wrong usage, 130 interrupted."""
    try:
        app()
    except LimitReached as reached:
        _fail(DeadlineExceeded(str(reached), "LIMIT_REACHED"))
    except MlpdError as error:
        _fail(error)


def _fail(error: MlpdError) -> NoReturn:
    if "--json" in sys.argv:
        print(json.dumps({"error": {"message": error.message, "reason": error.reason, "fields": error.fields}}))
    else:
        print(f"mlpd: {output.plain(error.message)}", file=sys.stderr)
    sys.exit(1)
