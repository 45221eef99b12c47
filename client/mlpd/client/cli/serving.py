"""``mlpd serve`` and ``mlpd info``."""

import os
import signal
import sys

import typer
from mlpd.client.cli.connection import connect
from mlpd.client.cli.fields import fields_of
from mlpd.client.cli.output import SERVER, Json, Server, console, print_json, size_text, table
from mlpd.client.embedded import require_server
from mlpd.v1 import types_pb2 as types
from rich.markup import escape


def serve(context: typer.Context) -> None:
    """Start a server; all options are the server's own (mlpd serve --help)."""
    require_server()
    signal.setitimer(signal.ITIMER_REAL, 0)  # a command's limit is not the server's, which would have no handler for it
    os.execv(sys.executable, [sys.executable, "-P", "-m", "mlpd.server", *context.args])  # noqa: S606 - our own module


def info(server: Server = SERVER, as_json: Json = False) -> None:
    """Tell a server's version, devices, limits, queue and disk usage."""
    with connect(server) as client:
        answer = client.server_info
    if as_json:
        print_json(fields_of(answer))
        return
    console.print(
        f"mlpd {answer.server_version} at {server}: "
        f"{answer.running_job_count} running, {answer.queued_job_count} queued"
    )
    rows = table("device", "usable", "description")
    for device in answer.devices:
        name = types.Device.Name(device.device).removeprefix("DEVICE_").lower()
        rows.add_row(name, "yes" if device.usable else "no", escape(device.description))
    console.print(rows)
    console.print(
        f"models in memory: {size_text(answer.serving_bytes)}, of at most {size_text(answer.max_serving_bytes)}"
    )
    usage = answer.disk_usage
    kinds = {
        "data sets": usage.dataset_bytes,
        "models": usage.model_bytes,
        "checkpoints": usage.job_bytes,
        "database": usage.database_bytes,
    }
    used = ", ".join(f"{name} {size_text(size_bytes)}" for name, size_bytes in kinds.items())
    console.print(f"on disk: {used}; {size_text(usage.free_bytes)} free")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})(
        serve
    )
    app.command()(info)
