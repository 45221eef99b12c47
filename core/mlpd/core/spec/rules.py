"""The rules that a spec must keep; each broken one is named with its field and value."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from math import inf, isfinite
from typing import Any, Protocol, TypedDict

from mlpd.core.data_types import LARGEST_LABEL, PRECISIONS
from mlpd.core.network.activations import ACTIVATIONS
from mlpd.core.network.architecture import NORMALIZATIONS, ModelSpec, parameter_count
from mlpd.core.network.initializers import INITIALIZERS
from mlpd.core.network.losses import Huber, Poisson
from mlpd.core.network.tasks import TASKS
from mlpd.core.optimization.optimizers import AdaGrad, Adam, Lion, Optimizer, RmsProp, Sgd
from mlpd.core.optimization.schedules import (
    Constant,
    Exponential,
    Joined,
    OneCycle,
    Polynomial,
    Schedule,
    Segment,
    Steps,
    WarmupCosine,
)
from mlpd.core.spec.row_rules import broken_class_weight_rules, broken_row_rules
from mlpd.core.spec.split import SPLITS, largest_block_count
from mlpd.core.spec.training import ENVIRONMENT_CHANGES, RUNNERS, OptimizerSpec, TrainingSpec

LAYER_LIMIT = 64
_WIDTH_LIMIT = 1_000_000
_PARAMETER_LIMIT = 100_000_000
_EPOCH_LIMIT = 1_000_000
_RATE_LIMIT = 1e9
SEGMENT_LIMIT = 32
_TIME_LIMIT_SECONDS = 1e9
_SHOWN_CHARACTERS = 64
_WHY_ONE_BLOCK = (
    "for blocks of units take the compiled runner, a hidden layer and no layer normalization, blocks of rows the "
    "compiled runner and no batch normalization"
)
_AUGMENTATION_LIMITS = {
    "shift_pixels": 1e4,
    "rotation_degrees": 180.0,
    "scale": 0.9,
    "shear": 10.0,
    "elastic_pixels": 1e4,
}


class Rows(Protocol):
    """What a spec is checked against; a `DatasetInfo` is one."""

    @property
    def row_count(self) -> int:
        """Rows."""

    @property
    def input_size(self) -> int:
        """Values in a row."""

    @property
    def class_row_counts(self) -> tuple[int, ...]:
        """Rows of each class, by label; empty where targets are numbers."""

    @property
    def target_size(self) -> int:
        """Numbers in a row's target; 0 where targets are classes."""

    @property
    def target_range(self) -> tuple[float, float]:
        """Least and largest number in the targets."""


@dataclass(frozen=True)
class Violation:
    """A field, as the wire's TrainingSpec calls it, and the rule it breaks in one sentence."""

    field: str
    description: str


def find_violations(spec: TrainingSpec, train: Rows | None, validation: Rows | None) -> list[Violation]:
    """Return every rule that ``spec`` breaks; rules that need unknown data (None) are left out."""
    return [
        *_model_violations(spec.model),
        *_data_violations(spec, train, validation),
        *_loss_violations(spec, train),
        *_run_violations(spec, train),
        *_optimizer_violations(spec.optimizer),
        *_precision_violations(spec),
        *_schedule_violations(spec, train),
    ]


def _model_violations(model: ModelSpec) -> Iterator[Violation]:
    field, sizes = "model.layer_sizes", model.layer_sizes
    if not 2 <= len(sizes) <= LAYER_LIMIT:
        yield _violation(field, f"have between 2 and {LAYER_LIMIT} entries, input first", len(sizes))
    elif not all(1 <= size <= _WIDTH_LIMIT for size in sizes):
        wrong = next(size for size in sizes if not 1 <= size <= _WIDTH_LIMIT)
        yield _violation(field, f"be between 1 and {_WIDTH_LIMIT} each", wrong)
    else:
        count = parameter_count(ModelSpec.plain(sizes).layers())
        if count > _PARAMETER_LIMIT:
            yield _violation(field, f"give at most {_PARAMETER_LIMIT} parameters", count)
        hidden = len(sizes) - 2
        if model.normalization == "layer" and 1 in sizes[1:-1]:
            yield _violation(field, "have at least 2 units in hidden layers with layer normalization", 1)
        for name, given in (("activations", model.activations), ("dropout_rates", model.dropout_rates)):
            if len(given) != hidden:
                yield _violation(f"model.{name}", f"have one entry, or {hidden}, one a hidden layer", len(given))
    yield from islice((v for name in model.activations for v in one_of("model.activations", name, ACTIVATIONS)), 1)
    rates = (v for rate in model.dropout_rates for v in _within("model.dropout_rates", rate, 0, 1, below=True))
    yield from islice(rates, 1)
    yield from _within("model.input_dropout_rate", model.input_dropout_rate, 0, 1, below=True)
    yield from one_of("model.normalization", model.normalization, NORMALIZATIONS)
    yield from one_of("model.initializer", model.initializer, INITIALIZERS)
    yield from one_of("model.data_type", model.dtype, PRECISIONS)
    if not isfinite(model.input_scale) or model.input_scale == 0:
        yield _violation("model.input_scale", "be finite and not 0", model.input_scale)
    elif model.standardize_inputs and model.input_scale != 1:
        yield _violation("model.input_scale", "be unset with standardize_inputs", model.input_scale)


def _data_violations(spec: TrainingSpec, train: Rows | None, validation: Rows | None) -> Iterator[Violation]:
    yield from one_of("task", spec.task, TASKS)
    sizes = spec.model.layer_sizes
    if spec.task not in TASKS or not 2 <= len(sizes) <= LAYER_LIMIT:
        return
    for name, rows in (("train_dataset", train), ("validation_dataset", validation)):
        if rows and sizes[0] != rows.input_size:
            rule = f"begin with {rows.input_size}, the width of {name}'s rows"
            yield _violation("model.layer_sizes", rule, sizes[0])
        if rows:
            yield from _target_violations(spec, name, rows)
    present = sum(count > 0 for count in train.class_row_counts) if train and not train.target_size else 2
    if TASKS[spec.task].has_classes and present < 2:
        yield _violation("train_dataset", "have rows of at least 2 classes", present)
    low, high = (1, 1) if spec.task == "binary" else (2, LARGEST_LABEL + 1)
    if TASKS[spec.task].has_classes and not low <= sizes[-1] <= high:
        rule = "end with 1 output for task binary" if high == 1 else f"end with between 2 and {high} classes"
        yield _violation("model.layer_sizes", rule, sizes[-1])


def _target_violations(spec: TrainingSpec, name: str, rows: Rows) -> Iterator[Violation]:
    outputs, classes = spec.model.layer_sizes[-1], len(rows.class_row_counts)
    low, high = rows.target_range
    if TASKS[spec.task].has_classes:
        if rows.target_size:
            yield _violation(name, f"have class labels for task {spec.task}", f"{rows.target_size} numbers a row")
        elif spec.task == "binary" and classes > 2:
            yield _violation(name, "have the classes 0 and 1 for task binary", f"{classes} classes")
        elif spec.task == "multiclass" and 2 <= outputs < classes:
            yield _violation("model.layer_sizes", f"end with at least {classes}, the classes of {name}", outputs)
    elif not rows.target_size:
        yield _violation(name, f"have rows of numbers as targets for task {spec.task}", "class labels")
    else:
        if outputs != rows.target_size:
            rule = f"end with {rows.target_size}, the numbers in {name}'s targets"
            yield _violation("model.layer_sizes", rule, outputs)
        if spec.task == "multilabel" and not 0 <= low <= high <= 1:
            yield _violation(name, "have targets between 0 and 1 for task multilabel", f"{low:g} to {high:g}")
        if isinstance(spec.loss.kind, Poisson) and low < 0:
            yield _violation(name, "have targets of at least 0 for loss poisson", f"{low:g}")


def _loss_violations(spec: TrainingSpec, train: Rows | None) -> Iterator[Violation]:
    loss = spec.loss
    if isinstance(loss.kind, Huber):
        yield from _within("loss.huber_delta", loss.kind.delta, 0, inf, above=True)
    yield from _within("loss.label_smoothing", loss.label_smoothing, 0, 1, below=True)
    yield from _within("loss.mixup_alpha", loss.mixup_alpha, 0, 1)
    if (task := TASKS.get(spec.task)) is None:
        return
    yield from one_of("loss.kind", loss.kind.name, [kind.name for kind in task.losses], f" for task {spec.task}")
    if loss.label_smoothing and spec.task == "regression":
        yield _violation("loss.label_smoothing", "be 0 for task regression", loss.label_smoothing)
    if loss.class_weights:
        weights, classes = loss.class_weights, max(spec.model.layer_sizes[-1:] or (0,))
        classes = 2 if spec.task == "binary" else classes
        if not task.has_classes:
            yield _violation("loss.class_weights", f"be empty for task {spec.task}", f"{len(weights)} entries")
        elif len(weights) != classes:
            yield _violation("loss.class_weights", f"have {classes} entries, one a class", len(weights))
        elif wrong := [weight for weight in weights if not (isfinite(weight) and weight >= 0)]:
            yield _violation("loss.class_weights", "be finite and at least 0", wrong[0])
        elif not any(weights):
            yield _violation("loss.class_weights", "not all be 0", f"{len(weights)} zeros")
        elif train and not train.target_size:
            broken = broken_class_weight_rules(spec, train.row_count, train.class_row_counts)
            yield from (_violation(*rule) for rule in broken)


def _run_violations(spec: TrainingSpec, train: Rows | None) -> Iterator[Violation]:
    yield from _row_violations(spec, train)
    for field, value, limit in (
        ("validation_interval_epochs", spec.validation.interval_epochs, _EPOCH_LIMIT),
        ("accumulation_steps", spec.accumulation_steps, 2**31),
        ("epoch_count", spec.epoch_count, _EPOCH_LIMIT),
    ):
        if not 1 <= value <= limit:
            yield _violation(field, f"be between 1 and {limit}", value)
    if spec.metrics_interval_steps < 1:
        yield _violation("metrics_interval_steps", "be at least 1", spec.metrics_interval_steps)
    yield from _runner_violations(spec)
    yield from one_of("environment_change", spec.environment_change, ENVIRONMENT_CHANGES)
    if not 0 <= spec.seed < 2**63:
        yield _violation("seed", "be between 0 and 2**63 - 1", spec.seed)
    yield from _within("time_limit", spec.time_limit_seconds, 0, _TIME_LIMIT_SECONDS)
    yield from _augmentation_violations(spec)
    if stopping := spec.early_stopping:
        if not spec.validation.exists:
            yield _violation("early_stopping", "come with validation_dataset or validation_fraction", "neither")
        if stopping.patience < 1:
            yield _violation("early_stopping.patience", "be at least 1", stopping.patience)
        yield from _within("early_stopping.minimum_delta", stopping.minimum_delta, 0, inf)
        metrics = ("loss", "accuracy") if spec.task in TASKS and TASKS[spec.task].counts_hits else ("loss",)
        yield from one_of("early_stopping.metric", stopping.metric, metrics, f" for task {spec.task}")


def _runner_violations(spec: TrainingSpec) -> Iterator[Violation]:
    yield from one_of("runner", spec.runner, RUNNERS[spec.device], f" for device {spec.device}")
    yield from one_of("split", spec.split, SPLITS)
    sizes = spec.model.layer_sizes
    if spec.runner not in RUNNERS[spec.device] or spec.split not in SPLITS or min(sizes, default=0) < 1:
        return
    most = largest_block_count(spec, spec.split)
    if not 1 <= spec.block_count <= most:
        what = f"as many blocks of {spec.split} as this run can be cut into" if most > 1 else _WHY_ONE_BLOCK
        yield _violation("block_count", f"be between 1 and {most}, {what}", spec.block_count)


def _row_violations(spec: TrainingSpec, train: Rows | None) -> Iterator[Violation]:
    validation = spec.validation
    yield from _within("validation_fraction", validation.fraction, 0, 1, below=True)
    if validation.fraction and validation.dataset:
        yield _violation("validation_fraction", "be unset with validation_dataset", validation.fraction)
    rows = (train.row_count, train.class_row_counts) if train else (None, ())
    yield from (_violation(*rule) for rule in broken_row_rules(spec, *rows))


def _augmentation_violations(spec: TrainingSpec) -> Iterator[Violation]:
    if not (augmentation := spec.augmentation):
        return
    height, width = augmentation.image_height, augmentation.image_width
    for field, size in (("image_height", height), ("image_width", width)):
        if size < 2:
            yield _violation(f"augmentation.{field}", "be at least 2", size)
    if spec.model.layer_sizes and height * width != spec.model.layer_sizes[0]:
        rule = f"give image_height * image_width = {spec.model.layer_sizes[0]}, the values in a row"
        yield _violation("augmentation", rule, f"{height} * {width}")
    for field, limit in _AUGMENTATION_LIMITS.items():
        yield from _within(f"augmentation.{field}", getattr(augmentation, field), 0, limit)
    smoothness = augmentation.elastic_smoothness_pixels
    yield from _within("augmentation.elastic_smoothness_pixels", smoothness, 1, 1e4)


def _optimizer_violations(optimizer: OptimizerSpec) -> Iterator[Violation]:
    kind = optimizer.kind
    for name, limits in _OPTIMIZER_LIMITS[type(kind)].items():
        yield from _within(f"optimizer.{kind.name}.{name}", getattr(kind, name), **limits)
    if isinstance(kind, Sgd) and kind.nesterov and kind.momentum == 0:
        yield _violation("optimizer.sgd.nesterov", "come with momentum above 0", kind.momentum)
    yield from _within("optimizer.weight_decay", optimizer.weight_decay, 0, inf)
    yield from _within("optimizer.clip_norm", optimizer.clip_norm, 0, inf)
    yield from _within("optimizer.average_decay", optimizer.average_decay, 0, 1, below=True)


def _precision_violations(spec: TrainingSpec) -> Iterator[Violation]:
    """Look for numbers that would be zero or infinite in the type of the model, or that it can't tell from zero."""
    dtype, kind = spec.model.dtype, spec.optimizer.kind
    if dtype not in PRECISIONS:
        return
    precision = PRECISIONS[dtype]
    low, high = precision.range
    for field, value, least in (
        ("model.input_scale", abs(spec.model.input_scale), low),
        ("loss.huber_delta", getattr(spec.loss.kind, "delta", 0.0), low),
        ("optimizer.clip_norm", spec.optimizer.clip_norm, low),
        (f"optimizer.{kind.name}.epsilon", getattr(kind, "epsilon", 0.0), precision.smallest_epsilon),
    ):
        if 0 < value < least or high < value < inf:
            yield _violation(field, f"be between {least:g} and {high:g} in size for data_type {dtype}", value)


def _schedule_violations(spec: TrainingSpec, train: Rows | None) -> Iterator[Violation]:
    schedule = spec.schedule
    rate = schedule.learning_rate
    if not 0 < rate <= _RATE_LIMIT:
        yield _violation("schedule.learning_rate", f"be above 0 and at most {_RATE_LIMIT:g}", rate)
    counted = train and min(spec.batch_size, spec.accumulation_steps, spec.epoch_count) >= 1
    counted = counted and 0 <= spec.validation.fraction < 1
    step_count = spec.step_count(train.row_count) if train and counted else None
    path = f"schedule.{schedule.shape.name}"
    if isinstance(schedule.shape, Joined):
        yield from _joined_violations(path, schedule.shape.segments, step_count)
    else:
        yield from _shape_violations(path, schedule.shape, step_count)
    if plateau := schedule.plateau:
        if not spec.validation.exists:
            yield _violation("schedule.plateau", "come with validation_dataset or validation_fraction", "neither")
        yield from _within("schedule.plateau.factor", plateau.factor, 0, 1, above=True, below=True)
        yield from _within("schedule.plateau.minimum_share", plateau.minimum_share, 0, 1)
        if plateau.patience < 1:
            yield _violation("schedule.plateau.patience", "be at least 1", plateau.patience)


def _joined_violations(path: str, segments: tuple[Segment, ...], step_count: int | None) -> Iterator[Violation]:
    if not 1 <= len(segments) <= SEGMENT_LIMIT:
        yield _violation(f"{path}.segments", f"have between 1 and {SEGMENT_LIMIT} entries", len(segments))
        return
    counts: list[int | None] = [segment.step_count for segment in segments[:-1]]
    left = None if step_count is None else step_count - sum(segment.step_count for segment in segments[:-1])
    if left is not None and left < 1:
        yield _violation(f"{path}.segments", f"leave some of {step_count} steps for the last", left)
        left = None
    for i, (segment, count) in enumerate(zip(segments, [*counts, left], strict=True)):
        where = f"{path}.segments[{i}]"
        if count is not None and count < 1:
            yield _violation(f"{where}.step_count", "be at least 1", count)
        elif isinstance(segment.schedule, Joined):
            yield _violation(where, "not be joined itself", "joined")
        else:
            yield from _shape_violations(f"{where}.{segment.schedule.name}", segment.schedule, count)


def _shape_violations(path: str, shape: Schedule, step_count: int | None) -> Iterator[Violation]:
    """Look at a schedule over ``step_count`` steps; None = unknown."""
    for name, limits in _SCHEDULE_LIMITS[type(shape)].items():
        yield from _within(f"{path}.{name}", getattr(shape, name), **limits)
    if isinstance(shape, Steps) and shape.interval_steps < 1:
        yield _violation(f"{path}.interval_steps", "be at least 1", shape.interval_steps)
    if isinstance(shape, WarmupCosine):
        if step_count is not None and not 0 <= shape.warmup_steps <= step_count - 1:
            yield _violation(f"{path}.warmup_steps", f"be between 0 and {step_count - 1}", shape.warmup_steps)
        elif shape.warmup_steps < 0:
            yield _violation(f"{path}.warmup_steps", "be at least 0", shape.warmup_steps)


class _Limits(TypedDict, total=False):
    low: float
    high: float
    above: bool
    below: bool


_FRACTION: _Limits = {"low": 0, "high": 1, "below": True}
_SHARE: _Limits = {"low": 0, "high": 1}
_SOME_SHARE: _Limits = {"low": 0, "high": 1, "above": True}
_POSITIVE: _Limits = {"low": 0, "high": inf, "above": True}
_OPTIMIZER_LIMITS: dict[type[Optimizer], dict[str, _Limits]] = {
    Sgd: {"momentum": _FRACTION},
    Adam: {"beta1": _FRACTION, "beta2": _FRACTION, "epsilon": _POSITIVE},
    RmsProp: {"decay": _FRACTION, "epsilon": _POSITIVE, "momentum": _FRACTION},
    AdaGrad: {"epsilon": _POSITIVE},
    Lion: {"beta1": _FRACTION, "beta2": _FRACTION},
}
_SCHEDULE_LIMITS: dict[type[Schedule], dict[str, _Limits]] = {
    Constant: {},
    Steps: {"factor": _SOME_SHARE},
    Exponential: {"final_share": _SOME_SHARE},
    Polynomial: {"power": _POSITIVE, "initial_share": _SHARE, "final_share": _SHARE},
    WarmupCosine: {"final_share": _SHARE},
    OneCycle: {"rise": _FRACTION, "initial_share": _SHARE, "final_share": _SHARE},
}


def one_of(field: str, value: str, names: Any, when: str = "") -> Iterator[Violation]:
    """Check that ``value`` is one of ``names``; ``when`` says in which case it must."""
    if value not in names:
        yield _violation(field, f"be one of {', '.join(names)}{when}", value or "nothing")


def _within(
    field: str, value: float, low: float, high: float, *, above: bool = False, below: bool = False
) -> Iterator[Violation]:
    """Check that a finite ``value`` is in ``low`` to ``high``, without ``low`` if ``above``, ``high`` if ``below``."""
    holds = isfinite(value) and (value > low if above else value >= low) and (value < high if below else value <= high)
    if not holds:
        lower = f"{'above' if above else 'at least'} {low:g}"
        upper = f"{'below' if below else 'at most'} {high:g}"
        yield _violation(field, f"be finite and {lower}" if high == inf else f"be {lower} and {upper}", value)


def _violation(field: str, rule: str, value: Any) -> Violation:
    shown = ascii(str(value))[1:-1]  # a text of the caller's may hold what a terminal obeys
    if len(shown) > _SHOWN_CHARACTERS:
        shown = f"{shown[:_SHOWN_CHARACTERS]}..."
    return Violation(field, f"{field} must {rule}, got {shown}")
