"""``python -m mlpd.server``, which ``mlpd serve`` runs."""

import asyncio
import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, TextIO, cast

import structlog
import typer
from mlpd.server.daemon import PortTaken, serve
from mlpd.server.errors import StorageTrouble
from mlpd.server.options import ServerOptions
from mlpd.server.storage.artifacts import DatabaseMissing
from mlpd.server.storage.database import SchemaMismatch
from mlpd.server.storage.locking import DataDirectoryInUse
from sqlalchemy.exc import DatabaseError

_DEFAULTS = ServerOptions()

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    data_dir: Annotated[
        Path, typer.Option(envvar="MLPD_DATA_DIR", help="Everything the server keeps.", show_default="per user")
    ] = _DEFAULTS.data_directory,
    host: Annotated[str, typer.Option(envvar="MLPD_HOST", help="Address to listen on.")] = _DEFAULTS.host,
    port: Annotated[
        int, typer.Option(envvar="MLPD_PORT", min=0, max=65535, help="Port to listen on; 0 picks a free one.")
    ] = _DEFAULTS.port,
    running_jobs: Annotated[int, typer.Option(min=1, help="Jobs that run at the same time.")] = _DEFAULTS.running_jobs,
    queued_jobs: Annotated[int, typer.Option(min=1, help="Jobs that may wait.")] = _DEFAULTS.queued_jobs,
    threads: Annotated[
        int, typer.Option(min=1, help="Threads of a job.", show_default="one a core")
    ] = _DEFAULTS.thread_count,
    checkpoint_interval_seconds: Annotated[
        float, typer.Option(min=0.0, help="Time between a job's checkpoints.")
    ] = _DEFAULTS.checkpoint_interval_seconds,
    max_message_bytes: Annotated[
        int, typer.Option(min=65536, max=2**31 - 1, help="Largest request taken.")
    ] = _DEFAULTS.max_message_bytes,
    max_dataset_bytes: Annotated[
        int, typer.Option(min=1, help="Largest data set stored.")
    ] = _DEFAULTS.max_dataset_bytes,
    max_serving_bytes: Annotated[
        int,
        typer.Option(
            min=0, help="Memory for models that predict and evaluate.", show_default="a quarter of the machine's"
        ),
    ] = _DEFAULTS.max_serving_bytes,
    keep_jobs_days: Annotated[
        int | None,
        typer.Option(min=0, max=100_000, help="Delete jobs so many days after their end.", show_default="never"),
    ] = _DEFAULTS.keep_jobs_days,
    keep_versions: Annotated[
        int | None, typer.Option(min=1, help="Delete all but so many versions of each model.", show_default="none")
    ] = _DEFAULTS.keep_versions,
    announce: Annotated[bool, typer.Option(help="Print one line of JSON on stdout when ready.")] = False,
    until_stdin_closes: Annotated[bool, typer.Option(help="Drain and exit when stdin closes.")] = False,
) -> None:
    """Serve training, progress, evaluation and prediction over gRPC.

    SIGTERM or Ctrl-C drains: running jobs save a checkpoint and go on at the next start.
    """
    os.umask(0o077)  # what the server and its workers write is for their user alone
    _configure_logs()
    options = ServerOptions(
        data_directory=data_dir,
        host=host,
        port=port,
        running_jobs=running_jobs,
        queued_jobs=queued_jobs,
        thread_count=threads,
        checkpoint_interval_seconds=checkpoint_interval_seconds,
        max_message_bytes=max_message_bytes,
        max_dataset_bytes=max_dataset_bytes,
        max_serving_bytes=max_serving_bytes,
        keep_jobs_days=keep_jobs_days,
        keep_versions=keep_versions,
    )

    def ready(address: str) -> None:
        if announce:
            line = {"address": address, "pid": os.getpid(), "data_dir": str(data_dir.resolve())}
            print(json.dumps(line), flush=True)

    with _told(data_dir):
        asyncio.run(serve(options, ready, until_stdin_closes))


@contextmanager
def _told(data_directory: Path) -> Iterator[None]:
    """End the process with one sentence where a server can't start."""
    try:
        yield
    except (DataDirectoryInUse, PortTaken) as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"the data directory {data_directory} can't be used: {error.strerror or error}")
    except StorageTrouble as error:
        _fail(error.message)
    except DatabaseMissing as error:
        _fail(f"the data directory {data_directory} can't be used: {error}; nothing was changed")
    except SchemaMismatch as error:
        _fail(f"the database in {data_directory} can't be used: {error}; nothing was changed")
    except DatabaseError as error:
        _fail(f"the database in {data_directory} can't be opened: {error.orig}; nothing was changed")


def _configure_logs() -> None:
    terminal = sys.stderr.isatty()
    # Without local variables, which hold what callers send.
    tracebacks = structlog.processors.ExceptionRenderer(
        structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    )
    console = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([console] if terminal else [tracebacks, structlog.processors.JSONRenderer()]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Unfailing(sys.stderr))),
    )


class _Unfailing:
    """A stream for logs: what a full disk does not take is lost, and the server goes on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write as far as that is possible."""
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush as far as that is possible."""
        with suppress(OSError):
            self._stream.flush()


def _fail(sentence: str) -> None:
    print(f"mlpd: {sentence}", file=sys.stderr)
    raise SystemExit(1)


if __name__ == "__main__":
    app(prog_name="mlpd serve")
