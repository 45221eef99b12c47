"""What a worker is told: one line of JSON, then orders."""

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from mlpd.core.spec import TrainingSpec
from mlpd.server.records import CheckpointSaved

# The newest may turn out torn by the disk; then the one before it serves.
CHECKPOINTS_KEPT = 2


class Order(StrEnum):
    """What a running worker can be told to do."""

    CANCEL = "cancel"
    DRAIN = "drain"


@dataclass(frozen=True)
class Task:
    """One attempt at a job; paths are absolute, ``checkpoints`` newest first."""

    job_id: str
    spec: TrainingSpec
    reason: str
    train_path: Path
    validation_path: Path | None
    job_directory: Path
    models_directory: Path
    checkpoints: tuple[CheckpointSaved, ...]
    checkpoint_interval_seconds: float
    thread_count: int

    def to_line(self) -> bytes:
        """Return the task as one line."""
        return json.dumps(asdict(self) | {"spec": self.spec.to_json()}, default=str).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> "Task":
        """Return the task that `to_line` wrote."""
        fields = json.loads(line)
        validation = fields["validation_path"]
        return cls(
            **fields
            | {
                "spec": TrainingSpec.from_json(fields["spec"]),
                "train_path": Path(fields["train_path"]),
                "validation_path": None if validation is None else Path(validation),
                "job_directory": Path(fields["job_directory"]),
                "models_directory": Path(fields["models_directory"]),
                "checkpoints": tuple(CheckpointSaved(**saved) for saved in fields["checkpoints"]),
            }
        )
