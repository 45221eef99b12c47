"""What a server is started with."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from mlpd.core.devices.arrays import Cpu

DEFAULT_PORT = 6573


def default_data_directory() -> Path:
    """Return ``$XDG_DATA_HOME/mlpd``, by default ``~/.local/share/mlpd``."""
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "mlpd"


def default_serving_bytes() -> int:
    """Return a quarter of the machine's memory, or of what its control group leaves of it; 1 GiB where unknown."""
    return Cpu().memory_bytes() // 4 or 2**30


@dataclass(frozen=True)
class ServerOptions:
    """Every choice of an operator, with its default."""

    data_directory: Path = field(default_factory=default_data_directory)
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT  # 0 = any free one
    running_jobs: int = 1
    queued_jobs: int = 10_000
    thread_count: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    checkpoint_interval_seconds: float = 5.0
    drain_seconds: float = 25.0
    stop_seconds: float = 10.0
    body_seconds: float = 30.0
    max_message_bytes: int = 32 * 1024 * 1024
    max_dataset_bytes: int = 16 * 1024 * 1024 * 1024
    max_serving_bytes: int = field(default_factory=default_serving_bytes)
    keep_jobs_days: int | None = None  # None = for ever
    keep_versions: int | None = None  # None = all
