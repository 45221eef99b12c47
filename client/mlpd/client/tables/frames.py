"""Tables that know the types of their columns: frames, Parquet, Arrow and JSON lines."""

import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from mlpd.client.columns import check_names, frame_names, is_unnamed, listed
from mlpd.client.errors import InvalidRequest
from mlpd.client.tables.cells import is_category, kind_of
from mlpd.client.tables.files import COMPRESSIONS, OnProgress, watched
from mlpd.client.tables.header import Header
from mlpd.client.tables.libraries import load
from mlpd.client.tables.source import Source

_BATCH_ROWS = 65_536
_INDEX = re.compile(r"__index_level_\d+__")  # what pandas calls one without a name in a file
_FORMATS = {".parquet": "parquet", ".feather": "feather", ".arrow": "feather", ".ipc": "feather"}
TYPED_SUFFIXES = (*_FORMATS, ".jsonl", ".ndjson")


class Typed(Source):
    """A table of Arrow's, in memory or in a file that is read by the batch."""

    def __init__(
        self,
        name: str,
        content: Any,
        names: Sequence[str] | None = None,
        size_bytes: int = 0,
        on_progress: OnProgress | None = None,
    ) -> None:
        """Take all columns but for an index of pandas; they are called ``names``, None = as in ``content``.

        ``size_bytes`` is how large the file is that ``content`` is still to be read from.
        """
        self._content, self._size_bytes = content, size_bytes
        self.on_progress = on_progress
        index = _index_of(content.schema)
        self._fields = [field for field in content.schema if field.name not in index]
        if names is None:
            names = _checked(name, [field.name for field in self._fields])
        self.header = Header(name, len(self._fields), tuple(own for own in names if own not in index))
        self.notes = [f"left out, as an index is no column: {listed(index)}"] if index else []
        self.kinds = [kind_of(field.type) for field in self._fields]
        self.categories = [place for place, field in enumerate(self._fields) if is_category(field.type)]

    def batches(self, columns: Sequence[int], texts: Collection[int]) -> Iterator[list[Any]]:
        """Yield the ``columns``, each in its own type."""
        arrow = load("pyarrow", self.header.table)
        for column in columns:
            if not self.kinds[column]:
                rule = "must hold numbers, true or false, texts or dates"
                way = f"leave it out: --leave-out {quote(self.header.name(column))} (leave_out=[...])"
                place = f"{self.header.table}, {self.header.place(column)},"
                raise InvalidRequest(f"{place} {rule}, got {str(self._fields[column].type)[:40]}; {way}")
        wanted = [self._fields[column].name for column in columns]
        try:
            if isinstance(self._content, arrow.Table):
                for batch in self._content.select(wanted).to_batches(_BATCH_ROWS):
                    yield batch.columns
            else:
                row_count, rows = self._content.count_rows(), 0
                for batch in self._content.to_batches(columns=wanted, batch_size=_BATCH_ROWS):
                    yield batch.columns
                    rows += len(batch)
                    if self.on_progress:  # Arrow says no bytes
                        self.on_progress(self._size_bytes * rows // max(row_count, 1), self._size_bytes)
        except (arrow.ArrowException, OSError) as error:
            raise _unreadable(self.header.table, error) from error

    def where(self, row: int) -> str:
        """Return how an error names a row."""
        return f"{self.header.table}, row {row}"


def open_typed(path: Path, on_progress: OnProgress | None = None) -> Typed:
    """Open a .parquet, .feather, .arrow or JSON lines file; raises `InvalidRequest` where it is none."""
    arrow = load("pyarrow", path.name)
    compression = COMPRESSIONS.get(path.suffix.lower())
    suffix = (path.suffixes[-2] if compression and len(path.suffixes) > 1 else path.suffix).lower()
    try:
        if suffix in _FORMATS:
            content = load("pyarrow.dataset", path.name).dataset(str(path), format=_FORMATS[suffix])
        else:
            with watched(path, on_progress) as raw:
                file = arrow.CompressedInputStream(raw, compression) if compression else raw
                content = load("pyarrow.json", path.name).read_json(file)
    except (arrow.ArrowException, OSError) as error:
        raise _unreadable(str(path), error) from error
    return Typed(path.name, content, None, path.stat().st_size, on_progress)


def frame_source(name: str, frame: Any) -> Typed:
    """Take a frame of any library; its index is not a column. Raises `InvalidRequest` for what is no table."""
    arrow = load("pyarrow", name)
    names = None
    if hasattr(frame, "to_frame") and not hasattr(frame, "columns"):
        way = "a row of pandas is frame.iloc[[0]], a column is series.to_frame()"
        raise InvalidRequest(f"{name} must be a table, got a {type(frame).__name__}; {way}")
    if isinstance(frame, arrow.RecordBatch):
        frame = arrow.Table.from_batches([frame])
    if hasattr(frame, "columns") and not isinstance(frame, arrow.Table):
        names = frame_names(name, frame)
    try:
        if type(frame).__module__.startswith("pandas"):
            table = arrow.Table.from_pandas(frame, preserve_index=False)
        elif hasattr(frame, "__arrow_c_stream__"):
            table = arrow.table(frame)
        elif hasattr(frame, "__dataframe__"):
            table = load("pyarrow.interchange", name).from_dataframe(frame)
        else:
            table = arrow.table({str(label): arrow.array(frame[label]) for label in frame.columns})
    except (arrow.ArrowException, TypeError, ValueError) as error:
        raise InvalidRequest(f"{name} must be a table: {_one_line(error)}") from error
    return Typed(name, table, names)


def _index_of(schema: Any) -> list[str]:
    """Return which columns are an index of pandas, as it says in the files that it writes."""
    said = (schema.pandas_metadata or {}).get("index_columns", ())
    return [name for name in schema.names if name in said or _INDEX.fullmatch(name)]


def _checked(name: str, names: list[str]) -> list[str]:
    check_names(name, names, len(names))
    if unnamed := [own for own in names if is_unnamed(own)]:
        raise InvalidRequest(f"{name} must have a name for each column, got {unnamed[0]!r}; leave it out if an index")
    return names


def _unreadable(what: str, error: Exception) -> InvalidRequest:
    return InvalidRequest(f"{what} can't be read as a table: {_one_line(error)}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
