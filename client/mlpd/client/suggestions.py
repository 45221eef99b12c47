"""Settings that suit a data set, by a few rules from what is known of it; docs/defaults.md says why they are these."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlpd.client.errors import InvalidRequest
from mlpd.client.kinds import check_kind
from mlpd.client.settings import SETTINGS

_TASKS = ("multiclass", "binary", "multilabel", "regression")
_HIDDEN_SIZES = (128, 64)
# From so many rows on, in all and for each class in the mean, the best of many validations is worth the rows that these
# cost, and more steps pay.
_MANY_ROWS, _MANY_ROWS_PER_CLASS = 2000, 20
_VALIDATION_FRACTION, _PATIENCE_SHARE, _LEAST_PATIENCE = 0.1, 0.25, 10
_SMALLEST_BATCH_SIZE, _LARGEST_BATCH_SIZE, _BATCHES_PER_EPOCH = 32, 1024, 20
_STEP_COUNT, _STEP_COUNT_OF_MANY_ROWS, _LEAST_EPOCH_COUNT = 1500, 4000, 10
# Weight decay is 1 up to so many rows, and falls as 1 / rows from there on, as rows take the place of what it assumes.
_ROWS_PER_WEIGHT_DECAY = 1000
# Peak rates that are usual for networks of such sizes; that of AdamW is the one that was measured.
_LEARNING_RATES: Mapping[str, float] = {
    "sgd": 0.05,
    "adam": 0.003,
    "adamw": 0.003,
    "rmsprop": 0.001,
    "adagrad": 0.03,
    "lion": 0.0003,
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
    class_count = sum(count > 0 for count in data.class_row_counts)
    many = data.row_count >= max(_MANY_ROWS, _MANY_ROWS_PER_CLASS * class_count)
    own_rows = "validation_dataset" in chosen
    fraction = chosen.get("validation_fraction", _VALIDATION_FRACTION if many and not own_rows else 0.0)
    held_out_count = round(fraction * data.row_count) if 0 < fraction < 1 else 0
    row_count = max(data.row_count - held_out_count, 1)
    batch_size = chosen.get("batch_size", _batch_size(row_count))
    rows_per_step = max(batch_size * chosen.get("accumulation_steps", 1), 1)
    steps_per_epoch = -(-row_count // rows_per_step)
    step_count = _STEP_COUNT_OF_MANY_ROWS if many else _STEP_COUNT
    epoch_count = chosen.get("epoch_count", max(-(-step_count // steps_per_epoch), _LEAST_EPOCH_COUNT))
    run = {"batch_size": batch_size, "epoch_count": epoch_count}
    if fraction:
        run["validation_fraction"] = fraction
    if fraction or own_rows:
        validation_count = epoch_count // max(chosen.get("validation_interval_epochs", 1), 1)
        run["early_stopping_patience"] = max(round(_PATIENCE_SHARE * validation_count), _LEAST_PATIENCE)
    return run


def _batch_size(row_count: int) -> int:
    size = _SMALLEST_BATCH_SIZE
    while size < _LARGEST_BATCH_SIZE and size * _BATCHES_PER_EPOCH < row_count:
        size *= 2
    return min(size, row_count)


def _optimization(data: DataSummary, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return AdamW, its rate falling along a cosine, and its weight decay; numbers to learn have deviation 1."""
    optimizer = chosen.get("optimizer", "adamw")
    settings = {
        "optimizer": optimizer,
        "learning_rate": _LEARNING_RATES.get(optimizer, _LEARNING_RATES["adamw"]),
        "schedule": "cosine",
    }
    if optimizer == "adamw":
        settings["weight_decay"] = round(min(1.0, _ROWS_PER_WEIGHT_DECAY / data.row_count), 4)
    if data.task == "regression" and chosen.get("loss") != "poisson":
        settings["standardize_targets"] = True
    return settings
