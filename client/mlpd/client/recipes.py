"""Training specs from flat settings, and the presets."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial, reduce
from typing import Any, Literal, Unpack

from google.protobuf.message import Message
from mlpd.client.arguments import TrainingSettings
from mlpd.client.errors import InvalidRequest
from mlpd.client.kinds import NUMBERS, TEXTS, WEIGHTS, WHOLE, WHOLES, check_kind
from mlpd.client.settings import CHOICES, SETTINGS
from mlpd.client.spelling import did_you_mean
from mlpd.v1.trainer_service_pb2 import TrainingSpec

_AUGMENTED: TrainingSettings = {
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
Preset = Literal["seed", "default", "best", "large"]
PRESETS: Mapping[Preset, TrainingSettings] = {
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


def training_spec(preset: Preset | None = None, **settings: Unpack[TrainingSettings]) -> TrainingSpec:
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
        for choice, kinds in CHOICES.items():
            if given.get(choice, base.get(choice)) != base.get(choice):
                for name in {name for kind in kinds.values() for name in kind.settings}:
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


# Settings that are told in other words than the spec's.
_NAMED: Mapping[str, Callable[[str], str]] = {
    "train_dataset": partial(resource_name, "datasets"),
    "validation_dataset": partial(resource_name, "datasets"),
    "test_dataset": partial(resource_name, "datasets"),
    "warm_start": model_name,
}


def _spec(given: Mapping[str, Any]) -> TrainingSpec:
    spec = TrainingSpec()
    spec.model.SetInParent()
    for choice in CHOICES:
        given = _choose(choice, getattr(spec, choice), given)
    _check_warm_start(given)
    for name, value in given.items():
        if path := SETTINGS[name].path:
            *parts, last = path.split(".")
            _set(reduce(getattr, parts, spec), last, name, _NAMED[name](value) if name in _NAMED else value)
    return spec


def _choose(choice: str, message: Message, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Set which kind is chosen, the first if none is said, and its settings; return all settings with its defaults."""
    kinds = CHOICES[choice]
    name = given.get(choice, next(iter(kinds)))
    name = name if isinstance(name, str) else "joined"
    kind = kinds[_known(choice, name, kinds)]
    own = getattr(message, kind.kind)
    own.SetInParent()
    for setting in sorted({setting for other in kinds.values() for setting in other.settings}):
        if setting in given and setting not in kind.settings:
            raise InvalidRequest(f"{setting} must not be set with {choice} {name}, got {given[setting]}")
        if setting in given:
            setattr(own, setting, given[setting])
    for part in given[choice] if name == "joined" and not isinstance(given[choice], str) else ():
        _add_segment(own, part)
    return {**kind.defaults, **given}


def _add_segment(joined: Any, part: Mapping[str, Any]) -> None:
    """Add a part to joined schedules: a schedule, its settings, and ``step_count``; it has no others."""
    own = [setting for kind in CHOICES["schedule"].values() for setting in kind.settings]
    known = ["schedule", "step_count", *dict.fromkeys(own)]
    for name, value in part.items():
        _known("schedule's setting", name, known)
        check_kind(name, value, WHOLE if name == "step_count" else SETTINGS[name].kind)
    segment = joined.segments.add(step_count=part.get("step_count", 0))
    _choose("schedule", segment.schedule, part)


def _set(message: Any, field: str, name: str, value: Any) -> None:
    """Set a field of ``message`` to the value of a setting."""
    setting, descriptor = SETTINGS[name], message.DESCRIPTOR.fields_by_name[field]
    if setting.words:
        word = setting.words[_known(name, value, setting.words)]
        setattr(message, field, descriptor.enum_type.values_by_name[word].number)
    elif name == "class_weights" and value == "balanced":
        message.balanced_classes = True
    elif setting.kind in (WHOLES, TEXTS):
        getattr(message, field).extend(_several(value))
    elif setting.kind in (NUMBERS, WEIGHTS):
        getattr(message, field).extend(map(float, _several(value)))
    elif descriptor.message_type:
        try:
            getattr(message, field).FromNanoseconds(round(value * 1e9))
        except (ValueError, OverflowError):
            raise InvalidRequest(f"{name} must {setting.rule}, got {value}") from None
    else:
        setattr(message, field, value)


def _check_warm_start(given: Mapping[str, Any]) -> None:
    if "warm_start" in given and "warm_start_scope" not in given:
        raise InvalidRequest(f"warm_start_scope must say weights or full with warm_start {given['warm_start']}")
    if "warm_start_scope" in given and "warm_start" not in given:
        raise InvalidRequest(f"warm_start_scope must come with warm_start, got {given['warm_start_scope']}")


def _several(value: Any) -> list[Any]:
    return [value] if isinstance(value, str | int | float) else list(value)


def _known(what: str, name: Any, names: Iterable[str]) -> Any:
    if name in list(names):
        return name
    raise InvalidRequest(f"{what} must be one of {', '.join(names)}, got {name}{did_you_mean(str(name), names)}")
