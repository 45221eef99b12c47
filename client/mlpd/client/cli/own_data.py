"""A table of one's own: data sets to train and to test on, and settings that suit it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mlpd.client.cli import notes
from mlpd.client.cli.output import progress_of
from mlpd.client.client import Client
from mlpd.client.columns import listed
from mlpd.client.errors import AlreadyExists, InvalidRequest
from mlpd.client.suggestions import DataSummary, suggested_settings
from mlpd.client.tables import LabelledTable, Schema, TableOptions, read_labelled
from mlpd.client.tables.splitting import split_table
from mlpd.client.vocabulary import flag_of
from mlpd.v1.dataset_service_pb2 import Dataset

_TEST_FRACTION = 0.2
_NAME_CHARACTERS = 50  # so that an ending finds room
_NAMES_TRIED = 99


@dataclass(frozen=True)
class HeldOut:
    """What a model is scored on at the end: the rows of a file, or a share of the table's; None = not said."""

    path: Path | None
    fraction: float | None


@dataclass(frozen=True)
class OwnData:
    """A table that is stored: its ``name``, data sets, task, and what was understood of it."""

    name: str
    path: Path
    train: Dataset
    test: Dataset | None
    task: str
    notes: list[str]

    def settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return all settings of a run: those ``given``, and for the rest those that suit the data."""
        train = self.train
        summary = DataSummary(
            row_count=train.row_count,
            encoded_size=train.encoded_size,
            task=self.task,
            class_row_counts=train.class_row_counts,
            are_pixels=notes.are_pixels(train),
        )
        data = {"train_dataset": train.name} | ({"test_dataset": self.test.name} if self.test else {})
        return suggested_settings(summary, **data | dict(given))

    def next_steps(self, version: str) -> str:
        """Return what to type next, with the model ``version`` that was published."""
        model, number = version.removeprefix("models/").split("/versions/")
        if self.train.name != f"datasets/{self.name}":  # others may publish versions of their own
            model = f"{model}/{number}"
        target, dataset = ", ".join(self.train.target_names), self.train.name.removeprefix("datasets/")
        steps = {
            f"mlpd predict {model} {self.path}": f"rows like these, with or without {target or 'what they teach'}",
            f"mlpd datasets describe {dataset}": "what was understood of the columns",
            "mlpd train --help": "every setting that a flag may choose",
        }
        width = max(map(len, steps))
        return "\n".join(["", "Next:", *(f"  {step:{width}}  {meaning}" for step, meaning in steps.items())])


def stored(client: Client, path: Path, options: TableOptions, held_out: HeldOut, task: str, name: str) -> OwnData:
    """Store a table's rows, those to train on and those held out, as data sets named after it, or ``name``.

    Raises `InvalidRequest` for what can't be read or does not fit together; then nothing is stored.
    """
    if held_out.path and held_out.fraction is not None:
        raise InvalidRequest(f"test_fraction must be unset with a test file, got {held_out.fraction:g}")
    with progress_of(f"reading {path.name}") as on_progress:
        options = options | TableOptions(task=task)
        table = read_labelled(path, on_progress=on_progress, **options)
    _check_classes(path, table)
    said = notes.of_labelled(table, path.name)
    name = name or _id_of(path)
    test = None
    fraction = _TEST_FRACTION if held_out.fraction is None else held_out.fraction
    if held_out.path:
        if table.target_names:  # the columns of the other file are found by name, and all else is left out
            options |= TableOptions(target=[*table.target_names], leave_out=[], category=[], weight="")
        with progress_of(f"reading {held_out.path.name}") as on_progress:
            test = read_labelled(held_out.path, _schema(path, table), on_progress=on_progress, **options)
        said += notes.of_rows(test, held_out.path.name)
    elif fraction:
        table, test = split_table(table, fraction)
        said.append(f"{len(test.inputs):,} rows are held out to score the model; --test-fraction 0 trains on all")
    train_set = _uploaded(client, name, table)
    own = train_set.name.removeprefix("datasets/")
    if own != name:
        said.append(
            f"{name} has other rows already: these are {own}, and the model is a version of {name} all the same"
        )
    test_set = _uploaded(client, f"{own}-test", test) if test else None
    return OwnData(name, path, train_set, test_set, _task_of(table, task), said)


def as_flags(settings: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """Return the settings that were not given as flags, ready to be changed."""
    flags = []
    for name, value in settings.items():
        if name in given or name in ("train_dataset", "test_dataset"):
            continue
        flag = flag_of(name)
        if isinstance(value, bool):
            flags.append(flag if value else f"--no-{name.replace('_', '-')}")
        else:
            several = isinstance(value, list | tuple)
            flags.append(f"{flag} {','.join(map(str, value)) if several else value}")
    return " ".join(flags)


def _check_classes(path: Path, table: LabelledTable) -> None:
    """Raise `InvalidRequest` for labels that are all of one class."""
    if table.labels is not None and len(found := np.unique(np.asarray(table.labels))) == 1:
        label = int(found[0])
        name = table.class_names[label] if table.class_names else str(label)
        column = listed(table.target_names) or "the target"
        rule = f"must have at least two classes, got {name[:40]!r} alone"
        raise InvalidRequest(f"{path.name}, column {column}, {rule}; --target takes another")


def _schema(path: Path, table: LabelledTable) -> Schema:
    """Return what a table's columns and classes are, for another file to be read like it."""
    labels = table.labels
    class_count = 0 if labels is None else len(table.class_names) or int(labels.astype(np.int64).max()) + 1
    return Schema(path.name, table.columns, table.class_names, class_count, table.target_names)


def _uploaded(client: Client, name: str, table: LabelledTable) -> Dataset:
    """Store a table as ``name``, or with a number after it where that is taken by other rows."""
    for number in range(1, _NAMES_TRIED + 1):
        own = name if number == 1 else f"{name}-{number}"
        try:
            with progress_of(f"sending {own}") as on_progress:
                return client.upload(own, table, on_progress=on_progress)
        except AlreadyExists:
            if number == _NAMES_TRIED:
                raise
    raise AssertionError


def _id_of(path: Path) -> str:
    """Return a name for data sets and a model that is like a file's."""
    stem = path.name.split(".")[0].lower()
    text = re.sub(r"[^a-z0-9]+", "-", stem).strip("-")[:_NAME_CHARACTERS].strip("-")
    return text if text[:1].isalpha() else f"table-{text}".strip("-")


def _task_of(table: LabelledTable, task: str) -> str:
    if task or table.targets is None:
        return task or "multiclass"
    several = table.targets.shape[1] > 1
    return "multilabel" if several and np.isin(table.targets, (0, 1)).all() else "regression"
