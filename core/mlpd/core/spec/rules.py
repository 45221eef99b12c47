"""The rules that a spec must keep; each broken one is named with its field and value."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, Protocol

from mlpd.core.data_types import PRECISIONS
from mlpd.core.declaration import OneOf
from mlpd.core.network.architecture import WIDTHS, ModelSpec, parameter_count
from mlpd.core.network.losses import Poisson
from mlpd.core.network.tasks import TASKS
from mlpd.core.optimization.optimizers import Sgd
from mlpd.core.optimization.schedules import Joined, Schedule, Segment, WarmupCosine
from mlpd.core.spec.limits import broken_limits
from mlpd.core.spec.row_rules import broken_class_weight_rules, broken_row_rules
from mlpd.core.spec.split import SPLITS, largest_block_count
from mlpd.core.spec.training import RUNNERS, OptimizerSpec, TrainingSpec

LAYER_LIMIT = 64
_PARAMETER_LIMIT = 100_000_000
SEGMENT_LIMIT = 32
_SHOWN_CHARACTERS = 64
# The limits of these are narrower in a run than by themselves, and only one of both is told.
_NARROWED = ("batch_size", "early_stopping.metric", "warmup_steps")
_WHY_ONE_BLOCK = (
    "for blocks of units take the compiled runner on the CPU, a hidden layer and no layer normalization, blocks of "
    "rows that runner and no batch normalization"
)


class Rows(Protocol):
    """What a spec is checked against; a `DatasetInfo` is one."""

    @property
    def row_count(self) -> int:
        """Rows."""

    @property
    def encoded_size(self) -> int:
        """Values that a network sees of a row."""

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


def find_violations(
    spec: TrainingSpec, train: Rows | None, validation: Rows | None, test: Rows | None = None
) -> list[Violation]:
    """Return every rule that ``spec`` breaks; rules that need unknown data (None) are left out."""
    found = [
        *_model_violations(spec.model),
        *_data_violations(spec, {"train_dataset": train, "validation_dataset": validation, "test_dataset": test}),
        *_loss_violations(spec, train),
        *_run_violations(spec, train),
        *_optimizer_violations(spec.optimizer),
        *_precision_violations(spec),
        *_schedule_violations(spec, train),
    ]
    told = {violation.field for violation in found if violation.field.endswith(_NARROWED)}
    return found + [_violation(*broken) for broken in broken_limits(spec) if broken[0] not in told]


def _model_violations(model: ModelSpec) -> Iterator[Violation]:
    field, sizes = "model.layer_sizes", model.layer_sizes
    if not 2 <= len(sizes) <= LAYER_LIMIT:
        yield _violation(field, f"have between 2 and {LAYER_LIMIT} entries, input first", len(sizes))
    elif all(map(WIDTHS.holds, sizes)):
        count = parameter_count(ModelSpec.plain(sizes).layers())
        if count > _PARAMETER_LIMIT:
            yield _violation(field, f"give at most {_PARAMETER_LIMIT} parameters", count)
        hidden = len(sizes) - 2
        if model.normalization == "layer" and 1 in sizes[1:-1]:
            yield _violation(field, "have at least 2 units in hidden layers with layer normalization", 1)
        for name, given in (("activations", model.activations), ("dropout_rates", model.dropout_rates)):
            if len(given) != hidden:
                yield _violation(f"model.{name}", f"have one entry, or {hidden}, one a hidden layer", len(given))
    if model.standardize_inputs and model.input_scale != 1:
        yield _violation("model.input_scale", "be unset with standardize_inputs", model.input_scale)


def _data_violations(spec: TrainingSpec, datasets: Mapping[str, Rows | None]) -> Iterator[Violation]:
    sizes, task = spec.model.layer_sizes, TASKS.get(spec.task)
    if task is None or not 2 <= len(sizes) <= LAYER_LIMIT:
        return
    train = datasets["train_dataset"]
    for name, rows in datasets.items():
        if rows and sizes[0] != rows.encoded_size:
            if name == "train_dataset":
                rule = f"begin with {rows.encoded_size}, the width of {name}'s rows"
                yield _violation("model.layer_sizes", rule, sizes[0])
            else:
                yield _violation(name, f"have rows of {sizes[0]} values, as the network takes", rows.encoded_size)
        if rows:
            yield from _target_violations(spec, name, rows)
    present = sum(count > 0 for count in train.class_row_counts) if train and not train.target_size else 2
    if task.has_classes and present < 2:
        yield _violation("train_dataset", "have rows of at least 2 classes", present)
    if task.output_limits:
        low, high = task.output_limits
        rule = (
            f"end with {low} output for task {spec.task}"
            if low == high
            else f"end with between {low} and {high} classes"
        )
        if not low <= sizes[-1] <= high:
            yield _violation("model.layer_sizes", rule, sizes[-1])


def _target_violations(spec: TrainingSpec, name: str, rows: Rows) -> Iterator[Violation]:
    outputs, classes, task = spec.model.layer_sizes[-1], len(rows.class_row_counts), TASKS[spec.task]
    if task.has_classes:
        if rows.target_size:
            yield _violation(name, f"have class labels for task {spec.task}", f"{rows.target_size} numbers a row")
        elif task.output_limits == (1, 1) and classes > task.class_count(outputs):
            yield _violation(name, f"have the classes 0 and 1 for task {spec.task}", f"{classes} classes")
        elif 2 <= outputs < classes and name == "train_dataset":
            yield _violation("model.layer_sizes", f"end with at least {classes}, the classes of {name}", outputs)
        elif 2 <= outputs < classes:
            yield _violation(name, f"have at most {outputs} classes, as the network has", classes)
    elif not rows.target_size:
        yield _violation(name, f"have rows of numbers as targets for task {spec.task}", "class labels")
    else:
        yield from _number_violations(spec, name, rows)


def _number_violations(spec: TrainingSpec, name: str, rows: Rows) -> Iterator[Violation]:
    outputs, task, (low, high) = spec.model.layer_sizes[-1], TASKS[spec.task], rows.target_range
    if outputs != rows.target_size and name == "train_dataset":
        rule = f"end with {rows.target_size}, the numbers in {name}'s targets"
        yield _violation("model.layer_sizes", rule, outputs)
    elif outputs != rows.target_size:
        yield _violation(name, f"have targets of {outputs} numbers, as the network has", rows.target_size)
    if task.target_limits and not task.target_limits[0] <= low <= high <= task.target_limits[1]:
        least, most = task.target_limits
        rule = f"have targets between {least:g} and {most:g} for task {spec.task}"
        yield _violation(name, rule, f"{low:g} to {high:g}")
    if isinstance(spec.loss.kind, Poisson) and low < 0:
        yield _violation(name, "have targets of at least 0 for loss poisson", f"{low:g}")


def _loss_violations(spec: TrainingSpec, train: Rows | None) -> Iterator[Violation]:
    loss = spec.loss
    if (task := TASKS.get(spec.task)) is None:
        return
    yield from one_of("loss.kind", loss.kind.name, [kind.name for kind in task.losses], f" for task {spec.task}")
    if loss.label_smoothing and not task.smooths_targets:
        yield _violation("loss.label_smoothing", f"be 0 for task {spec.task}", loss.label_smoothing)
    if loss.standardize_targets and (task.has_classes or task.target_limits or isinstance(loss.kind, Poisson)):
        where = f"loss {loss.kind.name}" if isinstance(loss.kind, Poisson) else f"task {spec.task}"
        yield _violation("loss.standardize_targets", f"be unset for {where}", "true")
    if loss.class_weights:
        weights, classes = loss.class_weights, task.class_count(max(spec.model.layer_sizes[-1:] or (0,)))
        if not task.has_classes:
            yield _violation("loss.class_weights", f"be empty for task {spec.task}", f"{len(weights)} entries")
        elif len(weights) != classes:
            yield _violation("loss.class_weights", f"have {classes} entries, one a class", len(weights))
        elif not any(weights):
            yield _violation("loss.class_weights", "not all be 0", f"{len(weights)} zeros")
        elif train and not train.target_size and all(0 <= weight < inf for weight in weights):
            broken = broken_class_weight_rules(spec, train.row_count, train.class_row_counts)
            yield from (_violation(*rule) for rule in broken)


def _run_violations(spec: TrainingSpec, train: Rows | None) -> Iterator[Violation]:
    yield from _row_violations(spec, train)
    yield from _runner_violations(spec)
    yield from _augmentation_violations(spec)
    if stopping := spec.early_stopping:
        if not spec.validation.exists:
            yield _violation("early_stopping", "come with validation_dataset or validation_fraction", "neither")
        metrics = ("loss", "accuracy") if spec.task in TASKS and TASKS[spec.task].counts_hits else ("loss",)
        yield from one_of("early_stopping.metric", stopping.metric, metrics, f" for task {spec.task}")


def _runner_violations(spec: TrainingSpec) -> Iterator[Violation]:
    sizes = spec.model.layer_sizes
    if spec.runner not in RUNNERS or spec.split not in SPLITS or min(sizes, default=0) < 1:
        return
    most = largest_block_count(spec, spec.split)
    if not 1 <= spec.block_count <= most:
        what = f"as many blocks of {spec.split} as this run can be cut into" if most > 1 else _WHY_ONE_BLOCK
        yield _violation("block_count", f"be between 1 and {most}, {what}", spec.block_count)


def _row_violations(spec: TrainingSpec, train: Rows | None) -> Iterator[Violation]:
    validation = spec.validation
    if validation.fraction and validation.dataset:
        yield _violation("validation_fraction", "be unset with validation_dataset", validation.fraction)
    rows = (train.row_count, train.class_row_counts) if train else (None, ())
    yield from (_violation(*rule) for rule in broken_row_rules(spec, *rows))


def _augmentation_violations(spec: TrainingSpec) -> Iterator[Violation]:
    if not (augmentation := spec.augmentation):
        return
    height, width = augmentation.image_height, augmentation.image_width
    if spec.model.layer_sizes and height * width != spec.model.layer_sizes[0]:
        rule = f"give image_height * image_width = {spec.model.layer_sizes[0]}, the values in a row"
        yield _violation("augmentation", rule, f"{height} * {width}")


def _optimizer_violations(optimizer: OptimizerSpec) -> Iterator[Violation]:
    kind = optimizer.kind
    if isinstance(kind, Sgd) and kind.nesterov and kind.momentum == 0:
        yield _violation("optimizer.sgd.nesterov", "come with momentum above 0", kind.momentum)


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
    counted = train and min(spec.batch_size, spec.accumulation_steps, spec.epoch_count) >= 1
    counted = counted and 0 <= spec.validation.fraction < 1
    step_count = spec.step_count(train.row_count) if train and counted else None
    path = f"schedule.{schedule.shape.name}"
    if isinstance(schedule.shape, Joined):
        yield from _joined_violations(path, schedule.shape.segments, step_count)
    else:
        yield from _warmup_violations(path, schedule.shape, step_count)
    if schedule.plateau and not spec.validation.exists:
        yield _violation("schedule.plateau", "come with validation_dataset or validation_fraction", "neither")


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
            yield from _warmup_violations(f"{where}.{segment.schedule.name}", segment.schedule, count)


def _warmup_violations(path: str, shape: Schedule, step_count: int | None) -> Iterator[Violation]:
    """Look whether a schedule over ``step_count`` steps has room for its warm-up; None = unknown."""
    if isinstance(shape, WarmupCosine) and step_count is not None and not 0 <= shape.warmup_steps < step_count:
        yield _violation(f"{path}.warmup_steps", f"be between 0 and {step_count - 1}", shape.warmup_steps)


def one_of(field: str, value: str, names: Any, when: str = "") -> Iterator[Violation]:
    """Check that ``value`` is one of ``names``; ``when`` says in which case it must."""
    if value not in names:
        yield _violation(field, f"{OneOf(names).rule}{when}", value or "nothing")


def _violation(field: str, rule: str, value: Any) -> Violation:
    shown = ascii(str(value))[1:-1]  # a text of the caller's may hold what a terminal obeys
    if len(shown) > _SHOWN_CHARACTERS:
        shown = f"{shown[:_SHOWN_CHARACTERS]}..."
    return Violation(field, f"{field} must {rule}, got {shown}")
