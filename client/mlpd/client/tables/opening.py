"""Which `Source` reads a path or a frame."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlpd.client.columns import is_frame
from mlpd.client.errors import InvalidRequest
from mlpd.client.tables.delimited import Delimited
from mlpd.client.tables.frames import TYPED_SUFFIXES, frame_source, open_typed
from mlpd.client.tables.source import Source

_DELIMITED_SUFFIXES = (".csv", ".tsv", ".txt")
_COMPRESSED_SUFFIXES = (".gz", ".zst")


def is_table(data: Any) -> bool:
    """Whether data in memory are a table of named columns: a frame of any library."""
    return hasattr(data, "__arrow_c_stream__") or hasattr(data, "__dataframe__") or is_frame(data)


def open_source(data: Any, options: Mapping[str, Any]) -> Source:
    """Open a path or a frame; ``options`` say how a text file is written. Raises `InvalidRequest` for anything else."""
    if not isinstance(data, str | Path):
        if not is_table(data):
            raise InvalidRequest(f"data must be a path, a frame or an array, got {type(data).__name__}")
        _check_text_options("a frame", options)
        return frame_source("inputs", data)
    path = Path(data)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    suffix = suffixes[-2] if len(suffixes) > 1 and suffixes[-1] in _COMPRESSED_SUFFIXES else path.suffix.lower()
    if suffix in (*_DELIMITED_SUFFIXES, *TYPED_SUFFIXES) and not path.exists():
        raise InvalidRequest(f"{path} can't be read: there is no such file")
    if suffix in _DELIMITED_SUFFIXES:
        return Delimited(path, **options)
    if suffix in TYPED_SUFFIXES:
        _check_text_options(f"a {suffix} file", options)
        return open_typed(path)
    known = ", ".join((*_DELIMITED_SUFFIXES, *TYPED_SUFFIXES, ".npz, .idx or a folder of pictures"))
    raise InvalidRequest(f"{path.name} must be one of {known}, got {suffix or 'no suffix'}")


def _check_text_options(what: str, options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        if value not in (None, ""):
            raise InvalidRequest(f"{name} must be unset for {what}, got {value}")
