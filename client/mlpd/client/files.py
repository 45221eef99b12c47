"""Rows and labels from a user's files: .npz, .npy and .csv."""

import csv
import zipfile
from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
from mlpd.client.errors import InvalidRequest
from numpy.typing import NDArray

Array = NDArray[np.generic]

_INPUT_NAMES, _LABEL_NAMES = ("inputs", "x", "X", "data"), ("labels", "y", "Y", "target")
_NAMES = (*_INPUT_NAMES, *_LABEL_NAMES, "targets", "weights")


def read_labelled(
    path: Path, label_column: str = "-1", target_columns: Sequence[str] = (), weight_column: str = ""
) -> dict[str, Array]:
    """Return what `Client.upload` takes, from an .npz or .csv file: inputs, labels or targets, and perhaps weights.

    An .npz holds the arrays inputs (or x), labels (or y) or targets, and weights; of a .csv, ``label_column`` is a
    column's name or number, negative from the end, or ``target_columns`` are several. Raises `InvalidRequest` with one
    sentence for a file that does not fit.
    """
    match path.suffix.lower():
        case ".npz":
            arrays = _npz(path)
            answers = "targets" if "targets" in arrays else "labels"
            known = ("targets",) if answers == "targets" else _LABEL_NAMES
            optional = {"weights": arrays["weights"]} if "weights" in arrays else {}
            return {"inputs": _named(path, arrays, _INPUT_NAMES), answers: _named(path, arrays, known)} | optional
        case ".csv":
            names, table = _csv(path)
            find = partial(_column, path, names, table.shape[1])
            chosen = {"weights": [find("weight_column", weight_column)]} if weight_column else {}
            if target_columns:
                chosen["targets"] = [find("target_columns", column) for column in target_columns]
            else:
                chosen["labels"] = [find("label_column", label_column)]
            taken = [column for columns in chosen.values() for column in columns]
            if len(set(taken)) < len(taken) or len(taken) == table.shape[1]:
                raise InvalidRequest(f"{path.name} must have columns left for inputs")
            found = {name: table[:, columns] for name, columns in chosen.items()}
            found |= {name: found[name][:, 0] for name in ("labels", "weights") if name in found}
            return {"inputs": np.delete(table, taken, axis=1), **found}
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
            return {name: archive[name] for name in archive.files if name in _NAMES}
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


def _column(path: Path, names: list[str], count: int, field: str, wanted: str) -> int:
    if wanted in names:
        return names.index(wanted)
    try:
        number = int(wanted)
    except ValueError:
        known = f"one of {', '.join(names)}" if names else "a number: the file has no header"
        raise InvalidRequest(f"{field} must be {known}, got {wanted}") from None
    if count < 2 or not -count <= number < count:
        raise InvalidRequest(f"{field} must be between {-count} and {count - 1} in {path.name}, got {number}")
    return number % count


def _one_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
