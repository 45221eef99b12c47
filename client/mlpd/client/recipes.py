"""Training specs from flat settings, and the presets."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf.message import Message
from mlpd.client.errors import InvalidRequest
from mlpd.client.settings import SETTINGS, WHOLE, check_kind
from mlpd.v1 import types_pb2 as types
from mlpd.v1.trainer_service_pb2 import Optimizer, Schedule, TrainingSpec, WarmStart
from mlpd.v1.types_pb2 import ModelSpec

_AUGMENTED: Mapping[str, Any] = {
    "train_dataset": "mnist-train",
    "batch_size": 128,
    "optimizer": "adamw",
    "learning_rate": 0.001,
    "weight_decay": 0.05,
    "schedule": "cosine",
    "label_smoothing": 0.05,
    "augment_shift_pixels": 1.5,
    "augment_rotation_degrees": 10.0,
    "augment_scale": 0.1,
    "augment_shear": 0.1,
    "augment_elastic_pixels": 0.8,
    "seed": 0,
}
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
        "dropout": 0.3,
        "label_smoothing": 0.05,
        "train_dataset": "mnist-train",
        "batch_size": 128,
        "epoch_count": 10,
        "optimizer": "adamw",
        "learning_rate": 0.003,
        "weight_decay": 0.1,
        "schedule": "one_cycle",
        "seed": 0,
    },
    # What the same network can do, when it never sees the same image twice.
    "best": {"layer_sizes": [784, 532, 10], "epoch_count": 120, **_AUGMENTED},
    "large": {"layer_sizes": [784, 1024, 512, 10], "epoch_count": 100, **_AUGMENTED},
}

# What each choice has settings of its own for; adamw is adam with a default of weight decay.
_OPTIMIZERS: Mapping[str, tuple[str, ...]] = {
    "sgd": ("momentum", "nesterov"),
    "adam": ("beta1", "beta2", "epsilon"),
    "adamw": ("beta1", "beta2", "epsilon"),
    "rmsprop": ("decay", "epsilon", "momentum"),
    "adagrad": ("epsilon",),
    "lion": ("beta1", "beta2"),
}
_SCHEDULES: Mapping[str, tuple[str, ...]] = {
    "constant": (),
    "cosine": ("warmup_steps", "final_share"),
    "steps": ("interval_steps", "factor"),
    "exponential": ("final_share",),
    "polynomial": ("power", "initial_share", "final_share"),
    "one_cycle": ("rise", "initial_share", "final_share"),
    "joined": (),
}
_ADAMW_DECAY = 0.01
_DATA_TYPES = {"float32": types.DATA_TYPE_FP32, "float64": types.DATA_TYPE_FP64}
_DEVICES = {"cpu": types.DEVICE_CPU, "cuda": types.DEVICE_CUDA}
_SCOPES = {"weights": WarmStart.SCOPE_WEIGHTS, "full": WarmStart.SCOPE_FULL}


def training_spec(preset: str | None = None, **settings: Any) -> TrainingSpec:
    """Return a spec from a preset's settings, with ``settings`` in their place or on top.

    A setting that is None counts as not given; `mlpd.client.settings.SETTINGS` says what each means. A ``schedule`` may
    be a list of mappings, each with its own schedule, its settings and ``step_count``, but for the last. Raises
    `InvalidRequest` for a preset, setting or choice that does not exist and for a value of the wrong kind; the server
    checks the numbers.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    for name, value in given.items():
        check_kind(name, value, SETTINGS[_known("setting", name, SETTINGS)].kind)
    if preset is not None:
        _known("preset", preset, PRESETS)
        base = dict(PRESETS[preset])
        for choice, names in (("optimizer", _OPTIMIZERS), ("schedule", _SCHEDULES)):
            if given.get(choice, base.get(choice)) != base.get(choice):
                for name in {name for own in names.values() for name in own}:
                    base.pop(name, None)
        given = base | given
    return _spec(given)


def resource_name(collection: str, name: str) -> str:
    """Return ``collection/name``; a full name stays as it is."""
    return name if "/" in name or not name else f"{collection}/{name}"


def model_name(model: str) -> str:
    """Return the full name of "digits", "digits/3" or a full name."""
    parts = model.split("/")
    if len(parts) == 2 and parts[0] != "models":
        return f"models/{parts[0]}/versions/{parts[1]}"
    return resource_name("models", model)


def _spec(given: dict[str, Any]) -> TrainingSpec:
    spec = TrainingSpec(
        model=_model(given),
        train_dataset=resource_name("datasets", given.get("train_dataset", "")),
        validation_dataset=resource_name("datasets", given.get("validation_dataset", "")),
        optimizer=_optimizer(given),
        schedule=_schedule(given),
    )
    same = ("task", "validation_fraction", "validation_interval_epochs", "batch_size", "accumulation_steps")
    _set(spec, given, *same, "epoch_count", "seed", "metrics_interval_steps")
    _set(spec, given, "runner", "split", "block_count", "environment_change")
    _set(spec.loss, given, "huber_delta", "label_smoothing", "mixup_alpha", kind="loss")
    if (weights := given.get("class_weights")) == "balanced":
        spec.loss.balanced_classes = True
    elif weights is not None:
        spec.loss.class_weights.extend(map(float, weights))
    _set_group(spec.schedule.plateau, given, "plateau_")
    _set_group(spec.augmentation, given, "augment_")
    _set_group(spec.early_stopping, given, "early_stopping_")
    if "time_limit_seconds" in given:
        seconds = given["time_limit_seconds"]
        try:
            spec.time_limit.FromNanoseconds(round(seconds * 1e9))
        except (ValueError, OverflowError):
            raise InvalidRequest(f"time_limit_seconds must be at least 0 and at most 1e+09, got {seconds}") from None
    if "device" in given:
        spec.device = _DEVICES[_known("device", given["device"], _DEVICES)]
    _set_warm_start(spec, given)
    return spec


def _model(given: dict[str, Any]) -> ModelSpec:
    model = ModelSpec(layer_sizes=given.get("layer_sizes", []))
    _set(model, given, "initializer", "input_scale", "normalization", input_dropout_rate="input_dropout")
    _set(model, given, standardize_inputs="standardize")
    model.activations.extend(_several(given.get("activation", [])))
    model.dropout_rates.extend(map(float, _several(given.get("dropout", []))))
    if "data_type" in given:
        model.data_type = _DATA_TYPES[_known("data_type", given["data_type"], _DATA_TYPES)]
    return model


def _optimizer(given: dict[str, Any]) -> Optimizer:
    kind = _known("optimizer", given.get("optimizer", "sgd"), _OPTIMIZERS)
    optimizer = Optimizer(weight_decay=given.get("weight_decay", _ADAMW_DECAY if kind == "adamw" else 0.0))
    _set(optimizer, given, "clip_norm", "average_decay")
    _set_chosen(getattr(optimizer, kind.removesuffix("w")), given, "optimizer", kind, _OPTIMIZERS)
    return optimizer


def _schedule(given: Mapping[str, Any]) -> Schedule:
    kind = given.get("schedule", "constant")
    if not isinstance(kind, str):
        kind = "joined"
    _known("schedule", kind, _SCHEDULES)
    schedule = Schedule()
    _set(schedule, given, "learning_rate")
    own = getattr(schedule, {"cosine": "warmup_cosine"}.get(kind, kind))
    _set_chosen(own, given, "schedule", kind, _SCHEDULES)
    if kind == "joined":
        for part in given["schedule"] if not isinstance(given["schedule"], str) else ():
            settings = {name: value for name, value in part.items() if name != "step_count"}
            check_kind("step_count", part.get("step_count", 0), WHOLE)
            for name, value in settings.items():
                check_kind(name, value, SETTINGS[_known("schedule's setting", name, SETTINGS)].kind)
            own.segments.add(schedule=_schedule(settings), step_count=part.get("step_count", 0))
    return schedule


def _set_chosen(
    message: Message, given: Mapping[str, Any], choice: str, kind: str, settings: Mapping[str, tuple[str, ...]]
) -> None:
    """Set what belongs to the chosen ``kind``, and refuse what belongs to others only."""
    message.SetInParent()
    _set(message, given, *settings[kind])
    for name in sorted({name for own in settings.values() for name in own} - set(settings[kind])):
        if name in given:
            raise InvalidRequest(f"{name} must not be set with {choice} {kind}, got {given[name]}")


def _set(message: Any, given: Mapping[str, Any], *names: str, **fields: str) -> None:
    """Set fields that are given: ``names`` are those of settings as well, ``fields`` map field to setting."""
    for field, name in [*zip(names, names, strict=True), *fields.items()]:
        if name in given:
            setattr(message, field, given[name])


def _set_group(message: Any, given: Mapping[str, Any], prefix: str) -> None:
    """Set the fields of ``message`` whose settings are called ``prefix`` and the field."""
    for name, value in given.items():
        if name.startswith(prefix):
            setattr(message, name.removeprefix(prefix), value)


def _set_warm_start(spec: TrainingSpec, given: Mapping[str, Any]) -> None:
    if "warm_start" in given:
        if "warm_start_scope" not in given:
            raise InvalidRequest(f"warm_start_scope must say weights or full with warm_start {given['warm_start']}")
        scope = _SCOPES[_known("warm_start_scope", given["warm_start_scope"], _SCOPES)]
        spec.warm_start.CopyFrom(WarmStart(model=model_name(given["warm_start"]), scope=scope))
    elif "warm_start_scope" in given:
        raise InvalidRequest(f"warm_start_scope must come with warm_start, got {given['warm_start_scope']}")


def _several(value: Any) -> list[Any]:
    return [value] if isinstance(value, str | int | float) else list(value)


def _known(what: str, name: Any, names: Iterable[str]) -> Any:
    if name in list(names):
        return name
    close = difflib.get_close_matches(str(name), list(names), 1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise InvalidRequest(f"{what} must be one of {', '.join(names)}, got {name}{hint}")
