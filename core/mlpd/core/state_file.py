"""Flat vectors and JSON fields in one safetensors file that is whole, verified, or refused."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

_METADATA_KEY = "mlpd"


class StateFileError(ValueError):
    """A file is not the checkpoint or model it should be."""


def pack(vectors: Mapping[str, NDArray[Any]], fields: Mapping[str, object]) -> bytes:
    """Return vectors and JSON fields as a safetensors file."""
    metadata = {_METADATA_KEY: json.dumps(fields, sort_keys=True, separators=(",", ":"))}
    return save(dict(vectors), metadata)


def unpack(path: Path, sha256: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return what `pack` made, or raise `StateFileError`."""
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise StateFileError(f"{path.name} must have the SHA-256 {sha256}, got {found}")
    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        return load(content), json.loads(header["__metadata__"][_METADATA_KEY])
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise StateFileError(f"{path.name} must be a safetensors file written by mlpd: {error}") from error
