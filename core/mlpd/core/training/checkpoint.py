"""Checkpoints: counters and flat vectors in one safetensors file, written whole and verified when it is read."""

from dataclasses import dataclass
from pathlib import Path

from mlpd.core.codec import from_fields, to_fields
from mlpd.core.files import FileDigest, write_atomic
from mlpd.core.optimization.state import StateVectors
from mlpd.core.state_file import StateFileError, pack, unpack
from mlpd.core.training.control import Monitor


@dataclass(frozen=True)
class Counters:
    """Where a run stands: steps made, sums over the rows since its last report, its monitor, and the seconds spent.

    ``environment`` is what `environment_of` returns. ``optimizer_step`` counts on from that of the model that a full
    warm start takes over. ``elapsed_seconds`` stay 0 without a time limit.
    """

    spec_digest: str
    environment: str
    step: int
    optimizer_step: int
    loss_sum: float
    correct_count: int
    rows_since_report: int
    elapsed_seconds: float
    monitor: Monitor


@dataclass(frozen=True)
class Checkpoint:
    """All that a run needs to go on as if it had never stopped; vectors are flat, in host memory."""

    counters: Counters
    vectors: StateVectors


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> FileDigest:
    """Write ``checkpoint`` durably to ``path`` and return the file's digest; equal checkpoints give equal bytes."""
    return write_atomic(path, pack(checkpoint.vectors.named(), to_fields(checkpoint.counters)))


def load_checkpoint(path: Path, sha256: str) -> Checkpoint:
    """Return the checkpoint in ``path``, or raise `StateFileError` unless its bytes have the digest ``sha256``."""
    vectors, fields = unpack(path, sha256)
    try:
        return Checkpoint(from_fields(Counters, fields), StateVectors.from_named(vectors))
    except (KeyError, TypeError, ValueError) as error:
        raise StateFileError(f"{path.name} must hold a checkpoint: {error}") from error
