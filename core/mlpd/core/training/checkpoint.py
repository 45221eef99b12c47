"""Checkpoints: counters and flat vectors in one safetensors file that is whole, verified, or refused."""

from dataclasses import dataclass
from pathlib import Path

from mlpd.core.codec import from_fields, to_fields
from mlpd.core.files import FileDigest, write_atomic
from mlpd.core.optimization.state import StateVectors
from mlpd.core.state_file import StateFileError, pack, unpack
from mlpd.core.training.control import Monitor


@dataclass(frozen=True)
class Counters:
    """Where a run stands: steps taken, sums since its last report, what its monitor has seen, seconds spent.

    ``environment`` is where it is computed, as `environment_of` tells.
    ``optimizer_step`` goes on counting where a full warm start has taken over a state.
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
    """Make ``checkpoint`` durable as ``path``; equal checkpoints give equal bytes."""
    return write_atomic(path, pack(checkpoint.vectors.named(), to_fields(checkpoint.counters)))


def load_checkpoint(path: Path, sha256: str) -> Checkpoint:
    """Return the checkpoint in ``path``, or raise `StateFileError` unless its bytes have the digest ``sha256``."""
    vectors, fields = unpack(path, sha256)
    try:
        return Checkpoint(from_fields(Counters, fields), StateVectors.from_named(vectors))
    except (KeyError, TypeError) as error:
        raise StateFileError(f"{path.name} must hold a checkpoint: {error}") from error
