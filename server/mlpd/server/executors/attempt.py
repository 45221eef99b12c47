"""What a worker is told: one line of JSON, then orders."""

import json
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from pathlib import Path

from mlpd.core.spec.training import TrainingSpec
from mlpd.server.records import CheckpointSaved

# The newest may turn out torn by the disk; then the one before it serves.
CHECKPOINTS_KEPT = 2


class Order(StrEnum):
    """What a running worker can be told to do."""

    CANCEL = "cancel"
    DRAIN = "drain"


@dataclass(frozen=True)
class Task:
    """One attempt at a job; paths are absolute, ``checkpoints`` newest first.

    ``environment`` is where its results so far were computed; empty where there are none.
    """

    job_id: str
    spec: TrainingSpec
    reason: str
    environment: str
    train_path: Path
    validation_path: Path | None
    source_path: Path | None
    job_directory: Path
    models_directory: Path
    kernels_directory: Path
    checkpoints: tuple[CheckpointSaved, ...]
    checkpoint_interval_seconds: float
    thread_count: int

    def checkpoint_path(self, step: int) -> Path:
        """Return the file of the checkpoint of ``step``."""
        return self.job_directory / f"checkpoint-{step:012d}.safetensors"

    def to_line(self) -> bytes:
        """Return the task as one line."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values |= {"spec": self.spec.to_json(), "checkpoints": [asdict(saved) for saved in self.checkpoints]}
        return json.dumps(values, default=str).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> "Task":
        """Return the task that `to_line` wrote."""
        values = json.loads(line)
        return cls(
            **values
            | {
                "spec": TrainingSpec.from_json(values["spec"]),
                "train_path": Path(values["train_path"]),
                "validation_path": _path(values["validation_path"]),
                "source_path": _path(values["source_path"]),
                "job_directory": Path(values["job_directory"]),
                "models_directory": Path(values["models_directory"]),
                "kernels_directory": Path(values["kernels_directory"]),
                "checkpoints": tuple(CheckpointSaved(**saved) for saved in values["checkpoints"]),
            }
        )


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)
