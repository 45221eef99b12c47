"""Records as protobuf messages."""

from collections.abc import Callable
from typing import TypeVar

from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import status_pb2
from mlpd.core.data.columns import Column, ColumnStatistics
from mlpd.server.errors import DataLoss
from mlpd.server.names import dataset_name, job_name, version_name
from mlpd.server.record_damage import UNREADABLE, dataset_record_damage, job_record_damage, model_record_damage
from mlpd.server.records import (
    AttemptStarted,
    CheckpointSaved,
    DatasetRecord,
    Event,
    Job,
    JobState,
    MessageLogged,
    MetricsRecorded,
    ModelRecord,
    Progress,
    StateChanged,
)
from mlpd.server.wire.durations import duration
from mlpd.server.wire.specs import model_spec_message, spec_message
from mlpd.server.wire.status import status_of_error, status_of_failure
from mlpd.server.wire.tensors import data_type_of
from mlpd.v1 import dataset_service_pb2 as datasets
from mlpd.v1 import model_service_pb2 as models
from mlpd.v1 import trainer_service_pb2 as trainer
from mlpd.v1 import types_pb2 as types

_STATES = {state: trainer.TrainingJob.State.Value(f"STATE_{state}") for state in JobState}
_SPLITS = {
    "train": trainer.MetricsRecorded.SPLIT_TRAIN,
    "validation": trainer.MetricsRecorded.SPLIT_VALIDATION,
    "test": trainer.MetricsRecorded.SPLIT_TEST,
}


M = TypeVar("M")


def listed(message: Callable[[], M], damaged: Callable[[status_pb2.Status], M]) -> M:
    """Return ``message()``, or what stands in a list for a record that can't be read."""
    try:
        return message()
    except DataLoss as error:
        return damaged(status_of_error(error))


def job_message(job: Job, queue_position: int = 0) -> trainer.TrainingJob:
    """Return a job; as the other messages, it raises `DataLoss` for stored values that the protocol can't say."""
    try:
        return _job_message(job, queue_position)
    except UNREADABLE as error:
        raise job_record_damage(job.id, "value of a field") from error


def _job_message(job: Job, queue_position: int) -> trainer.TrainingJob:
    status = job.status
    return trainer.TrainingJob(
        name=job_name(job.id),
        state=_STATES[status.state],
        error=status_of_failure(status.failure) if status.failure else None,
        spec=spec_message(job.spec),
        spec_digest=job.spec_digest,
        progress=_progress(status.progress),
        queue_position=queue_position,
        last_sequence=status.last_sequence,
        event_log_id=job.log_id,
        attempt=status.attempt,
        device_description=status.device_description,
        environment=status.environment,
        model_version=status.model_version,
        memory_bytes=job.memory_bytes,
        create_time=_timestamp(job.create_time),
        start_time=_timestamp(status.start_time),
        end_time=_timestamp(status.end_time),
        labels=job.labels,
        note=job.note,
        train_loss=status.train_loss,
        validation_loss=status.validation_loss,
    )


def event_message(event: Event) -> trainer.ProgressEvent:
    """Return one entry of a job's log."""
    message = trainer.ProgressEvent(sequence=event.sequence, event_time=_timestamp(event.time), attempt=event.attempt)
    match event.payload:
        case StateChanged() as change:
            message.state_changed.CopyFrom(
                trainer.StateChanged(
                    from_state=_STATES[change.from_state]
                    if change.from_state
                    else trainer.TrainingJob.STATE_UNSPECIFIED,
                    to_state=_STATES[change.to_state],
                    error=status_of_failure(change.failure) if change.failure else None,
                    model_version=change.model_version,
                )
            )
        case MetricsRecorded() as metrics:
            message.metrics_recorded.CopyFrom(
                trainer.MetricsRecorded(
                    split=_SPLITS[metrics.split],
                    progress=_progress(metrics.progress),
                    loss=metrics.loss,
                    accuracy=metrics.accuracy,
                    learning_rate=metrics.learning_rate,
                )
            )
        case CheckpointSaved(step, sha256, size_bytes):
            message.checkpoint_saved.CopyFrom(trainer.CheckpointSaved(step=step, sha256=sha256, size_bytes=size_bytes))
        case AttemptStarted(resume_step, reason, description, environment):
            message.attempt_started.CopyFrom(
                trainer.AttemptStarted(
                    resume_step=resume_step, reason=reason, device_description=description, environment=environment
                )
            )
        case MessageLogged(severity, text):
            message.message_logged.CopyFrom(
                trainer.MessageLogged(
                    severity=trainer.MessageLogged.Severity.Value(f"SEVERITY_{severity}"), message=text
                )
            )
    return message


def dataset_message(record: DatasetRecord) -> datasets.Dataset:
    """Return a stored data set."""
    try:
        return _dataset_message(record)
    except UNREADABLE as error:
        raise dataset_record_damage(record.id, "value of a field") from error


def _dataset_message(record: DatasetRecord) -> datasets.Dataset:
    return datasets.Dataset(
        name=dataset_name(record.id),
        sha256=record.sha256,
        size_bytes=record.size_bytes,
        row_count=record.row_count,
        input_size=record.input_size,
        data_type=data_type_of(record.dtype),
        class_count=len(record.class_row_counts),
        class_row_counts=record.class_row_counts,
        target_data_type=data_type_of(record.target_dtype),
        target_size=record.target_size,
        target_minimum=record.target_range[0],
        target_maximum=record.target_range[1],
        weighted=record.weighted,
        input_minimum=record.input_range[0],
        input_maximum=record.input_range[1],
        whole_inputs=record.whole_inputs,
        input_names=record.schema.input_names,
        columns=[_column(*pair) for pair in zip(record.schema.columns, record.statistics, strict=True)],
        class_names=record.schema.class_names,
        target_names=record.schema.target_names,
        encoded_size=record.encoded_size,
        create_time=_timestamp(record.create_time),
    )


def model_message(record: ModelRecord) -> models.ModelVersion:
    """Return a published model version."""
    try:
        return _model_message(record)
    except UNREADABLE as error:
        raise model_record_damage(record.model_id, record.version, "value of a field") from error


def _model_message(record: ModelRecord) -> models.ModelVersion:
    return models.ModelVersion(
        name=version_name(record.model_id, record.version),
        parameters_sha256=record.parameters_sha256,
        training_job=job_name(record.job_id),
        spec=model_spec_message(record.spec),
        task=record.task,
        loss=record.loss,
        parameter_count=record.parameter_count,
        input_size=record.input_size,
        input_names=record.schema.input_names,
        columns=[_column(column, ColumnStatistics()) for column in record.schema.columns],
        class_names=record.schema.class_names,
        target_names=record.schema.target_names,
        create_time=_timestamp(record.create_time),
        labels=record.labels,
        note=record.note,
    )


def _column(column: Column, known: ColumnStatistics) -> types.Column:
    return types.Column(
        name=column.name,
        kind=types.Column.Kind.Value(f"KIND_{column.kind.upper()}"),
        categories=column.categories,
        missing_count=known.missing_count,
        mean=known.mean,
        deviation=known.deviation,
        minimum=known.minimum,
        maximum=known.maximum,
        missing_value=column.missing_value,
        marks_missing=column.marks_missing,
    )


def _progress(progress: Progress) -> trainer.Progress:
    return trainer.Progress(
        step=progress.step,
        step_count=progress.step_count,
        epoch=progress.epoch,
        epoch_count=progress.epoch_count,
        rows_per_second=progress.rows_per_second,
        remaining_duration=duration(progress.remaining_seconds),
    )


def _timestamp(nanoseconds: int) -> Timestamp | None:
    if not nanoseconds:
        return None
    message = Timestamp()
    message.FromNanoseconds(nanoseconds)
    return message
