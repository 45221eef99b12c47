"""An attempt as its worker is told of it, in one line of JSON."""

import json
from dataclasses import dataclass
from pathlib import Path

from mlpd.core.codec import from_fields, to_fields
from mlpd.core.spec.training import TrainingSpec
from mlpd.server.records import CheckpointSaved

_CHECKPOINT = "checkpoint-"


@dataclass(frozen=True)
class Attempt:
    """One attempt at a job; paths are absolute, ``checkpoints`` newest first.

    ``reason`` is why it starts; ``environment``, in which the job's results so far were computed, "" = none yet.
    """

    job_id: str
    spec: TrainingSpec
    reason: str
    environment: str
    train_path: Path
    validation_path: Path | None
    test_path: Path | None
    source_path: Path | None
    job_directory: Path
    models_directory: Path
    kernels_directory: Path
    checkpoints: tuple[CheckpointSaved, ...]
    checkpoint_interval_seconds: float
    thread_count: int

    def checkpoint_path(self, step: int) -> Path:
        """Return the path of the checkpoint of ``step``."""
        return self.job_directory / f"{_CHECKPOINT}{step:012d}.safetensors"

    def checkpoint_files(self) -> list[Path]:
        """Return the files of checkpoints that are there now, in no order."""
        return list(self.job_directory.glob(f"{_CHECKPOINT}*.safetensors"))

    def to_line(self) -> bytes:
        """Return the attempt as one line; a long spec takes long, and lets other threads go on."""
        return "".join(json.JSONEncoder().iterencode(to_fields(self))).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> "Attempt":
        """Return the attempt that `to_line` wrote."""
        return from_fields(cls, json.loads(line))
