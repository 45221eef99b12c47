"""Training specs from flat settings: one vocabulary for Python, command-line flags and TOML files."""

import difflib
from collections.abc import Callable, Collection, Iterable, Mapping
from numbers import Integral, Real
from typing import Any

from mlpd.client.errors import InvalidRequest
from mlpd.v1 import types_pb2 as types
from mlpd.v1.trainer_service_pb2 import ModelSpec, Optimizer, Schedule, TrainingSpec

PRESETS: Mapping[str, Mapping[str, Any]] = {
    # The lesson everyone has done: full-batch gradient descent, no tricks.
    "seed": {
        "layer_sizes": [784, 532, 10],
        "train_dataset": "mnist-train",
        "epoch_count": 250,
        "optimizer": "sgd",
        "learning_rate": 0.03,
        "initializer": "he_normal",
        "seed": 0,
    },
    "default": {
        "layer_sizes": [784, 532, 10],
        "train_dataset": "mnist-train",
        "batch_size": 128,
        "epoch_count": 10,
        "optimizer": "adam",
        "learning_rate": 0.001,
        "schedule": "cosine",
        "seed": 0,
    },
}

_TEXT, _WHOLE, _NUMBER = "text", "a whole number of 64 bits", "a number"
_FLAG, _WHOLE_LIST = "true or false", "a list of whole numbers"

# Every setting, and what its value must be; whether a number makes sense is for the server to say.
SETTINGS: Mapping[str, str] = {
    "layer_sizes": _WHOLE_LIST,
    "train_dataset": _TEXT,
    "validation_dataset": _TEXT,
    "batch_size": _WHOLE,
    "epoch_count": _WHOLE,
    "optimizer": _TEXT,
    "learning_rate": _NUMBER,
    "momentum": _NUMBER,
    "nesterov": _FLAG,
    "beta1": _NUMBER,
    "beta2": _NUMBER,
    "epsilon": _NUMBER,
    "weight_decay": _NUMBER,
    "schedule": _TEXT,
    "warmup_steps": _WHOLE,
    "initializer": _TEXT,
    "input_scale": _NUMBER,
    "seed": _WHOLE,
    "device": _TEXT,
    "metrics_interval_steps": _WHOLE,
}
_SGD_SETTINGS = ("momentum", "nesterov")
_ADAM_SETTINGS = ("beta1", "beta2", "epsilon")
_ADAMW_DECAY = 0.01


def training_spec(preset: str | None = None, **settings: Any) -> TrainingSpec:
    """Return a spec from a preset's settings, with ``settings`` in their place or on top.

    A setting that is None counts as not given. Raises `InvalidRequest` for a preset, setting or choice that does
    not exist and for a value of the wrong kind; the server checks the numbers.

    layer_sizes: units per layer, input first. train_dataset, validation_dataset: names; the second is scored after
    every epoch. batch_size: rows per mini-batch, default all. optimizer: sgd (momentum, nesterov), adam or adamw
    (beta1, beta2, epsilon); weight_decay is decoupled, 0.01 by default with adamw. learning_rate: the peak.
    schedule: constant, or cosine (warmup_steps). initializer: he_normal, he_uniform, glorot_normal or glorot_uniform.
    input_scale: factor of every input value, by default 1/255 for uint8 data, else 1. seed: key of every random
    number, by default the server's choice. device: cpu or cuda, by default cuda if usable.
    metrics_interval_steps: steps between reports, by default one an epoch.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    for name, value in given.items():
        check_kind(name, value, SETTINGS[_known("setting", name, SETTINGS)])
    if preset is not None:
        _known("preset", preset, PRESETS)
        base = dict(PRESETS[preset])
        if given.get("optimizer", base["optimizer"]) != base["optimizer"]:
            for name in (*_SGD_SETTINGS, *_ADAM_SETTINGS):
                base.pop(name, None)
        if given.get("schedule") == "constant":
            base.pop("warmup_steps", None)
        given = base | given
    return _spec(given)


def check_kind(name: str, value: Any, kind: str = _TEXT) -> None:
    """Raise `InvalidRequest` unless ``value`` is of a kind that `SETTINGS` names."""
    if not _KINDS[kind](value):
        raise InvalidRequest(f"{name} must be {kind}, got {value!r}")


def resource_name(collection: str, name: str) -> str:
    """Return ``collection/name``; a full name stays as it is."""
    return name if "/" in name or not name else f"{collection}/{name}"


def _spec(given: dict[str, Any]) -> TrainingSpec:
    model = ModelSpec(layer_sizes=given.get("layer_sizes", []))
    if "initializer" in given:
        names = {name.removeprefix("INITIALIZER_").lower(): n for name, n in ModelSpec.Initializer.items()}
        del names["unspecified"]
        model.initializer = names[_known("initializer", given["initializer"], names)]
    spec = TrainingSpec(
        model=model,
        train_dataset=resource_name("datasets", given.get("train_dataset", "")),
        validation_dataset=resource_name("datasets", given.get("validation_dataset", "")),
        epoch_count=given.get("epoch_count", 0),
        optimizer=_optimizer(given),
        schedule=_schedule(given),
    )
    for name in ("batch_size", "seed", "metrics_interval_steps"):
        if name in given:
            setattr(spec, name, given[name])
    if "input_scale" in given:
        spec.model.input_scale = given["input_scale"]
    if "device" in given:
        devices = {"cpu": types.DEVICE_CPU, "cuda": types.DEVICE_CUDA}
        spec.device = devices[_known("device", given["device"], devices)]
    return spec


def _optimizer(given: dict[str, Any]) -> Optimizer:
    kind = _known("optimizer", given.get("optimizer", "sgd"), ("sgd", "adam", "adamw"))
    own, other = (_SGD_SETTINGS, _ADAM_SETTINGS) if kind == "sgd" else (_ADAM_SETTINGS, _SGD_SETTINGS)
    for name in other:
        if name in given:
            raise InvalidRequest(f"{name} must not be set with optimizer {kind}, got {given[name]}")
    settings = {name: given[name] for name in own if name in given}
    optimizer = Optimizer(weight_decay=given.get("weight_decay", _ADAMW_DECAY if kind == "adamw" else 0.0))
    if kind == "sgd":
        optimizer.sgd.CopyFrom(Optimizer.Sgd(**settings))
    else:
        optimizer.adam.CopyFrom(Optimizer.Adam(**settings))
    return optimizer


def _schedule(given: dict[str, Any]) -> Schedule:
    kind = _known("schedule", given.get("schedule", "constant"), ("constant", "cosine"))
    schedule = Schedule(learning_rate=given.get("learning_rate", 0.0))
    if kind == "cosine":
        schedule.warmup_cosine.CopyFrom(Schedule.WarmupCosine(warmup_steps=given.get("warmup_steps", 0)))
    elif "warmup_steps" in given:
        raise InvalidRequest(f"warmup_steps must not be set with schedule constant, got {given['warmup_steps']}")
    else:
        schedule.constant.SetInParent()
    return schedule


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and -(2**63) <= int(value) < 2**63


_KINDS: Mapping[str, Callable[[Any], bool]] = {
    _TEXT: lambda value: isinstance(value, str),
    _WHOLE: _is_whole,
    _NUMBER: lambda value: _is_whole(value) or (isinstance(value, Real) and not isinstance(value, Integral)),
    _FLAG: lambda value: isinstance(value, bool),
    _WHOLE_LIST: lambda value: isinstance(value, Collection) and all(map(_is_whole, value)),
}


def _known(what: str, name: Any, names: Iterable[str]) -> Any:
    if name in list(names):
        return name
    close = difflib.get_close_matches(str(name), list(names), 1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise InvalidRequest(f"{what} must be one of {', '.join(names)}, got {name}{hint}")
