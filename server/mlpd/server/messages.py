"""Records as protobuf messages."""

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from mlpd.core.spec import AdamSpec, SgdSpec, TrainingSpec
from mlpd.server.names import dataset_name, job_name, version_name
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
from mlpd.server.status import status_of_failure
from mlpd.server.tensors import data_type_of
from mlpd.v1 import dataset_service_pb2 as datasets
from mlpd.v1 import model_service_pb2 as models
from mlpd.v1 import trainer_service_pb2 as trainer
from mlpd.v1 import types_pb2 as types

DEVICES = {"cpu": types.DEVICE_CPU, "cuda": types.DEVICE_CUDA}
INITIALIZERS = {
    "he_normal": trainer.ModelSpec.INITIALIZER_HE_NORMAL,
    "he_uniform": trainer.ModelSpec.INITIALIZER_HE_UNIFORM,
    "glorot_normal": trainer.ModelSpec.INITIALIZER_GLOROT_NORMAL,
    "glorot_uniform": trainer.ModelSpec.INITIALIZER_GLOROT_UNIFORM,
}
_STATES = {state: trainer.TrainingJob.State.Value(f"STATE_{state}") for state in JobState}
_SPLITS = {
    "train": trainer.MetricsRecorded.SPLIT_TRAIN,
    "validation": trainer.MetricsRecorded.SPLIT_VALIDATION,
}


def spec_message(spec: TrainingSpec) -> trainer.TrainingSpec:
    """Return a resolved spec, every default filled in."""
    optimizer = trainer.Optimizer(weight_decay=spec.optimizer.weight_decay)
    match spec.optimizer.kind:
        case SgdSpec(momentum, nesterov):
            optimizer.sgd.CopyFrom(trainer.Optimizer.Sgd(momentum=momentum, nesterov=nesterov))
        case AdamSpec(beta1, beta2, epsilon):
            optimizer.adam.CopyFrom(trainer.Optimizer.Adam(beta1=beta1, beta2=beta2, epsilon=epsilon))
    schedule = trainer.Schedule(learning_rate=spec.schedule.learning_rate)
    if spec.schedule.kind == "warmup_cosine":
        schedule.warmup_cosine.CopyFrom(trainer.Schedule.WarmupCosine(warmup_steps=spec.schedule.warmup_steps))
    else:
        schedule.constant.SetInParent()
    return trainer.TrainingSpec(
        model=trainer.ModelSpec(
            layer_sizes=spec.model.layer_sizes,
            initializer=INITIALIZERS[spec.model.initializer],
            input_scale=spec.model.input_scale,
        ),
        train_dataset=spec.train_dataset,
        validation_dataset=spec.validation_dataset,
        batch_size=spec.batch_size,
        epoch_count=spec.epoch_count,
        optimizer=optimizer,
        schedule=schedule,
        seed=spec.seed,
        device=DEVICES[spec.device],
        metrics_interval_steps=spec.metrics_interval_steps,
        train_sha256=spec.train_sha256,
        validation_sha256=spec.validation_sha256,
    )


def job_message(job: Job, queue_position: int = 0) -> trainer.TrainingJob:
    """Return a stored job."""
    return trainer.TrainingJob(
        name=job_name(job.id),
        state=_STATES[job.state],
        error=status_of_failure(job.failure) if job.failure else None,
        spec=spec_message(job.spec),
        spec_digest=job.spec.digest,
        progress=_progress(job.progress),
        queue_position=queue_position,
        last_sequence=job.last_sequence,
        event_log_id=job.log_id,
        attempt=job.attempt,
        device_description=job.device_description,
        model_version=job.model_version,
        create_time=_timestamp(job.create_time),
        start_time=_timestamp(job.start_time),
        end_time=_timestamp(job.end_time),
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
        case AttemptStarted(resume_step, reason, description):
            message.attempt_started.CopyFrom(
                trainer.AttemptStarted(resume_step=resume_step, reason=reason, device_description=description)
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
    return datasets.Dataset(
        name=dataset_name(record.id),
        sha256=record.sha256,
        size_bytes=record.size_bytes,
        row_count=record.row_count,
        input_size=record.input_size,
        data_type=data_type_of(record.dtype),
        class_count=len(record.class_row_counts),
        class_row_counts=record.class_row_counts,
        create_time=_timestamp(record.create_time),
    )


def model_message(record: ModelRecord) -> models.ModelVersion:
    """Return a published model version."""
    return models.ModelVersion(
        name=version_name(record.model_id, record.version),
        parameters_sha256=record.parameters_sha256,
        training_job=job_name(record.job_id),
        layer_sizes=record.layer_sizes,
        input_scale=record.input_scale,
        parameter_count=record.parameter_count,
        create_time=_timestamp(record.create_time),
    )


def duration(seconds: float) -> Duration:
    """Return a duration message."""
    message = Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message


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
