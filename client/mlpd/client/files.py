"""Rows and labels from a user's files: .npz, .npy and .csv."""

import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from mlpd.client.columns import check_names, listed, places_of
from mlpd.client.errors import InvalidRequest
from mlpd.client.tables import Header, NotANumber, read_table
from numpy.typing import NDArray

Array = NDArray[np.generic]

_INPUTS, _LABELS = ("inputs", "x", "X", "data"), ("labels", "y", "Y", "target")
_TARGETS, _WEIGHTS, _NAMES = ("targets",), ("weights",), ("input_names",)
_ROLES = {"label_column": "labels", "target_columns": "targets", "weight_column": "weights"}


@dataclass(frozen=True)
class Rows:
    """Inputs (rows, ...) of a file, and what was understood of it.

    ``header`` says whether its first line names columns, None where it has no lines; ``left_out`` are columns and
    arrays that are not among the inputs.
    """

    inputs: Array
    input_names: tuple[str, ...] = ()
    header: bool | None = None
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class LabelledRows(Rows):
    """Rows with what to learn of them: ``labels`` or ``targets``, and perhaps ``weights``, as `Client.upload` takes.

    ``sources`` says for each of the three which columns or arrays it comes from.
    """

    labels: Array | None = None
    targets: Array | None = None
    weights: Array | None = None
    sources: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def read_labelled(
    path: Path,
    label_column: str | None = None,
    target_columns: Sequence[str] = (),
    weight_column: str = "",
    *,
    leave_out: Sequence[str] = (),
    header: bool | None = None,
) -> LabelledRows:
    """Return what `Client.upload` takes, from an .npz or .csv file.

    An .npz holds the arrays inputs (or x), labels (or y) or targets, weights and input_names. Of a .csv, columns go by
    name or number, negative from the end: ``label_column``, by default the last, or ``target_columns``,
    ``weight_column``, and those to ``leave_out``; the rest are inputs, but for row numbers in a column without a name.
    ``header`` says whether the first line names columns; None = as `read_table` sees it. Raises `InvalidRequest` with
    one sentence for a file that does not fit.
    """
    asked = {"label_column": label_column, "target_columns": target_columns, "weight_column": weight_column}
    match path.suffix.lower():
        case ".npz":
            _check_unset(path, asked | {"leave_out": leave_out, "header": header})
            return _labelled_arrays(path)
        case ".csv":
            return _labelled_table(path, label_column, target_columns, weight_column, leave_out, header)
        case suffix:
            raise InvalidRequest(f"{path.name} must be a .npz or .csv file, got {suffix or 'no suffix'}")


def read_rows(path: Path, wanted: Sequence[str] = (), owner: str = "", *, header: bool | None = None) -> Rows:
    """Return the inputs (rows, ...) of an .npy, .npz or .csv file without labels.

    Where both have names, columns are matched with those that are ``wanted``, in their order, by ``owner``, a model.
    """
    match path.suffix.lower():
        case ".npy":
            _check_unset(path, {"header": header})
            return Rows(_load(path))
        case ".npz":
            _check_unset(path, {"header": header})
            arrays, others = _npz(path)
            name, inputs, names = _inputs_of(path, arrays)
            left_out = (*(other for other in arrays if other not in (name, *_NAMES)), *others)
            if not (names and wanted):
                return Rows(inputs, names, None, left_out)
            places, extra = places_of(path.name, names, wanted, owner)
            return Rows(inputs[:, places], tuple(wanted), None, (*left_out, *extra))
        case ".csv":
            return _table_rows(path, wanted, owner, header)
        case suffix:
            raise InvalidRequest(f"{path.name} must be a .npy, .npz or .csv file, got {suffix or 'no suffix'}")


def _table_rows(path: Path, wanted: Sequence[str], owner: str, header: bool | None) -> Rows:
    def choose(found: Header) -> Sequence[int]:
        if found.names and wanted:
            return places_of(path.name, found.names, wanted, owner)[0]
        return range(found.count)

    table = read_table(path, header, choose)
    names = table.header.names
    columns = list(table.columns)
    if not wanted:
        numbering = table.row_numbers(columns)
        columns = [column for column in columns if column not in numbering]
    left_out = [table.header.name(column) for column in range(table.header.count) if column not in columns]
    kept = tuple(names[column] for column in columns) if names else ()
    return Rows(table.of(columns), kept, bool(names), tuple(left_out))


def _labelled_table(
    path: Path,
    label_column: str | None,
    target_columns: Sequence[str],
    weight_column: str,
    leave_out: Sequence[str],
    header: bool | None,
) -> LabelledRows:
    if label_column is not None and target_columns:
        text = "a column that is neither is left out with leave_out (--leave-out)"
        raise InvalidRequest(f"label_column must be unset with target_columns, got {label_column}; {text}")
    label = "-1" if label_column is None else label_column
    asked = {"target_columns": target_columns} if target_columns else {"label_column": [label]}
    asked |= {"weight_column": [weight_column] if weight_column else [], "leave_out": leave_out}
    uses: dict[str, list[int]] = {}

    def choose(found: Header) -> Sequence[int]:
        uses.update(_uses(found, asked))
        ignored, everything = uses["leave_out"], range(found.count)
        return [column for column in everything if column not in ignored] if ignored else everything

    try:
        table = read_table(path, header, choose)
    except NotANumber as error:
        text = "leave the column out with --leave-out, if it is no input"
        if error.column in uses.get("label_column", ()):
            text = "labels are class numbers 0, 1, 2, ...; texts as labels are not supported yet"
        raise InvalidRequest(f"{error.message}; {text}") from error
    ignored = uses.pop("leave_out")
    columns = [column for column in table.columns if not any(column in own for own in uses.values())]
    numbering = table.row_numbers(columns)
    columns = [column for column in columns if column not in numbering]
    if not columns:
        raise InvalidRequest(f"{path.name} must have columns left for inputs")
    name_of = table.header.name
    roles = {_ROLES[use]: own for use, own in uses.items() if own}
    values = {role: table.of(own) for role, own in roles.items()}
    return LabelledRows(
        inputs=table.of(columns),
        input_names=tuple(map(name_of, columns)) if table.header.names else (),
        header=bool(table.header.names),
        left_out=tuple(map(name_of, sorted([*ignored, *numbering]))),
        labels=values["labels"][:, 0] if "labels" in values else None,
        targets=values.get("targets"),
        weights=values["weights"][:, 0] if "weights" in values else None,
        sources={role: tuple(map(name_of, own)) for role, own in roles.items()},
    )


def _uses(found: Header, asked: Mapping[str, Sequence[str]]) -> dict[str, list[int]]:
    """Return where the columns are that are asked for, by use; raises `InvalidRequest` for one with several."""
    uses = {use: [found.column(use, column) for column in columns] for use, columns in asked.items()}
    taken = [column for columns in uses.values() for column in columns]
    if twice := [column for column in taken if taken.count(column) > 1]:
        raise InvalidRequest(f"each column must have one use, {found.name(twice[0])} of {found.path.name} has several")
    return uses


def _labelled_arrays(path: Path) -> LabelledRows:
    arrays, others = _npz(path)
    _, inputs, names = _inputs_of(path, arrays)
    answer = _only(path, arrays, (*_LABELS, *_TARGETS))
    role = "targets" if answer in _TARGETS else "labels"
    sources = {role: (answer,)} | {name: (name,) for name in _WEIGHTS if name in arrays}
    return LabelledRows(
        inputs=inputs,
        input_names=names,
        left_out=others,
        labels=arrays[answer] if role == "labels" else None,
        targets=arrays[answer] if role == "targets" else None,
        weights=arrays.get("weights"),
        sources=sources,
    )


def _check_unset(path: Path, settings: dict[str, object]) -> None:
    for name, value in settings.items():
        if value not in (None, "", (), []):
            raise InvalidRequest(f"{name} must be unset for a {path.suffix} file, got {value}")


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
