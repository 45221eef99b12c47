"""The processes of a server, by the kernel's word."""

import json
import sqlite3
from contextlib import closing, suppress
from pathlib import Path


def children_of(pid: int) -> list[int]:
    """Return the process ids of a process's children."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def workers_among(pids: list[int]) -> list[int]:
    """Return the process ids of workers; until a process runs a worker's module, it shares its parent's memory."""
    return [pid for pid in pids if "mlpd.server.executors.worker" in _command_of(pid)]


def _command_of(pid: int) -> str:
    """Return a process's command line, an empty one where it has ended since it was listed."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""


def worker_of(server) -> int:
    """Return the process id of the server's worker."""
    (worker,) = workers_among(children_of(server.process.pid))
    return worker


def named_checkpoints(data_directory, job_id):
    """Return the steps of the checkpoints that a job's status names, the newest first."""
    query = "select checkpoints from job_statuses join jobs using (number) where id = ?"
    with closing(sqlite3.connect(data_directory / "mlpd.sqlite3")) as connection:
        ((text,),) = connection.execute(query, (job_id,))
    return [saved["step"] for saved in json.loads(text)]
