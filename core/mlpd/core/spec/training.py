"""Everything that determines the result of a run, resolved: every default filled in."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from mlpd.core.codec import from_fields, to_fields
from mlpd.core.data.augmentation import AugmentationSpec
from mlpd.core.declaration import (
    DURATION,
    FRACTION,
    INT32,
    LARGEST_WHOLE,
    NOT_NEGATIVE,
    REQUIRED,
    SHARE,
    Count,
    Enumeration,
    OneOf,
    Range,
    Shorthand,
    choice,
    inline,
    output,
    part,
    setting,
)
from mlpd.core.network.architecture import ModelSpec
from mlpd.core.network.losses import Loss, SoftmaxCrossEntropy
from mlpd.core.network.tasks import TASKS
from mlpd.core.optimization.optimizers import Optimizer, Sgd
from mlpd.core.optimization.schedules import Constant, Schedule

# Part of every spec's digest: raised when equal specs begin to give other bits in equal environments.
_FORMAT = 7

RUNNERS = "plain", "compiled"
_BALANCED = Shorthand(
    "balanced", "balanced_classes", 5, "Weigh classes by the inverse of their row counts; resolved into class_weights"
)
_DEVICES = Enumeration("Device", {"DEVICE_CPU": ("cpu", ""), "DEVICE_CUDA": ("cuda", "")})
_SCOPES = Enumeration(
    "Scope",
    {
        "SCOPE_WEIGHTS": (False, "Weights only; the optimizer starts anew."),
        "SCOPE_FULL": (
            True,
            "Weights and the optimizer's moments, as they were at the end of that run. Its optimizer must be the same.",
        ),
    },
    "How much is taken over.",
)


@dataclass(frozen=True)
class LossSpec:
    """What is minimised: a loss, and what is done to the targets before it sees them."""

    kind: Loss = choice(SoftmaxCrossEntropy(), "loss", "What is minimised", number=1, unset="by the task")
    label_smoothing: float = setting(
        0.0, "Share of a target that is spread over all classes, of a label over yes and no", FRACTION, number=3
    )
    class_weights: tuple[float, ...] = setting(
        (),
        "How much rows of each class count, by label. They are scaled so that their mean over the rows is 1.",
        NOT_NEGATIVE,
        number=4,
        shorthand=_BALANCED,
    )
    mixup_alpha: float = setting(
        0.0, "Mix pairs of rows, in shares from Beta(alpha, alpha). Zhang et al. 2018.", SHARE, number=6
    )
    standardize_targets: bool = setting(
        False,
        "Learn numbers as distances from their mean, in deviations of the training rows. Losses are in these units; "
        "both are stored in the model version, and predictions are in the units of the training data.",
        number=7,
    )


@dataclass(frozen=True)
class OptimizerSpec:
    """An optimizer and what goes with any; numbers that are unset have their default, which a job's spec shows."""

    kind: Optimizer = choice(Sgd(), "optimizer", "How parameters move against their gradients")
    weight_decay: float = setting(
        0.0,
        "Decoupled weight decay. Multiplied by the learning rate; of weights only, not of biases.",
        NOT_NEGATIVE,
        number=3,
    )
    clip_norm: float = setting(
        0.0,
        "Largest Euclidean norm of the gradient, to which longer ones are scaled; 0 for none",
        NOT_NEGATIVE,
        number=7,
    )
    average_decay: float = setting(
        0.0,
        "Decay of a moving average of the weights; 0 for none. The average is what is validated and published.",
        FRACTION,
        number=8,
    )


@dataclass(frozen=True)
class PlateauSpec:
    """Multiply the rate by ``factor`` whenever the monitored loss has not fallen for ``patience`` validations."""

    factor: float = setting(
        0.1,
        "What the rate is multiplied by when the validation loss no longer falls",
        Range(0, 1, above=True, below=True),
        number=1,
    )
    patience: int = setting(
        5, "Validations without a new lowest loss before that", Count(1), number=2, unit="validations"
    )
    minimum_share: float = setting(0.0, "Share of the rate that always stays", SHARE, number=3)


@dataclass(frozen=True)
class ScheduleSpec:
    """Peak learning rate, its share at each step, and whether a plateau lowers it."""

    learning_rate: float = setting(REQUIRED, "Peak learning rate", Range(0, 1e9, above=True), number=1)
    shape: Schedule = choice(
        Constant(), "schedule", "Share of the peak rate at each step; in a file also a list", unset="constant"
    )
    plateau: PlateauSpec | None = part(None, "Multiplies whatever the kind says", number=9, prefix="plateau_")


@dataclass(frozen=True)
class ValidationSpec:
    """A data set, or a share of the training rows that is held out; scored every ``interval_epochs``."""

    dataset: str = setting("", "Data set to validate on. Its name, datasets/{dataset}.", number=3)
    sha256: str = output("", "SHA-256 of the validation data", number=12)
    fraction: float = setting(
        0.0, "Share of the training rows held out to validate on. The same of every class.", FRACTION, number=15
    )
    interval_epochs: int = setting(
        1, "Epochs between validations. The last is always validated.", Count(1, 1_000_000), number=16
    )

    @property
    def exists(self) -> bool:
        """Whether there is anything to score."""
        return bool(self.dataset) or self.fraction > 0

    def held_out_count(self, row_count: int) -> int:
        """Return how many of a data set's rows are held out; none where the fraction is out of its range."""
        return round(self.fraction * row_count) if 0 <= self.fraction < 1 else 0


@dataclass(frozen=True)
class TestSpec:
    """A data set on which the model is scored once, when it is trained."""

    dataset: str = setting(
        "",
        "Data set to score the model on at the end. Its name, datasets/{dataset}; it has no say in the run.",
        number=28,
    )
    sha256: str = output("", "SHA-256 of the test data", number=29)


@dataclass(frozen=True)
class EarlyStoppingSpec:
    """Stop after ``patience`` validations without a ``metric`` better by ``minimum_delta``; keep the best."""

    patience: int = setting(
        10, "Validations without an improvement before the end", Count(1), number=1, unit="validations"
    )
    minimum_delta: float = setting(0.0, "What counts as an improvement", NOT_NEGATIVE, number=2)
    metric: str = setting("loss", "What is to improve on the validation rows", OneOf(("loss", "accuracy")), number=3)


@dataclass(frozen=True)
class WarmStartSpec:
    """A model version to go on from, by the digest of its file; its optimizer's moments too if ``full``."""

    model: str = setting(
        REQUIRED,
        "Model to go on from. models/{model}/versions/{version}, or models/{model} for its newest version, resolved at "
        "once.",
        number=1,
        setting="warm_start",
    )
    sha256: str = output(REQUIRED, "SHA-256 of the model's file", number=3)
    full: bool = setting(
        REQUIRED,
        "What is taken over; full has the optimizer's state too",
        number=2,
        setting="warm_start_scope",
        wire_name="scope",
        wire=_SCOPES,
    )


@dataclass(frozen=True)
class TrainingSpec:
    """A run: what is trained on what, how, and where ("cpu" or "cuda").

    ``runner`` says how: "plain", call by call by the array library, or "compiled", by code that is compiled for the
    run. Threads of the CPU then work at the same time on ``block_count`` blocks of its units or of its rows, as
    ``split`` says; a GPU has one. Bits depend on all three. Where they would come out otherwise than where the run
    began, ``environment_change`` says whether to "refuse" to go on, or to "restart".
    """

    retired: ClassVar[Mapping[int, str]] = {22: "shard_count", 23: "blas"}  # what the protocol had, and has no more

    model: ModelSpec = part(REQUIRED, "Network", number=1)
    train_dataset: str = setting(REQUIRED, "Data set to train on. Its name, datasets/{dataset}.", number=2)
    train_sha256: str = output(REQUIRED, "SHA-256 of the training data", number=11)
    batch_size: int = setting(REQUIRED, "Rows per mini-batch", Count(1), number=4, unit="rows", unset="every row")
    epoch_count: int = setting(REQUIRED, "Passes over the data", Count(1, 1_000_000), number=5, unit="epochs")
    optimizer: OptimizerSpec = part(REQUIRED, "Optimizer", number=6)
    schedule: ScheduleSpec = part(REQUIRED, "Learning rate", number=7)
    seed: int = setting(
        REQUIRED, "Key of every random number", Count(0, LARGEST_WHOLE), number=8, unset="the server picks one"
    )
    device: str = setting(REQUIRED, "Where it runs", number=9, wire=_DEVICES, unset="cuda if usable")
    metrics_interval_steps: int = setting(
        REQUIRED, "Steps between reports, besides those after each epoch", Count(1), number=10, unset="one an epoch"
    )
    task: str = setting(
        "multiclass",
        "What targets are. The data's values make it multiclass for class labels, binary if there is one output; "
        "multilabel for targets that are all 0 or 1, whatever their type, unless the loss is one of regression; else "
        "regression. A warm start keeps that of its model, if the data are of its kind.",
        OneOf(TASKS),
        number=13,
        unset="by the data's values",
    )
    loss: LossSpec = part(LossSpec(), "Loss", number=14)
    validation: ValidationSpec = inline(ValidationSpec(), "validation_")
    test: TestSpec = inline(TestSpec(), "test_")
    accumulation_steps: int = setting(
        1, "Mini-batches whose gradients are summed for one step", Count(1, 2**31), number=17, unit="mini-batches"
    )
    augmentation: AugmentationSpec | None = part(None, "Random changes of images", number=18, prefix="augment_")
    early_stopping: EarlyStoppingSpec | None = part(None, "Early stopping", number=19, prefix="early_stopping_")
    time_limit_seconds: float = setting(
        0.0,
        "End after so much computing, with what there is; 0 for never. It counts across restarts, and a run that ends "
        "by it is not determined by its spec alone.",
        Range(0, 1e9),
        number=20,
        wire_name="time_limit",
        wire=DURATION,
    )
    warm_start: WarmStartSpec | None = part(None, "Warm start", number=21, prefix="warm_start_")
    runner: str = setting(
        "plain",
        'How steps are run. "compiled", by code that is compiled for the run: on the CPU in threads of one process, on '
        'a GPU in a few launches a step; "plain", call by call by the array library. Results depend on it in their '
        "last bits; those of a compiled run in one block are the same on the CPU and on a GPU. Compiled where the "
        "server does not have it: FAILED_PRECONDITION, reason RUNNER_UNAVAILABLE.",
        OneOf(RUNNERS),
        number=25,
        unset="compiled where the server has it, else plain",
    )
    split: str = setting(
        "units",
        'What a step is cut into, for threads to share. "units" of the hidden layers, or "rows" of the mini-batch. '
        "Results depend on it in their last bits; the machine has no say in it.",
        OneOf(("units", "rows")),
        number=26,
        unset="what pays for the network",
    )
    block_count: int = setting(
        1,
        "Blocks of units or rows that a step is cut into. At most 64, and of units the width of the narrowest hidden "
        "layer; 1 on a GPU, with the plain runner, of units with layer normalization or without hidden layers, of rows "
        "with batch normalization. Results depend on it in their last bits, and not on how many threads work on the "
        "blocks; the machine has no say in it.",
        number=27,
        unit="blocks",
        unset="as many as pay for the network",
        wire=INT32,
    )
    environment_change: str = setting(
        "refuse",
        "What is done where a run must go on and its numbers would come out otherwise than where it began. That is "
        "with another BLAS library, kernel, number of threads or processor (TrainingJob.environment): refuse fails the "
        "run, reason ENVIRONMENT_CHANGED; restart begins it again from its first step, in the same job.",
        OneOf(("refuse", "restart")),
        number=24,
    )

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
