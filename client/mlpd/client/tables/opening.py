"""Which `Source` reads a path or a frame."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlpd.client.columns import is_frame
from mlpd.client.errors import InvalidRequest
from mlpd.client.kinds import check_unset
from mlpd.client.tables.dates import DATE_ORDERS
from mlpd.client.tables.delimited import Delimited
from mlpd.client.tables.files import COMPRESSIONS, OnProgress
from mlpd.client.tables.frames import TYPED_SUFFIXES, frame_source, open_typed
from mlpd.client.tables.source import Source

_DELIMITED_SUFFIXES = (".csv", ".tsv", ".txt")
_WAYS = {
    ".zip": "unpack it",
    ".json": "write an object a line, as .jsonl",
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "save it as .csv there"),
}


def is_table(data: Any) -> bool:
    """Whether data in memory are a table of named columns: a frame of any library."""
    return hasattr(data, "__arrow_c_stream__") or hasattr(data, "__dataframe__") or is_frame(data)


def open_source(data: Any, options: Mapping[str, Any], on_progress: OnProgress | None = None) -> Source:
    """Open a path or a frame; ``options`` say how its texts are written. Raises `InvalidRequest` for anything else."""
    date_order = options.get("date_order") or ""
    if date_order and date_order not in DATE_ORDERS:
        raise InvalidRequest(f"date_order must be one of {', '.join(DATE_ORDERS)}, got {date_order[:40]!r}")
    said = {name: value for name, value in options.items() if value not in (None, "") and name != "date_order"}
    source = _opened(data, said, on_progress)
    source.notation = replace(source.notation, date_order=date_order)
    return source


def _opened(data: Any, options: Mapping[str, Any], on_progress: OnProgress | None) -> Source:
    if not isinstance(data, str | Path):
        if not is_table(data):
            raise InvalidRequest(f"data must be a path, a frame or an array, got {type(data).__name__}")
        check_unset(options, "be unset for a frame")
        return frame_source("inputs", data)
    path = Path(data)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    suffix = suffixes[-2] if len(suffixes) > 1 and suffixes[-1] in COMPRESSIONS else path.suffix.lower()
    if suffix in _DELIMITED_SUFFIXES:
        return Delimited(path, **options, on_progress=on_progress)
    if suffix in TYPED_SUFFIXES:
        check_unset(options, f"be unset for a {suffix} file")
        return open_typed(path, on_progress)
    known = ", ".join((*_DELIMITED_SUFFIXES, *TYPED_SUFFIXES, ".npz, .idx or a folder of pictures"))
    way = _WAYS.get(suffix, "rename it to what it holds, like .csv for lines of cells")
    raise InvalidRequest(f"{path.name} must be one of {known}, got {suffix or 'no suffix'}; {way}")
