"""The processes of a server, by the kernel's word."""

from pathlib import Path


def children_of(pid: int) -> list[int]:
    """Return the process ids of a process's children."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def worker_of(server) -> int:
    """Return the process id of the server's worker."""
    children = children_of(server.process.pid)
    (worker,) = (pid for pid in children if "mlpd.server.worker" in Path(f"/proc/{pid}/cmdline").read_text())
    return worker
