"""``mlpd explain``: what a step of a training run consists of."""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from mlpd.client.arrays import dtype_of
from mlpd.client.cli.connection import COMPUTING_SECONDS, connect
from mlpd.client.cli.output import SERVER, Json, Server, console, print_json, table
from mlpd.client.cli.settings import SETTING_FLAGS, with_flags
from mlpd.client.cli.training import asked_spec, reachable
from mlpd.client.embedded import require_server
from mlpd.client.errors import MlpdError, PreconditionFailed
from mlpd.client.recipes import PRESETS


def explain(
    config: Annotated[Path | None, typer.Option(help="TOML file with settings; flags win.")] = None,
    preset: Annotated[str | None, typer.Option(help=f"Start from a recipe: {', '.join(PRESETS)}.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the run.", show_default="one a core")] = None,
    server: Server = SERVER,
    as_json: Json = False,
    **flags: Any,
) -> None:
    """Show the kernels of a training step, timed on this machine; nothing is trained.

    The server, or one of its own where none answers, says what the settings come to.
    """
    require_server()
    spec = asked_spec(config, preset, flags)
    with (
        reachable(server, embedded=True, data_directory=None) as address,
        connect(address, COMPUTING_SECONDS) as client,
    ):
        resolved = client.resolve(spec)
        dataset = client.dataset(resolved.train_dataset)
    answer = _explained(
        {
            "spec": base64.b64encode(resolved.SerializeToString()).decode(),
            "row_count": dataset.row_count,
            "dtype": dtype_of(dataset.data_type).name,
            "thread_count": threads or len(os.sched_getaffinity(0)),
        }
    )
    if as_json:
        print_json(answer)
        return
    rows = table("phase", "kernel", "tasks#", "bytes#", "operations#", "microseconds#")
    for line in answer["lines"]:
        numbers = (f"{line[name]:,}" for name in ("call_count", "bytes", "operations"))
        rows.add_row(line["phase"], line["name"], *numbers, f"{1e6 * line['seconds']:.1f}")
    console.print(rows)
    console.print(_summary(answer))


def _explained(request: dict[str, Any]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "mlpd.server.jobs.explaining"],
        input=json.dumps(request),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise MlpdError("the step could not be explained; what went wrong is above")
    answer: dict[str, Any] = json.loads(done.stdout)
    if error := answer.get("error"):
        raise PreconditionFailed(error)
    return answer


def _summary(answer: dict[str, Any]) -> str:
    how = f"{answer['block_count']} blocks of {answer['split']}" if answer["block_count"] > 1 else "one block"
    return (
        f"A step of {answer['rows_per_step']} rows, {answer['runner']}, in {how}: {answer['operations'] / 1e6:,.1f} "
        f"million floating-point operations, {answer['bytes'] / 1e6:,.1f} MB read and written, about "
        f"{1e6 * answer['step_seconds']:,.0f} microseconds on {answer['thread_count']} threads."
    )


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(with_flags(SETTING_FLAGS, explain))
