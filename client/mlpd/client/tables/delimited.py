"""Text files of cells: separator, encoding, first line; and what is wrong, by line, where the library refuses one."""

import codecs
import csv
import io
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, islice, product
from pathlib import Path
from typing import Any, TextIO

from mlpd.client.errors import InvalidRequest
from mlpd.client.tables.header import ASK_HEADER, Header, check_header, has_names, only_counts, shown
from mlpd.client.tables.kinds import MISSING, is_number
from mlpd.client.tables.libraries import load
from mlpd.client.tables.source import NeedsText, Source

_SEPARATORS = (",", ";", "\t", "|")
_SEPARATOR_WORDS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|"}
_SAMPLE_CHARACTERS = 1024 * 1024
_SAMPLE_ROWS, _SNIFFED_ROWS, _CODE_ROWS = 50, 20, 5000
_BLOCK_BYTES, _LARGE_BLOCK_BYTES, _BLOCK_ROWS = 1024 * 1024, 16 * 1024 * 1024, 4096
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
_BYTE_ORDER_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,(\d+)", re.ASCII)
_CODE = re.compile(r"\s*0\d+\s*", re.ASCII)
_BAD_COLUMN = re.compile(r"In CSV column #(\d+):.* conversion error to double")
_NULLS = sorted({"".join(letters) for word in MISSING for letters in product(*({c, c.upper()} for c in word))})


class Delimited(Source):
    """A .csv, .tsv or .txt file, perhaps compressed, that is read in batches as often as wanted.

    ``header``, ``separator``, ``decimal`` and ``encoding`` are found in the file where they are None or empty. Raises
    `InvalidRequest` with the line for what is no table.
    """

    def __init__(
        self,
        path: Path,
        *,
        header: bool | None = None,
        separator: str = "",
        decimal: str = "",
        encoding: str = "",
    ) -> None:
        self._arrow = load("pyarrow", path.name)
        self._csv = load("pyarrow.csv", path.name)
        self._path, self._asked_header = path, header
        self._encoding = encoding
        if decimal not in ("", ".", ","):
            raise InvalidRequest(f"decimal must be . or , got {decimal[:40]!r}")
        try:
            self._look(separator, decimal)
        except csv.Error as error:  # a cell longer than any that is meant
            raise self._explained(error) from error

    def _look(self, separator: str, decimal: str) -> None:
        """Find out of the first rows what is not said."""
        sample = self._sample()
        self._separator = _SEPARATOR_WORDS.get(separator, separator) or self._sniff(sample)
        if len(self._separator) != 1 or self._separator in '"\r\n':
            raise InvalidRequest(f"separator must be one character, like , or ; or tab, got {separator!r}")
        self.notes = []
        rows = self._records(io.StringIO(sample, newline=""))
        found = list(islice(rows, _SAMPLE_ROWS))
        others = islice(rows, _CODE_ROWS - _SAMPLE_ROWS)
        if not found:
            raise self._without_rows()
        self.decimal = decimal or self._decimal([cells for _, cells in found])
        self._take_first_line(found)
        body = found[1:] if self.header.names else found
        if not body:
            raise self._without_rows()
        row_bytes = max(sum(map(len, cells)) + len(cells) for _, cells in found)
        self._block_bytes = max(_BLOCK_BYTES, 16 * row_bytes, min(_BLOCK_ROWS * row_bytes, _LARGE_BLOCK_BYTES))
        if self.header.count == 1:
            self._check_empty_lines()
        self.kinds = [
            "text" if any(self._is_text(cells[column]) for _, cells in body if column < len(cells)) else "number"
            for column in range(self.header.count)
        ]
        cells = ((place, cell) for _, row in chain(body, others) for place, cell in enumerate(row))
        self.codes = {place for place, cell in cells if cell.lstrip()[:1] == "0" and _CODE.fullmatch(cell)}

    def batches(self, columns: Sequence[int], texts: Collection[int]) -> Iterator[list[Any]]:
        """Yield the ``columns`` as arrays, some rows at a time: numbers, or of those in ``texts``, texts."""
        arrow, names = self._arrow, [str(column) for column in range(self.header.count)]
        types = {str(column): arrow.string() if column in texts else arrow.float64() for column in columns}
        watched = None
        try:
            with self._binary() as raw:
                watched = _Watched(self._in_utf8(self._plain(raw)), lambda: self._told(raw.tell()))
                reader = self._csv.open_csv(
                    watched,
                    self._csv.ReadOptions(column_names=names, skip_rows=self._body_line, block_size=self._block_bytes),
                    self._csv.ParseOptions(delimiter=self._separator, newlines_in_values=True),
                    self._csv.ConvertOptions(
                        column_types=types, include_columns=list(types), null_values=_NULLS, decimal_point=self.decimal
                    ),
                )
                for batch in reader:
                    yield batch.columns
        except (arrow.ArrowInvalid, OSError, UnicodeError) as error:
            raise self._explained(error) from error
        if watched.quotes % 2 or watched.has_nul:
            self._check_lines()

    def where(self, row: int) -> str:
        """Return how an error names a row."""
        try:
            with self._text() as file:
                line, _ = next(islice(self._records(file), row + bool(self.header.names), None))
        except csv.Error:
            return f"{self.header.table}, row {row}"
        return f"{self.header.table}, line {line}"

    def check_repeated_header(self) -> None:
        """Raise `InvalidRequest` for a row that is the header again; doubt one that is like any row of texts."""
        with self._text() as file:
            for line, cells in islice(self._records(file), 1, None):
                if tuple(cell.strip() for cell in cells) == self.header.names:
                    way = "a file must hold one table"
                    raise InvalidRequest(f"{self.header.table}, line {line}, repeats the header; {way}")
        if self.header.names and self._asked_header is None and all(kind == "text" for kind in self.kinds):
            self.doubt = self._header_or_row(self._body_line, self.header.names)

    def hint(self, row: int, text: str) -> str:
        """Return what to do about a cell that is not what its column holds."""
        if row == 0 and not self.header.names and self._asked_header is None:
            return "; if it names a column, say --header (header=True)"
        if self.decimal == "." and _DECIMAL_COMMA.fullmatch(text):
            return "; if its comma is a decimal point, say --decimal , (decimal=',')"
        return ""

    def _sample(self) -> str:
        try:
            with self._text() as file:
                sample = file.read(_SAMPLE_CHARACTERS)
                rest = file.read(1)
        except (OSError, UnicodeError, LookupError, self._arrow.ArrowInvalid) as error:
            raise self._explained(error) from error
        cut = max(sample.rfind("\n"), sample.rfind("\r")) + 1 if rest else len(sample)
        return sample[: cut or len(sample)]

    def _binary(self) -> Any:
        return self._arrow.OSFile(str(self._path))

    def _plain(self, raw: Any) -> Any:
        """Return a file's content, decompressed."""
        kind = _COMPRESSIONS.get(self._path.suffix.lower())
        return self._arrow.CompressedInputStream(raw, kind) if kind else raw

    def _in_utf8(self, content: Any) -> Any:
        is_utf8 = codecs.lookup(self._codec.removesuffix("-sig")).name == "utf-8"
        return content if is_utf8 else self._arrow.transcoding_input_stream(content, self._codec, "utf-8")

    def _told(self, done_bytes: int) -> None:
        if self.on_progress:
            self.on_progress(done_bytes, self._path.stat().st_size)

    @contextmanager
    def _text(self) -> Iterator[TextIO]:
        with self._binary() as raw:
            start = self._plain(raw).read(3)
        marks = [name for mark, name in _BYTE_ORDER_MARKS.items() if start.startswith(mark)]
        self._codec = marks[0] if marks else self._encoding or "utf-8"
        with self._binary() as raw:
            yield io.TextIOWrapper(io.BufferedReader(self._plain(raw)), self._codec, newline="")

    def _records(self, file: TextIO) -> Iterator[tuple[int, list[str]]]:
        """Yield records with the numbers of their last lines, but for empty ones."""
        reader = csv.reader(file, delimiter=self._separator)
        for cells in reader:
            if cells:
                yield reader.line_num, cells

    def _sniff(self, sample: str) -> str:
        """Return the separator by which the first lines have equally many cells, and most numbers."""
        fitting: dict[str, float] = {}
        widths: dict[str, int] = {}
        for separator in _SEPARATORS:
            lines: list[list[str]] = []
            with suppress(csv.Error):  # told of the separator that is taken
                reader = filter(None, csv.reader(io.StringIO(sample, newline=""), delimiter=separator))
                lines.extend(islice(reader, _SNIFFED_ROWS))
            widths[separator] = len(lines[0]) if lines else 0
            if widths[separator] > 1 and len({len(cells) for cells in lines}) == 1:
                cells = [cell for line in lines for cell in line]
                numbers = sum(is_number(cell.strip()) or is_number(cell.strip(), ",") for cell in cells)
                fitting[separator] = numbers / len(cells)
        best = [separator for separator, share in fitting.items() if share == max(fitting.values())]
        if len(best) > 1:
            which = " or ".join(map(repr, best))
            raise InvalidRequest(f"{self._path.name} can be separated by {which}: say which, with --separator")
        return best[0] if best else max(widths, key=lambda separator: widths[separator])

    def _decimal(self, rows: list[list[str]]) -> str:
        if self._separator == ",":
            return "."
        cells = [cell.strip() for row in rows for cell in row]
        commas = [found for cell in cells if (found := _DECIMAL_COMMA.fullmatch(cell))]
        points = any("." in cell and is_number(cell) for cell in cells)
        if points or all(len(found[1]) == 3 for found in commas):  # 1,234 may be a thousand
            return "."
        self.notes.append("numbers have a decimal comma")
        return ","

    def _take_first_line(self, found: list[tuple[int, list[str]]]) -> None:
        table, (line, first) = self._path.name, found[0]
        names = [cell.strip() for cell in first]
        cells = [cell.replace(",", ".") if is_number(cell, self.decimal) else cell for cell in names]
        if self._asked_header is None and len(found) > 1 and only_counts(cells):
            self.doubt = self._header_or_row(line, cells)
        self.has_header = has_names(table, line, cells) if self._asked_header is None else self._asked_header
        self.header = Header(table, len(first), tuple(names) if self.has_header else ())
        self._body_line = line if self.has_header else 0
        if self.has_header:
            check_header(table, line, names, is_sure=self._asked_header is not None)

    def _header_or_row(self, line: int, cells: Sequence[str]) -> str:
        return f"{self._path.name}, line {line}, {shown(cells)}, can be a header or a row: {ASK_HEADER}"

    def _is_text(self, cell: str) -> bool:
        cell = cell.strip()
        return cell.lower() not in MISSING and not is_number(cell, self.decimal)

    def _check_empty_lines(self) -> None:
        """Of a single column, an empty line would be a cell."""
        empty = 0
        with self._text() as file:
            for line, text in enumerate(file, 1):
                if text.strip("\r\n"):
                    if empty:
                        raise InvalidRequest(f"{self._path.name}, line {empty}, must hold a value, got an empty line")
                elif line > self._body_line:
                    empty = line

    def _check_lines(self) -> None:
        """Raise `InvalidRequest` for the first line that is no row of the table."""
        table, line = self._path.name, 0
        count = self.header.count if hasattr(self, "header") else None
        try:
            with self._text() as file:
                reader = csv.reader(file, delimiter=self._separator, strict=True)
                for cells in reader:
                    count = count or len(cells)
                    if cells and len(cells) != count:
                        rule = f"must have {count} cells as the first line, got {len(cells)}"
                        way = f"a cell that holds {self._separator!r} must be in quotes"
                        raise InvalidRequest(f"{table}, line {reader.line_num}, {rule}; {way}")
                    if any("\0" in cell for cell in cells):
                        raise InvalidRequest(f"{table}, line {reader.line_num}, must be text, got a NUL byte")
                    line = reader.line_num
        except csv.Error as error:
            raise InvalidRequest(
                f"{table}, line {line + 1}, must have its quotes in pairs, and short cells: {error}"
            ) from error
        except UnicodeError as error:
            raise InvalidRequest(f"{table}, after line {line}: {self._not_decoded()}") from error

    def _explained(self, error: Exception) -> Exception:
        """Return what to raise for an error of the library."""
        if (column := _BAD_COLUMN.search(str(error))) and "invalid UTF8" not in str(error):
            return NeedsText(int(column[1]))
        if isinstance(error, UnicodeError):
            return InvalidRequest(f"{self._path.name}: {self._not_decoded()}")
        if isinstance(error, LookupError):
            return InvalidRequest(f"encoding must be one that Python knows, like latin-1, got {self._encoding}")
        if isinstance(error, self._arrow.ArrowInvalid | csv.Error) and hasattr(self, "_separator"):
            try:
                self._check_lines()
            except InvalidRequest as found:
                return found
        if "Empty CSV" in str(error):
            return self._without_rows()
        reason = str(error).strip().split("\n")[0]
        return InvalidRequest(f"{self._path} can't be read as CSV: {reason[:200]}")

    def _not_decoded(self) -> str:
        way = "say which encoding it has, with --encoding, like latin-1 or cp1252"
        return f"it can't be read as CSV in {self._codec.removesuffix('-sig').upper()}; {way}"

    def _without_rows(self) -> InvalidRequest:
        return InvalidRequest(f"{self._path.name} must hold at least one row, got none")


class _Watched(io.RawIOBase):
    """A file that counts the quotes and sees the NUL bytes that are read of it, and tells how far it is."""

    def __init__(self, file: Any, told: Callable[[], None]) -> None:
        self._file = file
        self._told = told
        self.quotes = 0
        self.has_nul = False

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        block: bytes = self._file.read(size)
        self.quotes += block.count(b'"')
        self.has_nul = self.has_nul or b"\0" in block
        self._told()
        return block
