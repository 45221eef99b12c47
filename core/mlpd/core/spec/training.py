"""Everything that determines the result of a run, resolved: every default filled in."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property

from mlpd.core.codec import from_fields, to_fields
from mlpd.core.data.augmentation import AugmentationSpec
from mlpd.core.network.architecture import ModelSpec
from mlpd.core.network.losses import Loss, SoftmaxCrossEntropy
from mlpd.core.optimization.optimizers import Optimizer
from mlpd.core.optimization.schedules import Constant, Schedule

# Part of every spec's digest: raised when equal specs begin to give other bits.
_FORMAT = 7

RUNNERS = {"cpu": ("plain", "compiled"), "cuda": ("plain",)}
ENVIRONMENT_CHANGES = ("refuse", "restart")


@dataclass(frozen=True)
class LossSpec:
    """A loss, and what is done to the targets before it sees them."""

    kind: Loss = SoftmaxCrossEntropy()  # noqa: RUF009 - frozen
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] = ()
    mixup_alpha: float = 0.0


@dataclass(frozen=True)
class OptimizerSpec:
    """An optimizer and what goes with any: decay in units of the learning rate; 0 leaves clipping or averaging out."""

    kind: Optimizer
    weight_decay: float = 0.0
    clip_norm: float = 0.0
    average_decay: float = 0.0


@dataclass(frozen=True)
class PlateauSpec:
    """Multiply the rate by ``factor`` whenever the monitored loss has not fallen for ``patience`` validations."""

    factor: float = 0.1
    patience: int = 5
    minimum_share: float = 0.0


@dataclass(frozen=True)
class ScheduleSpec:
    """Peak learning rate, its share at each step, and whether a plateau lowers it."""

    learning_rate: float
    shape: Schedule = Constant()  # noqa: RUF009 - frozen
    plateau: PlateauSpec | None = None


@dataclass(frozen=True)
class ValidationSpec:
    """A data set, or a share of the training rows that is held out; scored every ``interval_epochs``."""

    dataset: str = ""
    sha256: str = ""
    fraction: float = 0.0
    interval_epochs: int = 1

    @property
    def exists(self) -> bool:
        """Whether there is anything to score."""
        return bool(self.dataset) or self.fraction > 0

    def held_out_count(self, row_count: int) -> int:
        """Return how many of a data set's rows are held out; none where the fraction is out of its range."""
        return round(self.fraction * row_count) if 0 <= self.fraction < 1 else 0


@dataclass(frozen=True)
class EarlyStoppingSpec:
    """Stop after ``patience`` validations without a ``metric`` better by ``minimum_delta``; keep the best."""

    patience: int = 10
    minimum_delta: float = 0.0
    metric: str = "loss"


@dataclass(frozen=True)
class WarmStartSpec:
    """A model version to go on from, by the digest of its file; its optimizer's moments too if ``full``."""

    model: str
    sha256: str
    full: bool


@dataclass(frozen=True)
class TrainingSpec:
    """A run: what is trained on what, how, and where ("cpu" or "cuda").

    ``runner`` says how: "plain", call by call by the array library, or "compiled", by threads that work at the same
    time on ``block_count`` blocks of its units or of its rows, as ``split`` says. Bits depend on all three. Where they
    would come out otherwise than where the run began, ``environment_change`` says whether to "refuse" to go on, or to
    "restart".
    """

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
    task: str = "multiclass"
    loss: LossSpec = LossSpec()
    validation: ValidationSpec = ValidationSpec()
    accumulation_steps: int = 1
    augmentation: AugmentationSpec | None = None
    early_stopping: EarlyStoppingSpec | None = None
    time_limit_seconds: float = 0.0
    warm_start: WarmStartSpec | None = None
    runner: str = "plain"
    split: str = "units"
    block_count: int = 1
    environment_change: str = "refuse"

    def held_out_count(self, row_count: int) -> int:
        """Return how many of a data set's rows are held out for validation."""
        return self.validation.held_out_count(row_count)

    def train_row_count(self, row_count: int) -> int:
        """Return how many of a data set's rows are trained on."""
        return row_count - self.held_out_count(row_count)

    @property
    def rows_per_step(self) -> int:
        """Rows between two updates of the parameters."""
        return self.batch_size * self.accumulation_steps

    def steps_per_epoch(self, row_count: int) -> int:
        """Return the number of steps in an epoch on a data set of ``row_count`` rows; the last may be smaller."""
        return -(-self.train_row_count(row_count) // self.rows_per_step)

    def step_count(self, row_count: int) -> int:
        """Return the number of steps of the run."""
        return self.epoch_count * self.steps_per_epoch(row_count)

    def to_json(self) -> str:
        """Return the spec as canonical JSON: equal specs, equal text."""
        return json.dumps(to_fields(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "TrainingSpec":
        """Return the spec that `to_json` wrote."""
        return from_fields(cls, json.loads(text))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON; runs with equal digests give equal results, but for a time limit."""
        return hashlib.sha256(f"{_FORMAT}:{self.to_json()}".encode()).hexdigest()
