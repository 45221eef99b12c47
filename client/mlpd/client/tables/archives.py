"""Files of arrays: .npy, .npz, IDX, folders of pictures.

An .npz holds the arrays inputs (or x), labels (or y) or targets, weights and input_names. Where ``target`` names the
array of labels, the inputs may have any name: they are the one other array (rows, ...) of as many rows.
"""

import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from mlpd.client.columns import check_names, listed, places_of
from mlpd.client.errors import InvalidRequest
from mlpd.client.kinds import check_unset
from mlpd.client.tables.answers import labels_like, named_labels
from mlpd.client.tables.columns import Column
from mlpd.client.tables.files import OnProgress, watched
from mlpd.client.tables.images import is_idx, read_folder, read_idx, read_labelled_folder, read_labelled_idx
from mlpd.client.tables.table import LabelledTable, Schema, Table
from numpy.typing import NDArray

Array = NDArray[np.generic]

_INPUTS, _LABELS = ("inputs", "x", "X", "data"), ("labels", "y", "Y", "target")
_TARGETS, _WEIGHTS, _NAMES = ("targets",), ("weights",), ("input_names",)


def is_archive(data: Any) -> bool:
    """Whether data are a path of a file of arrays, or of a folder."""
    if not isinstance(data, str | Path):
        return False
    path = Path(data)
    return path.suffix.lower() in (".npy", ".npz") or is_idx(path) or path.is_dir()


def read_labelled_arrays(
    path: Path, options: Mapping[str, Any], on_progress: OnProgress | None = None
) -> LabelledTable:
    """Return the rows of a file or folder, and what to learn of them; raises `InvalidRequest` where it lacks either."""
    target = options.get("target") or ""
    if not isinstance(target, str):
        if len(target) != 1:
            raise InvalidRequest(f"target must be one array of {path.name}, got {listed(target)}")
        (target,) = target
    if path.is_dir():
        check_unset(options, "be unset for a folder")
        return read_labelled_folder(path)
    others = {name: value for name, value in options.items() if name != "target"}
    check_unset(others, f"be unset for a {path.suffix} file")
    if is_idx(path):
        return read_labelled_idx(path, target)
    if path.suffix.lower() == ".npy":
        raise InvalidRequest(f"{path.name} must be a file with labels or targets, got an .npy, which has rows alone")
    return _labelled_archive(path, target, on_progress)


def arranged_like(table: LabelledTable, like: Schema) -> LabelledTable:
    """Return what arrays or pictures hold with the columns and classes of another table, by their names.

    Where either has no names, places count. Raises `InvalidRequest` for columns and classes that do not fit.
    """
    if table.columns and like.columns:
        found, wanted = table.input_names, [column.name for column in like.columns]
        places, extra = places_of("input_names", found, wanted, like.owner)
        left_out = (*table.left_out, *extra)
        table = replace(table, inputs=table.inputs[:, places], columns=like.columns, left_out=left_out)
    if table.labels is None or not (like.class_names or table.class_names):
        return table
    classes = like.class_names or tuple(map(str, range(like.class_count)))
    given = np.array(table.class_names)[table.labels.astype(np.int64)] if table.class_names else table.labels
    return replace(table, labels=labels_like(given, classes, like.owner), class_names=like.class_names)


def read_row_arrays(
    path: Path,
    wanted: Sequence[Column],
    owner: str,
    options: Mapping[str, Any],
    on_progress: OnProgress | None = None,
) -> Table:
    """Return the rows of a file or folder; where both have names, columns are matched with those ``wanted``."""
    what = "a folder" if path.is_dir() else f"a {path.suffix} file"
    check_unset(options, f"be unset for {what}")
    if path.is_dir():
        return read_folder(path)
    if is_idx(path):
        return Table(read_idx(path))
    if path.suffix.lower() == ".npy":
        return Table(_load(path, on_progress))
    arrays, others = _npz(path, on_progress)
    name, inputs, names = _inputs_of(path, arrays)
    left_out = (*(other for other in arrays if other not in (name, *_NAMES)), *others)
    if not (names and wanted):
        return Table(inputs, tuple(map(Column, names)), left_out=left_out)
    places, extra = places_of(path.name, names, [column.name for column in wanted], owner)
    return Table(inputs[:, places], tuple(wanted), left_out=(*left_out, *extra))


def _labelled_archive(path: Path, target: str, on_progress: OnProgress | None) -> LabelledTable:
    arrays, others = _npz(path, on_progress, everything=bool(target))
    if target and target not in arrays:
        raise InvalidRequest(f"target must be one of the arrays {listed(sorted(arrays))} of {path.name}, got {target}")
    answer = target or _only(path, arrays, (*_LABELS, *_TARGETS))
    role = "targets" if answer in _TARGETS else "labels"
    chosen, inputs, names = _inputs_of(path, arrays, answer if target else "")
    used = (chosen, answer, *_WEIGHTS, *_NAMES)
    found = named_labels(arrays[answer]) if role == "labels" else None
    return LabelledTable(
        inputs=inputs,
        columns=tuple(map(Column, names)),
        left_out=(*(name for name in arrays if name not in used), *others),
        labels=found.labels if found else arrays[answer] if role == "labels" else None,
        targets=arrays[answer] if role == "targets" else None,
        weights=arrays.get("weights"),
        class_names=found.class_names if found else (),
        sources={role: (answer,)} | {name: (name,) for name in _WEIGHTS if name in arrays},
    )


def _load(path: Path, on_progress: OnProgress | None) -> Array:
    try:
        with watched(path, on_progress) as file:
            array: Array = np.load(file, allow_pickle=False)
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise InvalidRequest(f"{path} can't be read as NumPy arrays: {_one_line(error)}") from error
    return array


def _npz(
    path: Path, on_progress: OnProgress | None, *, everything: bool = False
) -> tuple[dict[str, Array], tuple[str, ...]]:
    """Return the arrays that have a meaning here, or all, and the names of the others."""
    known = {*_INPUTS, *_LABELS, *_TARGETS, *_WEIGHTS, *_NAMES}
    try:
        with watched(path, on_progress) as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files if everything or name in known}
            return arrays, tuple(name for name in archive.files if name not in arrays)
    except (ValueError, EOFError, OSError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise InvalidRequest(f"{path} can't be read as NumPy arrays: {_one_line(error)}") from error


def _inputs_of(path: Path, arrays: dict[str, Array], target: str = "") -> tuple[str, Array, tuple[str, ...]]:
    """Return what the inputs are called, the inputs, and the names of their columns; ``target`` is what labels are."""
    name = _beside(path, arrays, target) if target else _only(path, arrays, _INPUTS)
    inputs, texts = arrays[name], arrays.get("input_names", np.empty(0, "U1"))
    if texts.ndim != 1 or texts.dtype.kind != "U":
        raise InvalidRequest(f"input_names in {path.name} must be texts, got {texts.dtype} {list(texts.shape)}")
    names = tuple(texts.tolist())
    if names:
        check_names(f"input_names in {path.name}", names, inputs.shape[1] if inputs.ndim == 2 else 0)
    return name, inputs, names


def _beside(path: Path, arrays: dict[str, Array], target: str) -> str:
    """Return the one array (rows, ...) of as many rows as the ``target`` has."""
    count = len(np.atleast_1d(arrays[target]))
    fitting = [name for name, array in arrays.items() if name != target and array.ndim > 1 and len(array) == count]
    found = [name for name in fitting if name in _INPUTS] or fitting
    if len(found) != 1:
        rule = f"one array of rows for the {count:,} of {target}"
        raise InvalidRequest(f"{path.name} must hold {rule}, got {listed(found) or 'none'}")
    return found[0]


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
