"""Rows and labels from a user's files: .npz, .npy and .csv."""

import csv
import zipfile
from itertools import chain
from pathlib import Path

import numpy as np
from mlpd.client.errors import InvalidRequest
from numpy.typing import NDArray

Array = NDArray[np.generic]

_INPUT_NAMES, _LABEL_NAMES = ("inputs", "x", "X", "data"), ("labels", "y", "Y", "target")


def read_labelled(path: Path, label_column: str = "-1") -> tuple[Array, Array]:
    """Return inputs (rows, width) and labels (rows,) of an .npz or .csv file.

    An .npz holds the arrays inputs and labels (or x and y); of a .csv, ``label_column`` is a column's name or
    number, negative from the end. Raises `InvalidRequest` with one sentence for a file that does not fit.
    """
    match path.suffix.lower():
        case ".npz":
            arrays = _npz(path)
            return _named(path, arrays, _INPUT_NAMES), _named(path, arrays, _LABEL_NAMES)
        case ".csv":
            names, table = _csv(path)
            column = _column(path, names, table.shape[1], label_column)
            return np.delete(table, column, axis=1), table[:, column]
        case suffix:
            raise InvalidRequest(f"{path.name} must be a .npz or .csv file, got {suffix or 'no suffix'}")


def read_rows(path: Path) -> Array:
    """Return the inputs (rows, ...) of an .npy, .npz or .csv file without labels."""
    match path.suffix.lower():
        case ".npy":
            return _load(path)
        case ".npz":
            return _named(path, _npz(path), _INPUT_NAMES)
        case ".csv":
            return _csv(path)[1]
        case suffix:
            raise InvalidRequest(f"{path.name} must be a .npy, .npz or .csv file, got {suffix or 'no suffix'}")


def _load(path: Path) -> Array:
    try:
        array: Array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise InvalidRequest(f"{path} can't be read as NumPy arrays: {_one_line(error)}") from error
    return array


def _npz(path: Path) -> dict[str, Array]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files if name in _INPUT_NAMES + _LABEL_NAMES}
    except (ValueError, EOFError, OSError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise InvalidRequest(f"{path} can't be read as NumPy arrays: {_one_line(error)}") from error


def _named(path: Path, arrays: dict[str, Array], names: tuple[str, ...]) -> Array:
    for name in names:
        if name in arrays:
            return arrays[name]
    raise InvalidRequest(f"{path.name} must hold an array called {' or '.join(names[:2])}, got {sorted(arrays)}")


def _csv(path: Path) -> tuple[list[str], Array]:
    """Return the column names, [] without a header, and the numbers (rows, columns) as float64."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            rows = ((reader.line_num, row) for row in reader if row)
            line, first = next(rows, (0, []))
            names = [] if all(_is_number(cell) for cell in first) else [cell.strip() for cell in first]
            numeric = rows if names or not first else chain([(line, first)], rows)
            table = [_numbers(path, line, row, len(first)) for line, row in numeric]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidRequest(f"{path} can't be read as CSV in UTF-8: {_one_line(error)}") from error
    if not table:
        raise InvalidRequest(f"{path.name} must hold at least one row of numbers, got none")
    return names, np.stack(table)


def _numbers(path: Path, line: int, row: list[str], columns: int) -> NDArray[np.float64]:
    if len(row) != columns:
        raise InvalidRequest(f"{path.name}, line {line}, must have {columns} cells as the first line, got {len(row)}")
    try:
        return np.fromiter(map(float, row), np.float64, columns)  # a list of floats takes four times the memory
    except ValueError:
        column, cell = next((number, cell) for number, cell in enumerate(row, 1) if not _is_number(cell))
        sentence = f"{path.name}, line {line}, column {column}, must be a number, got {cell[:40]!r}"
        raise InvalidRequest(sentence) from None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _column(path: Path, names: list[str], count: int, wanted: str) -> int:
    if wanted in names:
        return names.index(wanted)
    try:
        number = int(wanted)
    except ValueError:
        known = f"one of {', '.join(names)}" if names else "a number: the file has no header"
        raise InvalidRequest(f"label_column must be {known}, got {wanted}") from None
    if count < 2 or not -count <= number < count:
        raise InvalidRequest(f"label_column must be between {-count} and {count - 1} in {path.name}, got {number}")
    return number % count


def _one_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
