"""Everything that determines the result of a run, resolved: every default filled in."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any, Protocol

from mlpd.core.data import LARGEST_LABEL
from mlpd.core.initializers import INITIALIZERS
from mlpd.core.network import parameter_count

# Part of every spec's digest: raised when equal specs begin to give other bits.
_FORMAT = 1

_LAYER_LIMIT = 64
_WIDTH_LIMIT = 1_000_000
_PARAMETER_LIMIT = 100_000_000
_EPOCH_LIMIT = 1_000_000
_RATE_LIMIT = 1e9


@dataclass(frozen=True)
class ModelSpec:
    """Architecture and what precedes it."""

    layer_sizes: tuple[int, ...]
    initializer: str
    input_scale: float


@dataclass(frozen=True)
class SgdSpec:
    """Stochastic gradient descent."""

    momentum: float = 0.0
    nesterov: bool = False


@dataclass(frozen=True)
class AdamSpec:
    """Adam; AdamW with weight decay."""

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8


@dataclass(frozen=True)
class OptimizerSpec:
    """An optimizer, and decoupled weight decay in units of the learning rate."""

    kind: SgdSpec | AdamSpec
    weight_decay: float = 0.0


@dataclass(frozen=True)
class ScheduleSpec:
    """Peak learning rate; ``kind`` is "constant" or "warmup_cosine"."""

    learning_rate: float
    kind: str = "constant"
    warmup_steps: int = 0


@dataclass(frozen=True)
class TrainingSpec:
    """A run: what is trained on what, how, and where ("cpu" or "cuda")."""

    model: ModelSpec
    train_dataset: str
    train_sha256: str
    batch_size: int
    epoch_count: int
    optimizer: OptimizerSpec
    schedule: ScheduleSpec
    seed: int
    device: str
    metrics_interval_steps: int
    validation_dataset: str = ""
    validation_sha256: str = ""

    def steps_per_epoch(self, row_count: int) -> int:
        """Return the number of mini-batches in ``row_count`` rows; the last may be smaller."""
        return -(-row_count // self.batch_size)

    def step_count(self, row_count: int) -> int:
        """Return the number of steps of the run."""
        return self.epoch_count * self.steps_per_epoch(row_count)

    def to_json(self) -> str:
        """Return the spec as canonical JSON: equal specs, equal text."""
        fields = asdict(self)
        fields["optimizer"]["kind"]["name"] = "sgd" if isinstance(self.optimizer.kind, SgdSpec) else "adam"
        return json.dumps(fields, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "TrainingSpec":
        """Return the spec that `to_json` wrote."""
        fields = json.loads(text)
        model, optimizer = fields["model"], fields["optimizer"]
        kind = SgdSpec if optimizer["kind"].pop("name") == "sgd" else AdamSpec
        return cls(
            **fields
            | {
                "model": ModelSpec(**model | {"layer_sizes": tuple(model["layer_sizes"])}),
                "optimizer": OptimizerSpec(kind(**optimizer["kind"]), optimizer["weight_decay"]),
                "schedule": ScheduleSpec(**fields["schedule"]),
            }
        )

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON; runs with equal digests give equal results."""
        return hashlib.sha256(f"{_FORMAT}:{self.to_json()}".encode()).hexdigest()


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
        """Rows of each class, by label."""


@dataclass(frozen=True)
class Violation:
    """A field, as the wire's TrainingSpec calls it, and the rule it breaks in one sentence."""

    field: str
    description: str


def find_violations(spec: TrainingSpec, train: Rows | None, validation: Rows | None) -> list[Violation]:
    """Return every rule that ``spec`` breaks; rules that need unknown data (None) are left out."""
    return [
        *_model_violations(spec.model, train, validation),
        *_data_violations(spec, train),
        *_optimizer_violations(spec.optimizer),
        *_schedule_violations(spec, train),
    ]


def _model_violations(model: ModelSpec, train: Rows | None, validation: Rows | None) -> Iterator[Violation]:
    field, sizes = "model.layer_sizes", model.layer_sizes
    if not 2 <= len(sizes) <= _LAYER_LIMIT:
        yield _violation(field, f"have between 2 and {_LAYER_LIMIT} entries, input first", len(sizes))
    elif not all(1 <= size <= _WIDTH_LIMIT for size in sizes):
        wrong = next(size for size in sizes if not 1 <= size <= _WIDTH_LIMIT)
        yield _violation(field, f"be between 1 and {_WIDTH_LIMIT} each", wrong)
    elif parameter_count(sizes) > _PARAMETER_LIMIT:
        yield _violation(field, f"give at most {_PARAMETER_LIMIT} parameters", parameter_count(sizes))
    else:
        if not 2 <= sizes[-1] <= LARGEST_LABEL + 1:
            yield _violation(field, f"end with between 2 and {LARGEST_LABEL + 1} classes", sizes[-1])
        for name, rows in (("train_dataset", train), ("validation_dataset", validation)):
            if rows and sizes[0] != rows.input_size:
                yield _violation(field, f"begin with {rows.input_size}, the width of {name}'s rows", sizes[0])
            if rows and 2 <= sizes[-1] < len(rows.class_row_counts):
                classes = len(rows.class_row_counts)
                yield _violation(field, f"end with at least {classes}, the classes of {name}", sizes[-1])
    if model.initializer not in INITIALIZERS:
        yield _violation("model.initializer", f"be one of {', '.join(INITIALIZERS)}", model.initializer)
    if not isfinite(model.input_scale) or model.input_scale == 0:
        yield _violation("model.input_scale", "be finite and not 0", model.input_scale)


def _data_violations(spec: TrainingSpec, train: Rows | None) -> Iterator[Violation]:
    if train and sum(count > 0 for count in train.class_row_counts) < 2:
        yield _violation("train_dataset", "have rows of at least 2 classes", 1)
    row_limit = train.row_count if train else spec.batch_size
    if not 1 <= spec.batch_size <= max(row_limit, 1):
        rule = f"be between 1 and {row_limit}" if train else "be at least 1"
        yield _violation("batch_size", rule, spec.batch_size)
    if not 1 <= spec.epoch_count <= _EPOCH_LIMIT:
        yield _violation("epoch_count", f"be between 1 and {_EPOCH_LIMIT}", spec.epoch_count)
    if spec.metrics_interval_steps < 1:
        yield _violation("metrics_interval_steps", "be at least 1", spec.metrics_interval_steps)
    if not 0 <= spec.seed < 2**63:
        yield _violation("seed", "be between 0 and 2**63 - 1", spec.seed)


def _optimizer_violations(optimizer: OptimizerSpec) -> Iterator[Violation]:
    match optimizer.kind:
        case SgdSpec(momentum, nesterov):
            yield from _unless(_is_fraction, "optimizer.sgd.momentum", "be at least 0 and below 1", momentum)
            if nesterov and momentum == 0:
                yield _violation("optimizer.sgd.nesterov", "come with momentum above 0", momentum)
        case AdamSpec(beta1, beta2, epsilon):
            yield from _unless(_is_fraction, "optimizer.adam.beta1", "be at least 0 and below 1", beta1)
            yield from _unless(_is_fraction, "optimizer.adam.beta2", "be at least 0 and below 1", beta2)
            yield from _unless(_is_positive, "optimizer.adam.epsilon", "be finite and above 0", epsilon)
    decay = optimizer.weight_decay
    if not (isfinite(decay) and decay >= 0):
        yield _violation("optimizer.weight_decay", "be finite and at least 0", decay)


def _schedule_violations(spec: TrainingSpec, train: Rows | None) -> Iterator[Violation]:
    schedule = spec.schedule
    rate = schedule.learning_rate
    if not 0 < rate <= _RATE_LIMIT:
        yield _violation("schedule.learning_rate", f"be above 0 and at most {_RATE_LIMIT:g}", rate)
    steps = schedule.warmup_steps
    field = "schedule.warmup_cosine.warmup_steps"
    if train and spec.batch_size >= 1 and spec.epoch_count >= 1:
        limit = spec.step_count(train.row_count) - 1
        if not 0 <= steps <= limit:
            yield _violation(field, f"be between 0 and {limit}", steps)
    elif steps < 0:
        yield _violation(field, "be at least 0", steps)


def _unless(holds: Callable[[float], bool], field: str, rule: str, value: float) -> Iterator[Violation]:
    if not holds(value):
        yield _violation(field, rule, value)


def _is_fraction(value: float) -> bool:
    return 0 <= value < 1


def _is_positive(value: float) -> bool:
    return isfinite(value) and value > 0


def _violation(field: str, rule: str, value: Any) -> Violation:
    return Violation(field, f"{field} must {rule}, got {value}")
