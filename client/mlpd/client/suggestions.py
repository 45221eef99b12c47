"""Settings that suit a data set, by a few rules from what is known of it; docs/defaults.md says why they are these."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlpd.client.errors import InvalidRequest
from mlpd.client.kinds import check_kind
from mlpd.client.settings import SETTINGS

_TASKS = ("multiclass", "binary", "multilabel", "regression")
_HIDDEN_SIZES = (128, 64)
# From so many rows on, the best of many validations is worth more than the rows that these cost.
_ENOUGH_ROWS = 2000
_VALIDATION_FRACTION = 0.1
_SMALLEST_BATCH_SIZE, _LARGEST_BATCH_SIZE = 32, 1024
_BATCHES_PER_EPOCH = 20
_STEP_COUNT, _STEP_COUNT_OF_ENOUGH_ROWS = 2000, 4000
_LEAST_EPOCH_COUNT = 10
_PATIENCE_SHARE = 0.25
# Weight decay is 1 up to so many rows, and falls as 1 / rows from there on: what it knows is worth so many rows.
_ROWS_PER_WEIGHT_DECAY = 1000
# Peak rates that are usual for networks of such sizes.
_LEARNING_RATES: Mapping[str, float] = {
    "sgd": 0.05,
    "adam": 0.002,
    "adamw": 0.002,
    "rmsprop": 0.001,
    "adagrad": 0.01,
    "lion": 0.0002,
}


@dataclass(frozen=True)
class DataSummary:
    """What is known of a data set before a run.

    ``encoded_size`` is how many values a network sees of a row. ``class_row_counts`` has the rows of each class by
    label, and is empty where targets are numbers or labels that do not exclude each other. ``are_pixels`` says that
    inputs are whole numbers from 0 to 255. Raises `InvalidRequest` for what no data set can be.
    """

    row_count: int
    encoded_size: int
    task: str
    class_row_counts: Sequence[int] = ()
    are_pixels: bool = False

    def __post_init__(self) -> None:
        for name, value in (("row_count", self.row_count), ("encoded_size", self.encoded_size)):
            if value < 1:
                raise InvalidRequest(f"{name} must be at least 1, got {value}")
        if self.task not in _TASKS:
            raise InvalidRequest(f"task must be one of {', '.join(_TASKS)}, got {self.task}")


def suggested_settings(data: DataSummary, **given: Any) -> dict[str, Any]:
    """Return settings of `mlpd.client.training_spec` that suit ``data``, and those that are ``given``, which win.

    Settings that depend on others follow what is given: epochs the size of a mini-batch, the rate the optimizer. One
    that is None counts as not given. ``layer_sizes`` begin and end with 0, for the server to put in what the data have;
    with a warm start the network is left to its model. The same arguments give the same settings. Raises
    `InvalidRequest` for a setting of the wrong kind; `training_spec` and the server check all else.
    """
    settings = {name: value for name, value in given.items() if value is not None}
    for name in settings.keys() & SETTINGS.keys():
        check_kind(name, settings[name], SETTINGS[name].kind)
    rules = [_run, _optimization] if "warm_start" in settings else [_network, _run, _optimization]
    for rule in rules:
        settings = rule(data, settings) | settings
    return {"task": data.task, "seed": 0} | settings


def _network(data: DataSummary, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return a network of two hidden layers, which sees numbers of mean 0 and deviation 1, or pixels from 0 to 1."""
    standardize = not data.are_pixels and "input_scale" not in chosen
    return {
        "layer_sizes": [0, *_HIDDEN_SIZES, 0],
        "activation": "silu",
        "dropout": 0.1,
        **({"standardize": True} if standardize else {}),
    }


def _run(data: DataSummary, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is held out, mini-batches of which about 20 make an epoch, and epochs that make enough steps."""
    enough_rows = data.row_count >= _ENOUGH_ROWS
    held_out = _VALIDATION_FRACTION if enough_rows and "validation_dataset" not in chosen else 0.0
    fraction = chosen.get("validation_fraction", held_out)
    row_count = max(data.row_count - (round(data.row_count * fraction) if 0 < fraction < 1 else 0), 1)
    batch_size = _SMALLEST_BATCH_SIZE
    while batch_size < _LARGEST_BATCH_SIZE and batch_size * _BATCHES_PER_EPOCH < row_count:
        batch_size *= 2
    batch_size = chosen.get("batch_size", min(batch_size, row_count))
    rows_per_step = max(batch_size * chosen.get("accumulation_steps", 1), 1)
    step_count = _STEP_COUNT_OF_ENOUGH_ROWS if enough_rows else _STEP_COUNT
    least = max(-(-step_count * rows_per_step // row_count), _LEAST_EPOCH_COUNT)
    epoch_count = chosen.get("epoch_count", least)
    run = {"batch_size": batch_size, "epoch_count": epoch_count}
    if fraction:
        run["validation_fraction"] = fraction
    if fraction or "validation_dataset" in chosen:
        interval = chosen.get("validation_interval_epochs", 1)
        run["early_stopping_patience"] = max(round(_PATIENCE_SHARE * epoch_count / max(interval, 1)), 10)
    return run


def _optimization(data: DataSummary, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return AdamW, its rate falling along a cosine, and its weight decay."""
    optimizer = chosen.get("optimizer", "adamw")
    standardize = data.task == "regression" and chosen.get("loss") != "poisson"
    return {
        **({"standardize_targets": True} if standardize else {}),
        "optimizer": optimizer,
        "learning_rate": _LEARNING_RATES.get(optimizer, _LEARNING_RATES["adamw"]),
        "schedule": "cosine",
        **({"weight_decay": min(1.0, _ROWS_PER_WEIGHT_DECAY / data.row_count)} if optimizer == "adamw" else {}),
    }
