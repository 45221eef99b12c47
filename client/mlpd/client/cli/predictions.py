"""Predictions on a screen, as JSON and in files, by the names of classes, labels and values."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mlpd.client.cli.output import plain, table
from mlpd.client.errors import InvalidRequest
from mlpd.client.results import Prediction
from numpy.typing import NDArray
from rich.markup import escape
from rich.table import Table

ROWS_SHOWN, _COLUMNS_SHOWN = 20, 8


def fields_of_prediction(prediction: Prediction, top: int) -> dict[str, Any]:
    """Return a prediction as JSON fields; "labels" are the names of the classes, of each row's ``top`` if several."""
    fields: dict[str, Any] = {"model": prediction.model, "class_names": list(prediction.class_names)}
    fields |= {name: array.tolist() for name, array in _arrays(prediction).items()}
    if _has_classes(prediction):
        fields["labels"] = prediction.labels.tolist() if top == 1 else prediction.top(top)[0].tolist()
    return fields


def table_of(prediction: Prediction, top: int) -> Table:
    """Return the first rows' answers; raises `InvalidRequest` if there are no ``top`` classes."""
    if top > 1 or _has_classes(prediction):
        return _top_table(prediction, top)
    names = [escape(plain(name)) for name in prediction.class_names]
    if len(prediction.values):
        shown = names[:_COLUMNS_SHOWN]
        found = table("row#", *(f"{name if not name.isdigit() else f'value {name}'}#" for name in shown))
        for row, values in enumerate(prediction.values[:ROWS_SHOWN, :_COLUMNS_SHOWN].tolist()):
            found.add_row(str(row), *(f"{value:.6g}" for value in values))
        return found
    found = table("row#", "labels", "probabilities")
    for row, own in enumerate(prediction.classes[:ROWS_SHOWN]):
        labels = np.flatnonzero(own).tolist()
        shares = (f"{prediction.probabilities[row, label]:.4f}" for label in labels)
        found.add_row(str(row), " ".join(names[label] for label in labels), " ".join(shares))
    return found


def write(path: Path, prediction: Prediction) -> None:
    """Write all rows' answers as arrays to a .npz, or to a .csv with a column for each class, label or value.

    Raises `InvalidRequest` where that can't be written.
    """
    try:
        if path.suffix == ".npz":
            np.savez(path, **_arrays(prediction), class_names=np.array(prediction.class_names))  # type: ignore[arg-type]
            return
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(_header(prediction))
            writer.writerows(_rows(prediction))
    except OSError as error:
        raise InvalidRequest(f"output {path} can't be written: {error.strerror}") from error


def _has_classes(prediction: Prediction) -> bool:
    return prediction.classes.ndim == 1 and not len(prediction.values)


def _arrays(prediction: Prediction) -> dict[str, NDArray[Any]]:
    """Return what the model's task gives."""
    if len(prediction.values):
        return {"values": prediction.values}
    return {"classes": prediction.classes, "probabilities": prediction.probabilities}


def _top_table(prediction: Prediction, top: int) -> Table:
    names, shares = prediction.top(top)
    own = [column for i in range(top) for column in ((f"class {i + 1}" if top > 1 else "class"), "probability#")]
    found = table("row#", *own)
    for row in range(min(len(names), ROWS_SHOWN)):
        pairs = zip(names[row].tolist(), shares[row].tolist(), strict=True)
        found.add_row(str(row), *(cell for name, share in pairs for cell in (escape(plain(name)), f"{share:.4f}")))
    return found


def _header(prediction: Prediction) -> list[str]:
    names = prediction.class_names
    if len(prediction.values):
        return [name if not name.isdigit() else f"value_{name}" for name in names]
    chances = [f"probability_{name}" for name in names]
    return ["class", *chances] if _has_classes(prediction) else [*(f"class_{name}" for name in names), *chances]


def _rows(prediction: Prediction) -> Iterator[Sequence[object]]:
    """Yield the cells of each row, numbers with all their digits."""
    if len(prediction.values):
        numbers = prediction.values
    elif _has_classes(prediction):
        numbers = prediction.probabilities
    else:
        yield from (
            [*own.tolist(), *map(_text, shares)]
            for own, shares in zip(prediction.classes, prediction.probabilities, strict=True)
        )
        return
    labels = prediction.labels.tolist() if _has_classes(prediction) else [None] * len(numbers)
    for label, values in zip(labels, numbers, strict=True):
        yield [*([] if label is None else [label]), *map(_text, values)]


def _text(number: Any) -> str:
    return f"{number:.9g}" if number.dtype.itemsize == 4 else f"{number:.17g}"
