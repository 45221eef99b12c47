"""What commands share: their common options, and how results are shown."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import isfinite
from typing import Annotated, Any, Literal

import numpy as np
import typer
from mlpd.client.calls import DEFAULT_ADDRESS
from mlpd.client.cli.fields import fields_of
from mlpd.client.errors import InvalidRequest
from mlpd.client.results import Evaluation
from mlpd.v1.dataset_service_pb2 import Dataset
from mlpd.v1.model_service_pb2 import ModelVersion
from mlpd.v1.trainer_service_pb2 import TrainingJob
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

Server = Annotated[str, typer.Option("--server", envvar="MLPD_SERVER", help="Address of the server.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Labels = Annotated[list[str] | None, typer.Option("--label", help="Label, as key=value; may be repeated.")]
SERVER = DEFAULT_ADDRESS

# What is not read on a terminal must not be cut to the width of one.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)


def print_json(result: dict[str, Any]) -> None:
    """Print one JSON object; what is not finite is null, for JSON has no word for it."""
    try:
        text = json.dumps(result, allow_nan=False)
    except ValueError:
        text = json.dumps(_without_infinities(result), allow_nan=False)
    sys.stdout.write(f"{text}\n")  # at once: a limit of time may end the command between two writes
    sys.stdout.flush()  # whoever reads events must not wait for a buffer


def show_notes(notes: Iterable[str]) -> None:
    """Print what was understood, a line each."""
    for note in notes:
        console.print(note, markup=False)


@contextmanager
def progress_of(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar for what takes long, on a terminal; yield what takes the bytes that are done and all."""
    bar = Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    with bar:
        task = bar.add_task(escape(plain(what)), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def plain(text: str) -> str:
    """Return ``text`` with what a terminal would obey escaped: names in it may come from a file of anyone's."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def _without_infinities(value: Any) -> Any:
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, dict):
        return {key: _without_infinities(inner) for key, inner in value.items()}
    return [_without_infinities(inner) for inner in value] if isinstance(value, list) else value


def size_text(size_bytes: int) -> str:
    """Return a size as it is read best: "12.3 MB", in powers of 1000."""
    size, units = float(size_bytes), iter(("bytes", "kB", "MB", "GB", "TB"))
    unit = next(units)
    while size >= 1000 and unit != "TB":
        size, unit = size / 1000, next(units)
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"


def state_of(job: TrainingJob) -> str:
    """Return a job's state as a word: "running"."""
    return TrainingJob.State.Name(job.state).removeprefix("STATE_").lower()


def labels_of(texts: Sequence[str] | None) -> dict[str, str]:
    """Return the labels in texts like "team=a"; raises `InvalidRequest` for one that has no value."""
    pairs = {key: value if found else None for key, found, value in (text.partition("=") for text in texts or ())}
    if None in pairs.values():
        raise InvalidRequest(f"label must be key=value, got {next(key for key in pairs if pairs[key] is None)}")
    return {key: str(value) for key, value in pairs.items()}


def table(*columns: str) -> Table:
    """Return an empty table whose columns after the first are right-aligned when they end in "#"."""
    result = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        justify: Literal["left", "right"] = "right" if column.endswith("#") else "left"
        result.add_column(column.removesuffix("#"), justify=justify, overflow="fold")
    return result


def show_damaged(found: Iterable[Dataset | ModelVersion]) -> None:
    """Print what is wrong with each entry of a list whose record can't be read."""
    for entry in found:
        if entry.HasField("error"):
            console.print(plain(entry.error.message), markup=False)


def evaluation_fields(evaluation: Evaluation) -> dict[str, Any]:
    """Return an evaluation as JSON fields."""
    return {
        "model": evaluation.model,
        "parameters_sha256": evaluation.parameters_sha256,
        "row_count": evaluation.row_count,
        "correct_count": evaluation.correct_count,
        "accuracy": evaluation.accuracy,
        "loss": evaluation.loss,
        "confusion": None if evaluation.confusion is None else evaluation.confusion.tolist(),
        "metrics": dict(evaluation.metrics),
        "classes": [fields_of(scores) for scores in evaluation.classes],
        "class_names": list(evaluation.class_names),
    }


def show_evaluation(evaluation: Evaluation, dataset: str) -> None:
    """Print the counts, and the confusion matrix where it fits a screen."""
    if evaluation.accuracy is None:
        console.print(f"mean loss [bold]{evaluation.loss:.6g}[/bold] on {evaluation.row_count} rows of {dataset}")
    else:
        console.print(
            f"[bold]{evaluation.accuracy:.2%}[/bold] of {evaluation.row_count} rows of {dataset} are right "
            f"({evaluation.correct_count}), mean loss {evaluation.loss:.4f}"
        )
    if evaluation.metrics:
        console.print(_metrics_table(evaluation))
    if evaluation.classes:
        console.print(_classes_table(evaluation))
    if evaluation.confusion is not None and len(evaluation.confusion) <= 20:
        console.print()
        console.print(_confusion_table(evaluation.confusion, evaluation.class_names))


def _metrics_table(evaluation: Evaluation) -> Table:
    result = table("score", "value#")
    for name, value in sorted(evaluation.metrics.items()):
        result.add_row(name.replace("_", " "), f"{value:.6g}")
    return result


def _classes_table(evaluation: Evaluation) -> Table:
    result = table("class", "rows#", "precision#", "recall#", "f1#", "roc auc#")
    for name, scores in zip(evaluation.class_names, evaluation.classes, strict=True):
        area = f"{scores.roc_auc:.4f}" if scores.HasField("roc_auc") else ""
        numbers = (f"{value:.4f}" for value in (scores.precision, scores.recall, scores.f1))
        result.add_row(escape(plain(name)), str(scores.row_count), *numbers, area)
    return result


def _confusion_table(confusion: NDArray[np.int64], names: Sequence[str]) -> Table:
    shown = [escape(plain(name)) for name in names]
    result = table("true \\ predicted", *(f"{name}#" for name in shown))
    for label, row in enumerate(confusion.tolist()):
        cells = [f"[green]{n}[/green]" if label == column else (str(n) if n else "·") for column, n in enumerate(row)]
        result.add_row(shown[label], *cells)
    return result
