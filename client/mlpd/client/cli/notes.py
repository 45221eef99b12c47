"""What was understood of data and columns, in one sentence each: nothing is done to them without a word."""

from collections.abc import Sequence
from typing import Any

from mlpd.client.client import Client
from mlpd.client.columns import listed
from mlpd.client.tables import LabelledTable, Table
from mlpd.v1 import types_pb2 as types
from mlpd.v1.dataset_service_pb2 import Dataset
from mlpd.v1.model_service_pb2 import ModelVersion
from mlpd.v1.trainer_service_pb2 import TrainingJob, TrainingSpec

_PIXELS = "whole numbers from 0 to 255"
# Least that the largest of whole numbers is where they may be pixels: half of what a byte holds.
_BRIGHT = 128
# So many classes, with fewer rows each on average, may be numbers to predict.
_MANY_CLASSES, _FEW_ROWS = 20, 10


def are_pixels(dataset: Dataset) -> bool:
    """Whether a server takes the inputs of a data set for pixels: plain whole numbers from 0 to 255."""
    ends = dataset.input_minimum, dataset.input_maximum
    return dataset.whole_inputs and _are_plain(dataset) and ends == (0, 255)


def _are_plain(dataset: Dataset) -> bool:
    return all(column.kind == types.Column.KIND_NUMBER for column in dataset.columns)


def of_inputs(dataset: Dataset) -> list[str]:
    """Say how inputs are scaled where nothing else is asked for, if they are pixels or nearly."""
    low, high = dataset.input_minimum, dataset.input_maximum
    if are_pixels(dataset):
        scale = f"inputs are multiplied by 1/255: {_PIXELS}, as pixels are; --input-scale 1 leaves them as they are"
        return [scale]
    if dataset.whole_inputs and _are_plain(dataset) and low >= 0 and _BRIGHT <= high <= 255:
        found = f"whole numbers from {low:g} to {high:g}, not from 0 to 255 as pixels are"
        return [f"inputs are taken as they are: {found}; --input-scale {1 / 255:.9f} makes fractions of them"]
    return []


def of_job(asked: TrainingSpec, job: TrainingJob, client: Client) -> list[str]:
    """Say what the server made of the data: task, scale of the inputs, and whether columns were matched by name."""
    notes = [] if asked.task else [f"task {job.spec.task}, by the data"]
    train = client.dataset(job.spec.train_dataset)
    if not train.class_names and train.class_count > _MANY_CLASSES and train.row_count < _FEW_ROWS * train.class_count:
        counts = f"{train.class_count:,} classes in {train.row_count:,} rows"
        notes.append(f"{counts}: if labels are numbers to predict, store them as targets, with --task regression")
    model, scale = asked.model, job.spec.model.input_scale
    if not (model.standardize_inputs or model.HasField("input_scale")):
        source = job.spec.warm_start.model
        kept = [f"inputs are multiplied by {scale:.9g}, as {source} was trained"] if scale != 1 else []
        notes += kept if source else of_inputs(train)
    for name in filter(None, (job.spec.validation_dataset, job.spec.test_dataset)):
        other = client.dataset(name)
        notes += of_columns(other.input_names, train.input_names, other.name, train.name)
    if source := job.spec.warm_start.model:
        notes += of_columns(train.input_names, client.model(source).input_names, train.name, source)
    return notes


def of_scoring(client: Client, model: str, dataset: str) -> list[str]:
    """Say how the columns of a stored data set met those of the model version that was scored on it."""
    found, wanted = client.dataset(dataset), client.model(model)
    return [*of_columns(found.input_names, wanted.input_names, dataset, model), *_of_categories(found, wanted)]


def _of_categories(found: Dataset, wanted: ModelVersion) -> list[str]:
    """Say which categories of a data set are none of the model's."""
    known = {column.name: set(column.categories) for column in wanted.columns}
    others = {
        column.name: [category for category in column.categories if category not in known[column.name]]
        for column in found.columns
        if column.name in known
    }
    return [
        f"{found.name} has a {name} that {wanted.name} has not seen: {listed([repr(text) for text in texts])}"
        for name, texts in others.items()
        if texts
    ]


def of_columns(found: Sequence[str], wanted: Sequence[str], data: str, owner: str) -> list[str]:
    """Say how the columns of ``data`` meet those of ``owner``, unless they are the same or neither has names."""
    if found and wanted:
        return [] if list(found) == list(wanted) else [f"the columns of {data} are matched by name with {owner}"]
    if found or wanted:
        without = owner if found else data
        return [f"columns are taken in their order, since {without} has no names of columns"]
    return []


def of_rows(rows: Table, name: str) -> list[str]:
    """Say what a file's first line was taken for, and what was left out."""
    notes = []
    if rows.header is not None:
        notes.append(f"the first line of {name} {'names the columns' if rows.header else 'is a row'}")
    if rows.left_out:
        notes.append(f"left out: {listed(rows.left_out)}")
    return [*notes, *rows.notes, *rows.warnings]


def of_labelled(rows: LabelledTable, name: str) -> list[str]:
    """Say what the columns or arrays of a file were taken for."""
    width = rows.inputs[0].size if len(rows.inputs) else 0
    names = f": {listed(rows.input_names)}" if rows.input_names else ""
    notes = [f"{len(rows.inputs):,} rows of {width} inputs{names}"]
    notes += [f"{role} from {listed(columns)}" for role, columns in rows.sources.items()]
    return [*notes, *of_rows(rows, name)]


def fields_of_rows(rows: Table) -> dict[str, Any]:
    """Return what was understood of a file as JSON fields."""
    fields: dict[str, Any] = {"input_names": list(rows.input_names), "left_out": list(rows.left_out)}
    if rows.header is not None:
        fields["header"] = rows.header
    if not rows.is_plain:
        fields["columns"] = [column.fields() for column in rows.columns]
    if isinstance(rows, LabelledTable):
        fields |= {role: list(columns) for role, columns in rows.sources.items()}
    return fields
