"""From a Train request to the resolved spec: every default filled in, every rule checked, all at once."""

import asyncio
import hashlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet
from mlpd.core.data.datasets import default_input_scale
from mlpd.core.data.splits import train_class_counts
from mlpd.core.data_types import LARGEST_LABEL
from mlpd.core.execution.runners import missing_for
from mlpd.core.network.architecture import ModelSpec
from mlpd.core.network.losses import LOSSES, SoftmaxCrossEntropy
from mlpd.core.network.tasks import TASKS
from mlpd.core.optimization.optimizers import OPTIMIZERS
from mlpd.core.planning.memory import estimate_bytes
from mlpd.core.spec.rules import find_violations, one_of
from mlpd.core.spec.split import SPLITS, best_blocks, largest_block_count
from mlpd.core.spec.training import RUNNERS, TrainingSpec, WarmStartSpec
from mlpd.server.columns import check_same
from mlpd.server.errors import FieldViolation, InvalidRequest, PreconditionFailed, ResourceExhausted
from mlpd.server.executors.devices import DeviceReport, Devices
from mlpd.server.names import check_id, check_request_id, parse_dataset, parse_model, shown, version_name
from mlpd.server.records import DatasetRecord, Job, ModelRecord, Submission
from mlpd.server.storage.store import Store
from mlpd.server.storage.stored_files import StoredFiles
from mlpd.server.wire.durations import check_duration, seconds_of
from mlpd.server.wire.specs import (
    DEVICES,
    augmentation_of,
    early_stopping_of,
    loss_fields,
    loss_of,
    optimizer_of,
    schedule_of,
    validation_of,
)
from mlpd.v1 import trainer_service_pb2 as trainer
from mlpd.v1 import types_pb2 as types

T = TypeVar("T")

_RESOLUTION_SECONDS = 10.0
_SEED_LIMIT = 2**32
_DEVICES = (types.DEVICE_UNSPECIFIED, types.DEVICE_CPU, types.DEVICE_CUDA)
_DATA_TYPES = {
    types.DATA_TYPE_UNSPECIFIED: "float32",
    types.DATA_TYPE_FP32: "float32",
    types.DATA_TYPE_FP64: "float64",
}
_SCOPES = (trainer.WarmStart.SCOPE_WEIGHTS, trainer.WarmStart.SCOPE_FULL)
# What weights depend on; a warm start may change the rest of a model's spec.
_KEPT_FIELDS = ("layer_sizes", "activations", "normalization", "input_scale", "standardize_inputs", "dtype")
_WIRE_NAMES = {"dtype": "data_type"}


def digest_of(request: trainer.TrainRequest) -> str:
    """Return a digest that equal requests share; the request id does not count, nor do unknown fields."""
    same = trainer.TrainRequest()
    same.CopyFrom(request)
    same.DiscardUnknownFields()
    same.ClearField("request_id")
    return hashlib.sha256(same.SerializeToString(deterministic=True)).hexdigest()


async def resolve(
    request: trainer.TrainRequest, store: Store, files: StoredFiles, devices: Devices, thread_count: int
) -> Submission:
    """Return what ``request`` asks for in full, for jobs of ``thread_count`` threads.

    Raises `InvalidRequest` with every field that breaks a rule, `NotFound` for a data set or model that is not there,
    `DataLoss` for one whose file is missing or cut, `PreconditionFailed` for a device or a runner that can't be used,
    and `ResourceExhausted` for a run it can't hold, or when looking through the spec takes too long.
    """
    check = _Violations()
    check.unknown_fields("", request)
    request_id = check(lambda: check_request_id(request.request_id)) if request.request_id else None
    job_id = check(lambda: check_id("training_job_id", request.training_job_id)) if request.training_job_id else None
    model_id = check(lambda: check_id("model_id", request.model_id)) if request.model_id else None
    check.choices(request.spec)
    sources = await _sources(request.spec, check, store, files)
    check.digests(request.spec, sources)
    report, device = await _device(request.spec.device, devices)

    def submission() -> Submission:
        spec, memory_bytes = _resolved(request.spec, check, sources, report, device, thread_count)
        assert sources.train is not None
        row_count = sources.train.row_count
        return Submission(request_id, digest_of(request), job_id or "", model_id or "", spec, row_count, memory_bytes)

    try:
        return await asyncio.wait_for(asyncio.to_thread(submission), _RESOLUTION_SECONDS)
    except TimeoutError:
        text = f"the spec must be checked within {_RESOLUTION_SECONDS:g} seconds; try again when less goes on"
        raise ResourceExhausted("RESOLUTION_TIMEOUT", text) from None


def _resolved(
    asked: trainer.TrainingSpec,
    check: "_Violations",
    sources: "_Sources",
    report: DeviceReport,
    device: str,
    thread_count: int,
) -> tuple[TrainingSpec, int]:
    """Return the spec, and the memory it takes, once no rule is broken."""
    spec = _with_blocks(_spec(asked, sources, device), asked)
    for violation in find_violations(spec, sources.train, sources.validation):
        check.add(f"spec.{violation.field}", f"spec.{violation.description}")
    check.loss(asked.loss, spec)
    check.warm_start(asked, spec, sources)
    check.columns(asked, sources)
    check.finish()
    assert sources.train is not None
    if missing := missing_for(spec.runner):
        raise PreconditionFailed("RUNNER_UNAVAILABLE", f"spec.runner must be a runner that this server has: {missing}")
    return spec, _check_memory(spec, sources.train, report, thread_count)


def resolved_spec(resolved: trainer.TrainingSpec) -> TrainingSpec:
    """Return what the wire says of a spec whose every default is filled in; its data sets have no digests."""
    device = next(name for name, value in DEVICES.items() if value == resolved.device)
    return _with_blocks(_spec(resolved, _Sources(None, None, None, None), device), resolved)


@dataclass(frozen=True)
class _Sources:
    """What a spec names: data sets, and a model to go on from with the job that made it."""

    train: DatasetRecord | None
    validation: DatasetRecord | None
    model: ModelRecord | None
    job: Job | None


async def _sources(spec: trainer.TrainingSpec, check: "_Violations", store: Store, files: StoredFiles) -> _Sources:
    train_id = check(lambda: parse_dataset("spec.train_dataset", spec.train_dataset))
    train = await store.dataset(train_id) if train_id else None
    validation = model = job = None
    if spec.validation_dataset:
        validation_id = check(lambda: parse_dataset("spec.validation_dataset", spec.validation_dataset))
        validation = await store.dataset(validation_id) if validation_id else None
    if spec.HasField("warm_start") and (
        name := check(lambda: parse_model("spec.warm_start.model", spec.warm_start.model))
    ):
        model = await store.model(*name)
        job = await store.job(model.job_id)
        files.require_model(model)
    for record in filter(None, (train, validation)):
        files.require_dataset(record)
    return _Sources(train, validation, model, job)


def _check_memory(spec: TrainingSpec, train: DatasetRecord, device: DeviceReport, thread_count: int) -> int:
    """Return the estimated memory; raises `ResourceExhausted` where the device has less in all."""
    needed = estimate_bytes(spec, train, train.size_bytes // train.row_count, thread_count)
    if 0 < device.memory_bytes < needed:
        raise ResourceExhausted(
            "DEVICE_MEMORY",
            f"the run must fit into the {device.memory_bytes:,} bytes of device {spec.device}, it needs about "
            f"{needed:,}; try smaller layers or a smaller batch",
            needed_bytes=needed,
            device_bytes=device.memory_bytes,
        )
    return needed


class _Violations:
    """Collects the fields that break a rule."""

    def __init__(self) -> None:
        self._violations: list[FieldViolation] = []

    def __call__(self, check: Callable[[], T]) -> T | None:
        try:
            return check()
        except InvalidRequest as error:
            self._violations.extend(error.violations)
            return None

    def add(self, field: str, description: str) -> None:
        self._violations.append(FieldViolation(field, description))

    def choices(self, spec: trainer.TrainingSpec) -> None:
        """Look for enum numbers that a newer client may know, and for a missing choice."""
        if spec.device not in _DEVICES:
            self.add("spec.device", f"spec.device must be a known one, got {spec.device}")
        if spec.model.data_type not in _DATA_TYPES:
            text = f"spec.model.data_type must be FP32 or FP64, got {spec.model.data_type}"
            self.add("spec.model.data_type", text)
        if not spec.optimizer.WhichOneof("kind"):
            kinds = ", ".join(OPTIMIZERS)
            self.add("spec.optimizer", f"spec.optimizer must say one of {kinds}, got none")
        if spec.loss.balanced_classes and spec.loss.class_weights:
            text = "spec.loss.class_weights must be empty with balanced_classes"
            self.add("spec.loss.class_weights", f"{text}, got {len(spec.loss.class_weights)} entries")
        segments = [segment.schedule for segment in spec.schedule.joined.segments]
        if any(schedule.learning_rate for schedule in segments):
            text = "spec.schedule.joined.segments must have no learning_rate of their own"
            self.add("spec.schedule.joined.segments", f"{text}, the peak is spec.schedule.learning_rate")
        if any(schedule.HasField("plateau") for schedule in segments):
            text = "spec.schedule.joined.segments must have no plateau of their own"
            self.add("spec.schedule.joined.segments", f"{text}, that of all is spec.schedule.plateau")
        self(lambda: check_duration("spec.time_limit", spec.time_limit))
        if spec.HasField("warm_start") and spec.warm_start.scope not in _SCOPES:
            text = f"spec.warm_start.scope must be WEIGHTS or FULL, got {spec.warm_start.scope}"
            self.add("spec.warm_start.scope", text)

    def digests(self, asked: trainer.TrainingSpec, sources: _Sources) -> None:
        """Look whether the digests that a resolved spec brings along are of what its names stand for here."""
        train, validation, model = sources.train, sources.validation, sources.model
        for field, given, name, found in (
            ("train_sha256", asked.train_sha256, asked.train_dataset, train and train.sha256),
            ("validation_sha256", asked.validation_sha256, asked.validation_dataset, validation and validation.sha256),
            ("warm_start.sha256", asked.warm_start.sha256, asked.warm_start.model, model and model.file_sha256),
        ):
            if given and given != found and (found or not name):
                rule = f"be that of {name}, {found}" if found else "be empty where none is named"
                self.add(f"spec.{field}", f"spec.{field} must {rule}, got {shown(given)}")

    def loss(self, asked: trainer.Loss, spec: TrainingSpec) -> None:
        """Look for a loss that nobody knows, and for numbers of another than the chosen one."""
        chosen = spec.loss.kind
        if asked.kind and asked.kind != chosen.name and spec.task in TASKS:
            names = [kind.name for kind in TASKS[spec.task].losses]
            for violation in one_of("spec.loss.kind", asked.kind, names, f" for task {spec.task}"):
                self.add(violation.field, violation.description)
        others = {field for kind in LOSSES.values() for field in loss_fields(kind)} - loss_fields(type(chosen)).keys()
        for field in sorted(others):
            if asked.HasField(field):  # type: ignore[arg-type]
                text = f"spec.loss.{field} must be unset with loss {chosen.name}, got {getattr(asked, field)}"
                self.add(f"spec.loss.{field}", text)

    def warm_start(self, asked: trainer.TrainingSpec, spec: TrainingSpec, sources: _Sources) -> None:
        """Look whether the weights fit, and the optimizer's moments if they are wanted."""
        if not (sources.model and sources.job and spec.warm_start):
            return
        if asked.model.layer_sizes:
            source = sources.model.spec
            for field in _KEPT_FIELDS:
                wanted, found = getattr(source, field), getattr(spec.model, field)
                if wanted != found:
                    path = f"spec.model.{_WIRE_NAMES.get(field, field)}"
                    self.add(path, f"{path} must be that of {asked.warm_start.model}, {wanted}, got {found}")
        else:
            for given, _ in asked.model.ListFields():
                path = f"spec.model.{given.name}"
                self.add(path, f"{path} must come with layer_sizes, or be left to {asked.warm_start.model}")
        before, now = sources.job.spec.optimizer.kind, spec.optimizer.kind
        if spec.warm_start.full and (before.name, before.moments) != (now.name, now.moments):
            text = f"spec.optimizer must keep what {asked.warm_start.model} was trained with for a full warm start"
            self.add("spec.optimizer", f"{text}, {before}, got {now}")

    def columns(self, asked: trainer.TrainingSpec, sources: _Sources) -> None:
        """Look whether all that have names of columns have the same, in the same order."""
        train, validation, model = sources.train, sources.validation, sources.model
        pairs: list[tuple[str, DatasetRecord, DatasetRecord | ModelRecord, str]] = []
        if train and validation:
            pairs.append(("spec.validation_dataset", validation, train, asked.train_dataset))
        if model:
            name = version_name(model.model_id, model.version)
            pairs += [("spec.train_dataset", train, model, name)] if train else []
            # Where the training data have names, the validation data were compared with those.
            if validation and not (train and train.input_names):
                pairs.append(("spec.validation_dataset", validation, model, name))
        for field, found, wanted, owner in pairs:
            self(partial(check_same, field, found.input_names, wanted.input_names, owner))

    def unknown_fields(self, path: str, message: Message) -> None:
        """Look for what a newer client asks for: to train without it would be to train something else."""
        for unknown in UnknownFieldSet(message):  # type: ignore[attr-defined]  # the stubs lack it
            where = path.rstrip(".") or "the request"
            text = f"{where} must have only fields this server knows, got number {unknown.field_number}"
            self.add(f"{path}{unknown.field_number}", text)
        for field, value in message.ListFields():
            if not field.message_type:
                continue
            if isinstance(value, Message):
                self.unknown_fields(f"{path}{field.name}.", value)
            else:
                for i, item in enumerate(value):
                    self.unknown_fields(f"{path}{field.name}[{i}].", item)

    def finish(self) -> None:
        if self._violations:
            raise InvalidRequest(self._violations)


def _spec(asked: trainer.TrainingSpec, sources: _Sources, device: str) -> TrainingSpec:
    train = sources.train
    model = _model(asked.model, sources)
    task, outputs = asked.task or _default_task(model, sources, asked.loss.kind), max(model.layer_sizes[-1:] or (0,))
    loss = loss_of(asked.loss, TASKS[task].losses[0] if task in TASKS else SoftmaxCrossEntropy)
    validation = validation_of(asked, sources.validation.sha256 if sources.validation else "")
    row_count = train.row_count if train else 1
    held_out_count = validation.held_out_count(row_count)
    if asked.loss.balanced_classes and train:
        class_counts = train_class_counts(train.class_row_counts, held_out_count)
        loss = replace(loss, class_weights=_balanced(class_counts, 2 if task == "binary" else outputs))
    row_count -= held_out_count
    batch_size = asked.batch_size if asked.HasField("batch_size") else max(row_count, 1)
    accumulation_steps = asked.accumulation_steps if asked.HasField("accumulation_steps") else 1
    steps_per_epoch = -(-row_count // max(batch_size * accumulation_steps, 1))
    interval = asked.metrics_interval_steps if asked.HasField("metrics_interval_steps") else max(steps_per_epoch, 1)
    return TrainingSpec(
        model=model,
        task=task,
        loss=loss,
        train_dataset=asked.train_dataset,
        train_sha256=train.sha256 if train else "",
        validation=validation,
        batch_size=batch_size,
        accumulation_steps=accumulation_steps,
        epoch_count=asked.epoch_count,
        optimizer=optimizer_of(asked.optimizer),
        schedule=schedule_of(asked.schedule),
        augmentation=augmentation_of(asked.augmentation, model.layer_sizes[0])
        if asked.HasField("augmentation") and model.layer_sizes
        else None,
        early_stopping=early_stopping_of(asked.early_stopping) if asked.HasField("early_stopping") else None,
        time_limit_seconds=seconds_of(asked.time_limit),
        warm_start=_warm_start(asked, sources),
        seed=asked.seed if asked.HasField("seed") else secrets.randbelow(_SEED_LIMIT),
        device=device,
        metrics_interval_steps=interval,
        runner=asked.runner or _default_runner(device),
        environment_change=asked.environment_change or "refuse",
    )


def _default_runner(device: str) -> str:
    return "compiled" if "compiled" in RUNNERS[device] and not missing_for("compiled") else "plain"


def _with_blocks(spec: TrainingSpec, asked: trainer.TrainingSpec) -> TrainingSpec:
    """Return ``spec`` with its split and number of blocks: what is asked for, else what pays."""
    has_units = max(spec.model.layer_sizes, default=0) > 0
    split, count = best_blocks(spec) if has_units else ("units", 1)
    if has_units and asked.split in SPLITS:
        count = min(count, largest_block_count(spec, asked.split))
    count = asked.block_count if asked.HasField("block_count") else count
    return replace(spec, split=asked.split or split, block_count=count)


def _model(asked: types.ModelSpec, sources: _Sources) -> ModelSpec:
    if sources.model and not asked.layer_sizes:
        return sources.model.spec
    hidden = max(len(asked.layer_sizes) - 2, 0)
    if asked.standardize_inputs:
        scale = 1.0
    elif sources.model:
        scale = sources.model.spec.input_scale
    else:
        scale = default_input_scale(sources.train) if sources.train else 1.0
    return ModelSpec(
        layer_sizes=tuple(asked.layer_sizes),
        activations=_one_each(asked.activations, "relu", hidden),
        dropout_rates=_one_each(asked.dropout_rates, 0.0, hidden),
        input_dropout_rate=asked.input_dropout_rate,
        normalization=asked.normalization or "none",
        initializer=asked.initializer or "he_normal",
        input_scale=asked.input_scale if asked.HasField("input_scale") else scale,
        standardize_inputs=asked.standardize_inputs,
        dtype=_DATA_TYPES.get(asked.data_type, "float32"),
    )


def _balanced(row_counts: Sequence[int], classes: int) -> tuple[float, ...]:
    """Return weights that give all classes that occur the same share of the rows."""
    present = sum(count > 0 for count in row_counts)
    weights = [sum(row_counts) / (present * count) if count else 0.0 for count in row_counts]
    absent = min(max(classes, 0), LARGEST_LABEL + 1) - len(weights)
    return (*weights, *[0.0] * absent)


def _one_each(given: Sequence[T], default: T, count: int) -> tuple[T, ...]:
    """Return one entry a hidden layer where there is one for all, or none."""
    values = tuple(given) or (default,)
    return values * count if len(values) == 1 else values


def _default_task(model: ModelSpec, sources: _Sources, loss: str) -> str:
    """Return the task of the model to go on from, if the data are of its kind, else what ``loss`` and the data say."""
    train, source = sources.train, sources.model
    if source and train and TASKS[source.task].has_classes == (not train.target_size):
        return source.task
    if train and train.target_size:
        low, high = train.target_range
        is_yes_or_no = train.whole_targets and 0 <= low <= high <= 1
        return "multilabel" if is_yes_or_no and LOSSES.get(loss) not in TASKS["regression"].losses else "regression"
    return "binary" if model.layer_sizes[-1:] == (1,) else "multiclass"


def _warm_start(asked: trainer.TrainingSpec, sources: _Sources) -> WarmStartSpec | None:
    if sources.model is None:
        return None
    name = version_name(sources.model.model_id, sources.model.version)
    return WarmStartSpec(name, sources.model.file_sha256, asked.warm_start.scope == trainer.WarmStart.SCOPE_FULL)


async def _device(device: types.Device.ValueType, devices: Devices) -> tuple[DeviceReport, str]:
    if device == types.DEVICE_CPU:
        return devices.cpu(), "cpu"
    cuda = await devices.cuda()
    if cuda.usable:
        return cuda, "cuda"
    if device == types.DEVICE_CUDA:
        raise PreconditionFailed(
            "DEVICE_UNAVAILABLE", f"spec.device must be usable on this server, CUDA is not: {cuda.description}"
        )
    return devices.cpu(), "cpu"
