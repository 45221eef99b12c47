"""Fills in what a Train request leaves open, from its data, the model it goes on from, or the server."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isqrt
from typing import TypeVar

from mlpd.core.data.augmentation import AugmentationSpec
from mlpd.core.data.inspection import default_input_scale
from mlpd.core.data.splits import train_class_counts
from mlpd.core.data_types import LARGEST_LABEL
from mlpd.core.execution.opening import missing_for
from mlpd.core.network.architecture import ModelSpec
from mlpd.core.network.losses import LOSSES, Loss, SoftmaxCrossEntropy
from mlpd.core.network.tasks import TASKS
from mlpd.core.spec.split import SPLITS, best_blocks, largest_block_count
from mlpd.core.spec.training import LossSpec, TestSpec, TrainingSpec, ValidationSpec, WarmStartSpec
from mlpd.server.names import version_name
from mlpd.server.records import DatasetRecord, ModelRecord
from mlpd.server.wire.specs import value_of
from mlpd.v1 import trainer_service_pb2 as trainer
from mlpd.v1 import types_pb2 as types

T = TypeVar("T")

_SEED_LIMIT = 2**32


@dataclass(frozen=True)
class Sources:
    """The records of what a request names, None where it names none."""

    train: DatasetRecord | None
    validation: DatasetRecord | None
    test: DatasetRecord | None
    model: ModelRecord | None

    @property
    def datasets(self) -> list[DatasetRecord]:
        """The data sets that are named."""
        return [record for record in (self.train, self.validation, self.test) if record]


def full_spec(asked: trainer.TrainingSpec, sources: Sources, device: str) -> TrainingSpec:
    """Return the spec that ``asked`` means on ``device``, every default filled in; no rule is checked."""
    return _with_blocks(_spec(asked, sources, device), asked)


def resolved_spec(resolved: trainer.TrainingSpec) -> TrainingSpec:
    """Return the spec in a message that a server has resolved; the digests of its data sets are left empty."""
    device = "cuda" if resolved.device == types.DEVICE_CUDA else "cpu"
    return full_spec(resolved, Sources(None, None, None, None), device)


def _spec(asked: trainer.TrainingSpec, sources: Sources, device: str) -> TrainingSpec:
    train = sources.train
    model = _model(asked.model, sources, asked.task)
    task, outputs = asked.task or _default_task(model, sources, asked.loss.kind), max(model.layer_sizes[-1:] or (0,))
    loss = _loss(asked.loss, TASKS[task].losses[0] if task in TASKS else SoftmaxCrossEntropy)
    sha256 = sources.validation.sha256 if sources.validation else ""
    validation = value_of(ValidationSpec, asked, "validation_", sha256=sha256)
    row_count = train.row_count if train else 1
    held_out_count = validation.held_out_count(row_count)
    if asked.loss.balanced_classes and train and task in TASKS:
        class_counts = train_class_counts(train.class_row_counts, held_out_count)
        loss = replace(loss, class_weights=_balanced(class_counts, TASKS[task].prediction_count(outputs)))
    row_count -= held_out_count
    spec = value_of(
        TrainingSpec,
        asked,
        model=model,
        task=task,
        loss=loss,
        train_sha256=train.sha256 if train else "",
        validation=validation,
        test=value_of(TestSpec, asked, "test_", sha256=sources.test.sha256 if sources.test else ""),
        batch_size=asked.batch_size if asked.HasField("batch_size") else max(row_count, 1),
        augmentation=_augmentation(asked, model),
        warm_start=_warm_start(asked, sources),
        seed=asked.seed if asked.HasField("seed") else secrets.randbelow(_SEED_LIMIT),
        device=device,
        metrics_interval_steps=asked.metrics_interval_steps,
        runner=asked.runner or _default_runner(device),
    )
    if asked.HasField("metrics_interval_steps"):
        return spec
    return replace(spec, metrics_interval_steps=max(-(-row_count // max(spec.rows_per_step, 1)), 1))


def _default_runner(device: str) -> str:
    return "plain" if missing_for("compiled", device) else "compiled"


def _with_blocks(spec: TrainingSpec, asked: trainer.TrainingSpec) -> TrainingSpec:
    """Return ``spec`` with the split and number of blocks that are asked for, else those that are fastest."""
    has_units = max(spec.model.layer_sizes, default=0) > 0
    split, count = best_blocks(spec) if has_units else ("units", 1)
    if has_units and asked.split in SPLITS:
        count = min(count, largest_block_count(spec, asked.split))
    count = asked.block_count if asked.HasField("block_count") else count
    return replace(spec, split=asked.split or split, block_count=count)


def _model(asked: types.ModelSpec, sources: Sources, task: str) -> ModelSpec:
    if sources.model and not asked.layer_sizes:
        return sources.model.spec
    hidden = max(len(asked.layer_sizes) - 2, 0)
    if asked.standardize_inputs:
        scale = 1.0
    elif sources.model:
        scale = sources.model.spec.input_scale
    else:
        scale = default_input_scale(sources.train) if sources.train else 1.0
    return value_of(
        ModelSpec,
        asked,
        layer_sizes=_sizes(asked.layer_sizes, sources.train, task),
        activations=_one_each(asked.activations, "relu", hidden),
        dropout_rates=_one_each(asked.dropout_rates, 0.0, hidden),
        input_scale=asked.input_scale if asked.HasField("input_scale") else scale,
    )


def _sizes(asked: Sequence[int], train: DatasetRecord | None, task: str) -> tuple[int, ...]:
    """Return the sizes of layers, where the first or the last is 0 with what the data need."""
    sizes = list(asked)
    if train and len(sizes) > 1:
        sizes[0] = sizes[0] or train.encoded_size
        has_one_output = task in TASKS and TASKS[task].output_limits == (1, 1)
        classes = 1 if has_one_output else len(train.class_row_counts)
        sizes[-1] = sizes[-1] or train.target_size or classes
    return tuple(sizes)


def _loss(asked: trainer.Loss, default: type[Loss]) -> LossSpec:
    """Return the chosen loss; of kind ``default`` where none is chosen, or an unknown one."""
    kind = LOSSES.get(asked.kind, default)
    return value_of(LossSpec, asked, kind=value_of(kind, asked, f"{kind.name}_"))


def _augmentation(asked: trainer.TrainingSpec, model: ModelSpec) -> AugmentationSpec | None:
    """Return how images are warped, None = not at all; an image is square unless its sides are given."""
    if not (asked.HasField("augmentation") and model.layer_sizes):
        return None
    own, side = asked.augmentation, isqrt(max(model.layer_sizes[0], 0))
    return value_of(AugmentationSpec, own, image_height=own.image_height or side, image_width=own.image_width or side)


def _balanced(row_counts: Sequence[int], classes: int) -> tuple[float, ...]:
    """Return class weights by which all classes that occur weigh the same in total; 0 for those that do not."""
    present = sum(count > 0 for count in row_counts)
    weights = [sum(row_counts) / (present * count) if count else 0.0 for count in row_counts]
    absent = min(max(classes, 0), LARGEST_LABEL + 1) - len(weights)
    return (*weights, *[0.0] * absent)


def _one_each(given: Sequence[T], default: T, count: int) -> tuple[T, ...]:
    """Return ``given``, but one entry alone, or ``default`` where there is none, repeated for ``count`` layers."""
    values = tuple(given) or (default,)
    return values * count if len(values) == 1 else values


def _default_task(model: ModelSpec, sources: Sources, loss: str) -> str:
    """Return the task of the model to go on from if the data suit it, else the one that data and ``loss`` imply."""
    train, source = sources.train, sources.model
    if source and train and TASKS[source.task].has_classes == (not train.target_size):
        return source.task
    if train and train.target_size:
        low, high = train.target_range
        is_yes_or_no = train.whole_targets and 0 <= low <= high <= 1
        return "multilabel" if is_yes_or_no and LOSSES.get(loss) not in TASKS["regression"].losses else "regression"
    return "binary" if model.layer_sizes[-1:] == (1,) else "multiclass"


def _warm_start(asked: trainer.TrainingSpec, sources: Sources) -> WarmStartSpec | None:
    if sources.model is None:
        return None
    name = version_name(sources.model.model_id, sources.model.version)
    return WarmStartSpec(name, sources.model.file_sha256, asked.warm_start.scope == trainer.WarmStart.SCOPE_FULL)
