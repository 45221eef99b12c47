"""Text files of cells: separator, encoding, first line; and what is wrong, by line, where the library refuses one."""

import codecs
import csv
import io
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, islice, product
from pathlib import Path
from typing import Any, TextIO

from mlpd.client.errors import InvalidRequest
from mlpd.client.tables.files import COMPRESSIONS, OnProgress, Watched
from mlpd.client.tables.header import ASK_HEADER, Header, check_header, has_names, only_counts, shown
from mlpd.client.tables.kinds import MISSING, Notation, is_number
from mlpd.client.tables.libraries import load
from mlpd.client.tables.source import NeedsText, Source

_SEPARATORS = (",", ";", "\t", "|")
_SEPARATOR_WORDS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\r?\n?', re.IGNORECASE)  # as Excel writes and takes it
_SAMPLE_CHARACTERS, _LINE_LIMIT_CHARACTERS = 1024 * 1024, 4 * 1024 * 1024
_SAMPLE_ROWS, _SNIFFED_ROWS, _CODE_ROWS = 50, 20, 5000
_BLOCK_BYTES, _LARGE_BLOCK_BYTES, _BLOCK_ROWS = 1024 * 1024, 16 * 1024 * 1024, 4096
_BYTE_ORDER_MARKS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_OTHER_FORMATS = {
    b"\x1f\x8b": "gzip: name it .csv.gz",
    b"\x28\xb5\x2f\xfd": "zstd: name it .csv.zst",
    b"PK\x03\x04": "a zip archive or a workbook: unpack it, or save it as .csv",
    b"PAR1": "Parquet: name it .parquet",
}
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,(\d+)", re.ASCII)
_THOUSAND = re.compile(r"[+-]?[1-9]\d{0,2}\.\d{3}", re.ASCII)
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
        on_progress: OnProgress | None = None,
    ) -> None:
        self.on_progress = on_progress
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
        self.notes = []
        sample = self._sample()
        self._separator = _SEPARATOR_WORDS.get(separator, separator) or self._said_separator or self._sniff(sample)
        if len(self._separator) != 1 or self._separator in '"\r\n':
            raise InvalidRequest(f"separator must be one character, like , or ; or tab, got {separator!r}")
        if self._said_separator and not separator:
            self.notes.append(f"cells are separated by {self._separator!r}, as the first line says")
        rows = self._records(io.StringIO(sample, newline=""))
        found = list(islice(rows, _SAMPLE_ROWS))
        others = list(islice(rows, _CODE_ROWS - _SAMPLE_ROWS))
        if not found:
            raise self._without_rows()
        self.notation = Notation(decimal or self._decimal([cells for _, cells in chain(found, others)]))
        self._take_first_line(found)
        body = found[1:] if self.header.names else found
        if not body:
            raise self._without_rows(" below its header")
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
                told = self._arrow.PythonFile(Watched(self._path, raw, self.on_progress), "r")
                watched = _Checked(self._in_utf8(self._plain(told)))
                reader = self._csv.open_csv(
                    watched,
                    self._csv.ReadOptions(column_names=names, skip_rows=self._body_line, block_size=self._block_bytes),
                    self._csv.ParseOptions(delimiter=self._separator, newlines_in_values=True),
                    self._csv.ConvertOptions(
                        column_types=types,
                        include_columns=list(types),
                        null_values=_NULLS,
                        decimal_point=self.notation.decimal,
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
        if self.notation.decimal == "." and _DECIMAL_COMMA.fullmatch(text):
            return "; if its comma is a decimal point, say --decimal , (decimal=',')"
        return ""

    def _sample(self) -> str:
        try:
            with self._text() as file:
                sample = file.read(_SAMPLE_CHARACTERS)
                if len(sample.splitlines()) < 3:  # a header and a row, both whole
                    sample += file.read(_LINE_LIMIT_CHARACTERS - _SAMPLE_CHARACTERS)
                rest = file.read(1)
        except (OSError, UnicodeError, LookupError, self._arrow.ArrowInvalid) as error:
            raise self._explained(error) from error
        if not rest:
            return sample
        whole = max(sample.rfind("\n"), sample.rfind("\r")) + 1
        lines = len(sample[:whole].splitlines())
        if lines < 2:
            rule = f"must end within the first {_LINE_LIMIT_CHARACTERS:,} characters of the file"
            raise InvalidRequest(f"{self._path.name}, line {self._skipped + lines + 1}, {rule}")
        return sample[:whole]

    def _binary(self) -> Any:
        return self._arrow.OSFile(str(self._path))

    def _plain(self, raw: Any) -> Any:
        """Return a file's content, decompressed."""
        kind = COMPRESSIONS.get(self._path.suffix.lower())
        return self._arrow.CompressedInputStream(raw, kind) if kind else raw

    def _in_utf8(self, content: Any) -> Any:
        is_utf8 = codecs.lookup(self._codec.removesuffix("-sig")).name == "utf-8"
        return content if is_utf8 else self._arrow.transcoding_input_stream(content, self._codec, "utf-8")

    @contextmanager
    def _text(self) -> Iterator[TextIO]:
        """Open the file at what follows a line that only says the separator."""
        with self._binary() as raw:
            start = self._plain(raw).read(4)
        marks = [name for mark, name in _BYTE_ORDER_MARKS.items() if start.startswith(mark)]
        self._codec = marks[0] if marks else self._encoding or "utf-8"
        if not marks:
            self._check_start(start)
        with self._binary() as raw:
            first = io.TextIOWrapper(io.BufferedReader(self._plain(raw)), self._codec, newline="").readline(9)
        said = _SEPARATOR_LINE.fullmatch(first)
        self._said_separator, self._skipped = (said[1], 1) if said else ("", 0)
        with self._binary() as raw:
            file = io.TextIOWrapper(io.BufferedReader(self._plain(raw)), self._codec, newline="")
            if said:
                file.readline()
            yield file

    def _check_start(self, start: bytes) -> None:
        """Raise `InvalidRequest` for a file without a mark that begins as no text does."""
        for mark, way in _OTHER_FORMATS.items():
            if start.startswith(mark):
                raise InvalidRequest(f"{self._path.name} must be text, got {way}")
        if b"\0" in start and not self._encoding:
            guess = "utf-16-be" if start[:1] == b"\0" else "utf-16-le"
            way = f"if it is UTF-16 without its mark, say --encoding {guess}"
            raise InvalidRequest(f"{self._path.name} must be text, got a NUL byte at its beginning; {way}")

    def _records(self, file: TextIO) -> Iterator[tuple[int, list[str]]]:
        """Yield records with the numbers of their last lines, but for empty ones."""
        reader = csv.reader(file, delimiter=self._separator)
        for cells in reader:
            if cells:
                yield self._skipped + reader.line_num, cells

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
        if not fitting:
            self._check_first_line(sample)
        best = [separator for separator, share in fitting.items() if share == max(fitting.values())]
        if len(best) > 1:
            which = " or ".join(map(repr, best))
            raise InvalidRequest(f"{self._path.name} can be separated by {which}: say which, with --separator")
        return best[0] if best else max(widths, key=lambda separator: widths[separator])

    def _check_first_line(self, sample: str) -> None:
        """Raise `InvalidRequest` where all lines but the first have equally many cells."""
        for separator in _SEPARATORS:
            with suppress(csv.Error):
                reader = filter(None, csv.reader(io.StringIO(sample, newline=""), delimiter=separator))
                widths = [len(cells) for cells in islice(reader, _SNIFFED_ROWS)]
                if len(widths) > 2 and len(set(widths[1:])) == 1 and widths[1] > widths[0]:
                    rule = f"must have {widths[1]} cells as the lines after it, got {widths[0]}"
                    way = f"delete it if it is a title; a cell that holds {separator!r} must be in quotes"
                    raise InvalidRequest(f"{self._path.name}, line {self._skipped + 1}, {rule}; {way}")

    def _decimal(self, rows: list[list[str]]) -> str:
        """Return the decimal point; raises `InvalidRequest` where all that have one may be thousands: 1.234."""
        if self._separator == ",":
            return "."
        cells = [cell.strip() for row in rows for cell in row]
        commas = [found for cell in cells if (found := _DECIMAL_COMMA.fullmatch(cell))]
        points = [cell for cell in cells if "." in cell and is_number(cell)]
        if self._separator == ";" and points and not commas and all(map(_THOUSAND.fullmatch, points)):
            way = "say --decimal . (decimal='.') if it has a decimal point; else write thousands without one"
            raise InvalidRequest(f"{self._path.name} can hold thousands or fractions, like {points[0]}; {way}")
        if points or all(len(found[1]) == 3 for found in commas):  # 1,234 may be a thousand
            return "."
        self.notes.append("numbers have a decimal comma")
        return ","

    def _take_first_line(self, found: list[tuple[int, list[str]]]) -> None:
        table, (line, first) = self._path.name, found[0]
        names = [cell.strip() for cell in first]
        cells = [cell.replace(",", ".") if is_number(cell, self.notation.decimal) else cell for cell in names]
        if self._asked_header is None and len(found) > 1 and only_counts(cells):
            self.doubt = self._header_or_row(line, cells)
        self.has_header = has_names(table, line, cells) if self._asked_header is None else self._asked_header
        self.header = Header(table, len(first), tuple(names) if self.has_header else ())
        self._body_line = line if self.has_header else self._skipped
        if self.has_header:
            check_header(table, line, names, is_sure=self._asked_header is not None)

    def _header_or_row(self, line: int, cells: Sequence[str]) -> str:
        return f"{self._path.name}, line {line}, {shown(cells)}, can be a header or a row: {ASK_HEADER}"

    def _is_text(self, cell: str) -> bool:
        cell = cell.strip()
        return cell.lower() not in MISSING and not is_number(cell, self.notation.decimal)

    def _check_empty_lines(self) -> None:
        """Of a single column, an empty line would be a cell."""
        empty = 0
        with self._text() as file:
            for line, text in enumerate(file, self._skipped + 1):
                if text.strip("\r\n"):
                    if empty:
                        raise InvalidRequest(f"{self._path.name}, line {empty}, must hold a value, got an empty line")
                elif line > self._body_line:
                    empty = line

    def _check_lines(self) -> None:
        """Raise `InvalidRequest` for the first line that is no row of the table."""
        table, line = self._path.name, self._skipped
        count = self.header.count if hasattr(self, "header") else None
        try:
            with self._text() as file:
                reader = csv.reader(file, delimiter=self._separator, strict=True)
                for cells in reader:
                    count = count or len(cells)
                    line = self._skipped + reader.line_num
                    if cells and len(cells) != count:
                        rule = f"must have {count} cells as the first line, got {len(cells)}"
                        way = f"a cell that holds {self._separator!r} must be in quotes"
                        raise InvalidRequest(f"{table}, line {line}, {rule}; {way}")
                    if any("\0" in cell for cell in cells):
                        raise InvalidRequest(f"{table}, line {line}, must be text, got a NUL byte")
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
        kind = COMPRESSIONS.get(self._path.suffix.lower())
        way = (
            f"; it must be {kind}, all of it: make it again, or without {self._path.suffix} if it is text"
            if kind
            else ""
        )
        return InvalidRequest(f"{self._path} can't be read as CSV: {reason[:200]}{way}")

    def _not_decoded(self) -> str:
        way = "say which encoding it has, with --encoding, like latin-1 or cp1252"
        return f"it can't be read as CSV in {self._codec.removesuffix('-sig').upper()}; {way}"

    def _without_rows(self, where: str = "") -> InvalidRequest:
        return InvalidRequest(f"{self._path.name} must hold at least one row, got none{where}")


class _Checked(io.RawIOBase):
    """A binary file that counts the quotes and sees the NUL bytes that are read of it."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.quotes = 0
        self.has_nul = False

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        block: bytes = self._file.read(size)
        self.quotes += block.count(b'"')
        self.has_nul = self.has_nul or b"\0" in block
        return block
