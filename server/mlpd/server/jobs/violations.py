"""Collects all that is wrong with a Train request and not a rule of core's: bad choices, parts that do not fit."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet
from mlpd.core.data_types import DATA_TYPES, PRECISIONS
from mlpd.core.declaration import declarations
from mlpd.core.network.architecture import ModelSpec
from mlpd.core.network.losses import LOSSES, Loss
from mlpd.core.network.tasks import TASKS
from mlpd.core.optimization.optimizers import OPTIMIZERS
from mlpd.core.spec.rules import one_of
from mlpd.core.spec.training import TrainingSpec
from mlpd.server.columns import arranged
from mlpd.server.errors import FieldViolation, InvalidRequest
from mlpd.server.jobs.defaults import Sources
from mlpd.server.names import shown, version_name
from mlpd.server.records import DatasetRecord, ModelRecord
from mlpd.server.wire.durations import check_duration
from mlpd.server.wire.tensors import data_type_of
from mlpd.v1 import trainer_service_pb2 as trainer
from mlpd.v1 import types_pb2 as types

T = TypeVar("T")

_DATA_TYPES = (types.DATA_TYPE_UNSPECIFIED, *map(data_type_of, PRECISIONS))
_SCOPES = (trainer.WarmStart.SCOPE_WEIGHTS, trainer.WarmStart.SCOPE_FULL)
# What weights depend on; a warm start may change the rest of a model's spec.
_KEPT_FIELDS = ("layer_sizes", "activations", "normalization", "input_scale", "standardize_inputs", "dtype")


class Violations:
    """Collects the fields of a request that break a rule."""

    def __init__(self) -> None:
        self._violations: list[FieldViolation] = []

    def __call__(self, check: Callable[[], T]) -> T | None:
        """Return what ``check`` returns, or None if it raises `InvalidRequest`, whose violations are kept."""
        try:
            return check()
        except InvalidRequest as error:
            self._violations.extend(error.violations)
            return None

    def add(self, field: str, description: str) -> None:
        """Note that ``field`` breaks a rule."""
        self._violations.append(FieldViolation(field, description))

    def choices(self, spec: trainer.TrainingSpec) -> None:
        """Look for unknown enum numbers, a missing optimizer, and settings that exclude each other."""
        if spec.device not in types.Device.values():
            self.add("spec.device", f"spec.device must be a known one, got {spec.device}")
        if spec.model.data_type not in _DATA_TYPES:
            names = " or ".join(DATA_TYPES[dtype].protocol for dtype in PRECISIONS)
            text = f"spec.model.data_type must be {names}, got {spec.model.data_type}"
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

    def digests(self, asked: trainer.TrainingSpec, sources: Sources) -> None:
        """Check that the digests in a resolved spec are those of the data sets and model that its names mean here."""
        train, validation, test, model = sources.train, sources.validation, sources.test, sources.model
        for field, given, name, found in (
            ("train_sha256", asked.train_sha256, asked.train_dataset, train and train.sha256),
            ("validation_sha256", asked.validation_sha256, asked.validation_dataset, validation and validation.sha256),
            ("test_sha256", asked.test_sha256, asked.test_dataset, test and test.sha256),
            ("warm_start.sha256", asked.warm_start.sha256, asked.warm_start.model, model and model.file_sha256),
        ):
            if given and given != found and (found or not name):
                rule = f"be that of {name}, {found}" if found else "be empty where none is named"
                self.add(f"spec.{field}", f"spec.{field} must {rule}, got {shown(given)}")

    def loss(self, asked: trainer.Loss, spec: TrainingSpec) -> None:
        """Check that the loss is one of the task's, and that no numbers of other losses are set."""
        chosen = spec.loss.kind
        if asked.kind and asked.kind != chosen.name and spec.task in TASKS:
            names = [kind.name for kind in TASKS[spec.task].losses]
            for violation in one_of("spec.loss.kind", asked.kind, names, f" for task {spec.task}"):
                self.add(violation.field, violation.description)
        others = {field for kind in LOSSES.values() if kind is not type(chosen) for field in _own_fields(kind)}
        for field in sorted(others):
            if asked.HasField(field):  # type: ignore[arg-type]
                text = f"spec.loss.{field} must be unset with loss {chosen.name}, got {getattr(asked, field)}"
                self.add(f"spec.loss.{field}", text)

    def warm_start(self, asked: trainer.TrainingSpec, spec: TrainingSpec, sources: Sources) -> None:
        """Check that the weights to go on from fit, and the optimizer's moments in a full warm start."""
        if not (sources.model and spec.warm_start):
            return
        if asked.model.layer_sizes:
            source = sources.model.spec
            for field in _KEPT_FIELDS:
                wanted, found = getattr(source, field), getattr(spec.model, field)
                if wanted != found:
                    path = f"spec.model.{declarations(ModelSpec)[field].wire_name}"
                    self.add(path, f"{path} must be that of {asked.warm_start.model}, {wanted}, got {found}")
        else:
            for given, _ in asked.model.ListFields():
                path = f"spec.model.{given.name}"
                self.add(path, f"{path} must come with layer_sizes, or be left to {asked.warm_start.model}")
        before, now = sources.model.optimizer, spec.optimizer.kind
        if spec.warm_start.full and (before.name, before.moments) != (now.name, now.moments):
            text = f"spec.optimizer must keep what {asked.warm_start.model} was trained with for a full warm start"
            self.add("spec.optimizer", f"{text}, {before}, got {now}")

    def columns(self, asked: trainer.TrainingSpec, sources: Sources) -> None:
        """Check that data sets and model, where they have names for columns and classes, have the same."""
        train, model = sources.train, sources.model
        others = {"spec.validation_dataset": sources.validation, "spec.test_dataset": sources.test}
        given = [(field, dataset) for field, dataset in others.items() if dataset]
        pairs: list[tuple[str, DatasetRecord, DatasetRecord | ModelRecord, str]] = []
        if train:
            pairs += [(field, dataset, train, asked.train_dataset) for field, dataset in given]
        if model:
            name = version_name(model.model_id, model.version)
            pairs += [("spec.train_dataset", train, model, name)] if train else []
            # Where the training data have names, the others were compared with those.
            if not (train and train.schema.columns):
                pairs += [(field, dataset, model, name) for field, dataset in given]
        for field, found, wanted, owner in pairs:
            self(partial(arranged, field, found, wanted, owner))

    def unknown_fields(self, path: str, message: Message) -> None:
        """Look for fields that only a newer client knows: to ignore one would be to train something else."""
        for unknown in UnknownFieldSet(message):  # type: ignore[attr-defined]  # the stubs lack it
            where = path.rstrip(".") or "the request"
            text = f"{where} must have only fields this server knows, got number {unknown.field_number}"
            self.add(f"{path}{unknown.field_number}", text)
        for field, value in message.ListFields():
            if not field.message_type or field.message_type.GetOptions().map_entry:
                continue
            if isinstance(value, Message):
                self.unknown_fields(f"{path}{field.name}.", value)
            else:
                for i, item in enumerate(value):
                    self.unknown_fields(f"{path}{field.name}[{i}].", item)

    def finish(self) -> None:
        """Raise `InvalidRequest` if any field breaks a rule."""
        if self._violations:
            raise InvalidRequest(self._violations)


def _own_fields(kind: type[Loss]) -> list[str]:
    """Return the names of a loss's numbers as fields of the message."""
    return [f"{kind.name}_{own.wire_name}" for own in declarations(kind).values()]
