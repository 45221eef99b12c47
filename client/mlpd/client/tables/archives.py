"""Files of arrays: .npy, and .npz with the arrays inputs (or x), labels (or y) or targets, weights and input_names."""

import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mlpd.client.columns import check_names, listed, places_of
from mlpd.client.errors import InvalidRequest
from mlpd.client.tables.columns import Column
from mlpd.client.tables.table import LabelledTable, Table
from numpy.typing import NDArray

Array = NDArray[np.generic]

_INPUTS, _LABELS = ("inputs", "x", "X", "data"), ("labels", "y", "Y", "target")
_TARGETS, _WEIGHTS, _NAMES = ("targets",), ("weights",), ("input_names",)


def is_archive(data: Any) -> bool:
    """Whether data are a path of a file of arrays."""
    return isinstance(data, str | Path) and Path(data).suffix.lower() in (".npy", ".npz")


def check_unset(path: Path, options: Mapping[str, Any]) -> None:
    """Raise `InvalidRequest` for an option of tables."""
    for name, value in options.items():
        if value not in (None, "", (), []):
            raise InvalidRequest(f"{name} must be unset for a {path.suffix} file, got {value}")


def read_labelled_arrays(path: Path) -> LabelledTable:
    """Return the rows of an .npz, and what to learn of them; raises `InvalidRequest` where it lacks either."""
    if path.suffix.lower() == ".npy":
        raise InvalidRequest(f"{path.name} must be a file with labels or targets, got an .npy, which has rows alone")
    arrays, others = _npz(path)
    _, inputs, names = _inputs_of(path, arrays)
    answer = _only(path, arrays, (*_LABELS, *_TARGETS))
    role = "targets" if answer in _TARGETS else "labels"
    return LabelledTable(
        inputs=inputs,
        columns=tuple(map(Column, names)),
        left_out=others,
        labels=arrays[answer] if role == "labels" else None,
        targets=arrays[answer] if role == "targets" else None,
        weights=arrays.get("weights"),
        sources={role: (answer,)} | {name: (name,) for name in _WEIGHTS if name in arrays},
    )


def read_row_arrays(path: Path, wanted: Sequence[Column], owner: str) -> Table:
    """Return the rows of an .npy or .npz; where both have names, columns are matched with those that are ``wanted``."""
    if path.suffix.lower() == ".npy":
        return Table(_load(path))
    arrays, others = _npz(path)
    name, inputs, names = _inputs_of(path, arrays)
    left_out = (*(other for other in arrays if other not in (name, *_NAMES)), *others)
    if not (names and wanted):
        return Table(inputs, tuple(map(Column, names)), left_out=left_out)
    places, extra = places_of(path.name, names, [column.name for column in wanted], owner)
    return Table(inputs[:, places], tuple(wanted), left_out=(*left_out, *extra))


def _load(path: Path) -> Array:
    try:
        array: Array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise InvalidRequest(f"{path} can't be read as NumPy arrays: {_one_line(error)}") from error
    return array


def _npz(path: Path) -> tuple[dict[str, Array], tuple[str, ...]]:
    """Return the arrays that have a meaning here, and the names of the others."""
    known = {*_INPUTS, *_LABELS, *_TARGETS, *_WEIGHTS, *_NAMES}
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files if name in known}
            return arrays, tuple(name for name in archive.files if name not in known)
    except (ValueError, EOFError, OSError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise InvalidRequest(f"{path} can't be read as NumPy arrays: {_one_line(error)}") from error


def _inputs_of(path: Path, arrays: dict[str, Array]) -> tuple[str, Array, tuple[str, ...]]:
    """Return what the inputs are called, the inputs, and the names of their columns."""
    name = _only(path, arrays, _INPUTS)
    inputs, texts = arrays[name], arrays.get("input_names", np.empty(0, "U1"))
    if texts.ndim != 1 or texts.dtype.kind != "U":
        raise InvalidRequest(f"input_names in {path.name} must be texts, got {texts.dtype} {list(texts.shape)}")
    names = tuple(texts.tolist())
    if names:
        check_names(f"input_names in {path.name}", names, inputs.shape[1] if inputs.ndim == 2 else 0)
    return name, inputs, names


def _only(path: Path, arrays: Iterable[str], names: Sequence[str]) -> str:
    """Return which one of ``names`` there is."""
    found = [name for name in names if name in arrays]
    if len(found) != 1:
        known = " or ".join(names[:2]) if names is _INPUTS else f"{_LABELS[0]}, {_LABELS[1]} or {_TARGETS[0]}"
        got = listed(found or sorted(arrays)) or "none"
        raise InvalidRequest(f"{path.name} must hold one array called {known}, got {got}")
    return found[0]


def _one_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
