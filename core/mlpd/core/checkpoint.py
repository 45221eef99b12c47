"""Checkpoints: counters and flat vectors in one safetensors file that is whole, verified, or refused."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlpd.core.arrays import HostArray
from mlpd.core.codec import from_fields, to_fields
from mlpd.core.control import Monitor
from mlpd.core.files import FileDigest, write_atomic
from safetensors import SafetensorError
from safetensors.numpy import load, save

_METADATA_KEY = "mlpd"


class CheckpointError(ValueError):
    """A file is not the checkpoint or model it should be."""


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
    row_count: int
    elapsed_seconds: float
    monitor: Monitor


@dataclass(frozen=True)
class Checkpoint:
    """All that a run needs to go on as if it had never stopped; vectors are flat, in host memory."""

    counters: Counters
    vectors: Mapping[str, HostArray]


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> FileDigest:
    """Make ``checkpoint`` durable as ``path``; equal checkpoints give equal bytes."""
    return write_atomic(path, pack(checkpoint.vectors, to_fields(checkpoint.counters)))


def load_checkpoint(path: Path, sha256: str) -> Checkpoint:
    """Return the checkpoint in ``path``, or raise `CheckpointError` unless its bytes have the digest ``sha256``."""
    vectors, fields = unpack(path, sha256)
    try:
        return Checkpoint(from_fields(Counters, fields), vectors)
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path.name} must hold a checkpoint: {error}") from error


def pack(vectors: Mapping[str, HostArray], fields: Mapping[str, object]) -> bytes:
    """Return vectors and JSON fields as a safetensors file."""
    metadata = {_METADATA_KEY: json.dumps(fields, sort_keys=True, separators=(",", ":"))}
    return save(dict(vectors), metadata)


def unpack(path: Path, sha256: str) -> tuple[dict[str, HostArray], dict[str, Any]]:
    """Return what `pack` made, or raise `CheckpointError`."""
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise CheckpointError(f"{path.name} must have the SHA-256 {sha256}, got {found}")
    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        return load(content), json.loads(header["__metadata__"][_METADATA_KEY])
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path.name} must be a safetensors file written by mlpd: {error}") from error
