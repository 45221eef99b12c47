"""mlpd.v1.TrainerService."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import asdict
from functools import partial

import mlpd.v1.trainer_service_pb2 as pb
import numpy as np
from google.protobuf.duration_pb2 import Duration
from mlpd.core.data.datasets import Dataset
from mlpd.core.network.tasks import TASKS
from mlpd.server.columns import order_of
from mlpd.server.errors import CursorOutOfRange, InvalidRequest, PreconditionFailed
from mlpd.server.executors.devices import Devices
from mlpd.server.inference.finite import check_evaluated, check_predicted
from mlpd.server.inference.serving import MAX_PREDICTION_VALUES, SCORED_VALUES_LIMIT, Evaluation, Prediction, Serving
from mlpd.server.jobs.events import EventLog
from mlpd.server.jobs.queue import Jobs
from mlpd.server.jobs.resolution import digest_of, resolve
from mlpd.server.names import check_id, check_request_id, job_name, parse_dataset, parse_job, parse_model, version_name
from mlpd.server.records import DatasetRecord, Event, Job, JobState, ModelRecord
from mlpd.server.storage import listing
from mlpd.server.storage.store import LogState, Store
from mlpd.server.storage.stored_files import StoredFiles
from mlpd.server.wire.durations import check_duration, duration, seconds_of
from mlpd.server.wire.guard import Context
from mlpd.server.wire.messages import event_message, job_message
from mlpd.server.wire.paging import number_cursor, page_of, page_size, token_of
from mlpd.server.wire.tensors import fill_tensor, inputs_from, labels_from, targets_from
from mlpd.v1 import types_pb2 as types
from mlpd.v1.trainer_service_pb2_grpc import TrainerServiceServicer
from numpy.typing import NDArray

_HEARTBEAT_SECONDS_DEFAULT = 10.0
_HEARTBEAT_SECONDS = (0.1, 60.0)
_CONFUSION_CLASSES_LIMIT = 1024
_LOGITS = pb.OUTPUT_KIND_LOGITS
_OUTPUTS = (
    ({_LOGITS, pb.OUTPUT_KIND_PROBABILITIES, pb.OUTPUT_KIND_CLASSES}, pb.OUTPUT_KIND_PROBABILITIES),
    ({_LOGITS, pb.OUTPUT_KIND_VALUES}, pb.OUTPUT_KIND_VALUES),
)


class TrainerService(TrainerServiceServicer):
    """Trains, follows, evaluates and serves models."""

    def __init__(
        self,
        store: Store,
        files: StoredFiles,
        jobs: Jobs,
        log: EventLog[pb.StreamProgressResponse],
        serving: Serving,
        devices: Devices,
        info: pb.GetServerInfoResponse,
    ) -> None:
        self._store = store
        self._files = files
        self._jobs = jobs
        self._log = log
        self._serving = serving
        self._devices = devices
        self._info = info

    async def Train(self, request: pb.TrainRequest, context: Context) -> pb.TrainResponse:
        """Queue a job."""
        if earlier := await self._earlier(request):
            return pb.TrainResponse(training_job=await self._message(earlier), deduplicated=True)
        submission = await resolve(request, self._store, self._files, self._devices, self._jobs.thread_count)
        if request.validate_only:
            job = self._jobs.job_from(submission)
            message = job_message(job)
            for field in ("name", "state", "event_log_id", "create_time"):
                message.ClearField(field)
            return pb.TrainResponse(training_job=message)
        job, known = await self._jobs.submit(submission)
        return pb.TrainResponse(training_job=await self._message(job), deduplicated=known)

    async def StreamProgress(
        self, request: pb.StreamProgressRequest, context: Context
    ) -> AsyncIterator[pb.StreamProgressResponse]:
        """Replay a job's log after a cursor, then follow it."""
        job_id = parse_job("name", request.name)
        log = await self._store.log_state(job_id)
        heartbeat_seconds = _check_cursor(request, job_id, log)
        sequence = request.after_sequence
        if log.ended and sequence == log.last_sequence:
            return
        item = partial(_progress_item, log.id)
        async for entry in self._log.follow(self._store.events, item, job_id, sequence, heartbeat_seconds):
            if entry is None:
                heartbeat = pb.Heartbeat(last_sequence=sequence)
                yield pb.StreamProgressResponse(heartbeat=heartbeat, event_log_id=log.id)
            else:
                sequence = entry.sequence
                yield entry.message

    async def Evaluate(self, request: pb.EvaluateRequest, context: Context) -> pb.EvaluateResponse:
        """Score a model version."""
        record = await self._store.model(*parse_model("model", request.model))
        class_count = _class_count(record)
        if request.include_confusion_matrix and not 1 <= class_count <= _CONFUSION_CLASSES_LIMIT:
            raise InvalidRequest.field(
                "include_confusion_matrix",
                f"include_confusion_matrix must be unset without classes or with more than {_CONFUSION_CLASSES_LIMIT}, "
                f"this model has {class_count}",
            )
        data, columns = await self._labelled_rows(request, record)
        row_count = len(data) if isinstance(data, Dataset) else data.row_count
        value_count = row_count * record.spec.layer_sizes[-1]
        if request.include_scores and value_count > SCORED_VALUES_LIMIT:
            raise InvalidRequest.field(
                "include_scores",
                f"include_scores must be unset above {SCORED_VALUES_LIMIT} rows times outputs, this is {value_count}",
            )
        evaluation = await self._serving.evaluate(
            record,
            data,
            columns,
            include_confusion=request.include_confusion_matrix,
            include_scores=request.include_scores,
        )
        check_evaluated("dataset" if request.dataset else "rows.inputs", record, evaluation.counts, evaluation.scores)
        return await asyncio.to_thread(_evaluation_response, record, evaluation)

    async def Predict(self, request: pb.PredictRequest, context: Context) -> pb.PredictResponse:
        """Run a model version on rows."""
        record = await self._store.model(*parse_model("model", request.model))
        known, default = _OUTPUTS[record.task == "regression"]
        wanted = set(request.outputs) or {default}
        if unknown := wanted - known - {pb.OUTPUT_KIND_ALL}:
            names = ", ".join(sorted(pb.OutputKind.Name(kind).removeprefix("OUTPUT_KIND_") for kind in known))
            text = f"outputs must be of {names} for task {record.task}, got {min(unknown)}"
            raise InvalidRequest.field("outputs", text)
        if pb.OUTPUT_KIND_ALL in wanted:
            wanted = known
        input_size, *_, output_count = record.spec.layer_sizes
        inputs = await asyncio.to_thread(inputs_from, "inputs", request.inputs, input_size)
        if len(inputs) * output_count > MAX_PREDICTION_VALUES:
            most = MAX_PREDICTION_VALUES // output_count
            text = f"inputs.shape must be of at most {most} rows for {output_count} outputs, got {len(inputs)}"
            raise InvalidRequest.field("inputs.shape", text, "PREDICTION_TOO_LARGE")
        prediction = await self._serving.predict(record, inputs)
        check_predicted("inputs", record, prediction.faulty)
        return await asyncio.to_thread(_prediction_response, record, wanted, prediction)

    async def GetTrainingJob(self, request: pb.GetTrainingJobRequest, context: Context) -> pb.GetTrainingJobResponse:
        """Read one job."""
        job = await self._store.job(parse_job("name", request.name))
        return pb.GetTrainingJobResponse(training_job=await self._message(job))

    async def ListTrainingJobs(
        self, request: pb.ListTrainingJobsRequest, context: Context
    ) -> pb.ListTrainingJobsResponse:
        """List jobs, newest first."""
        before, size = number_cursor("jobs", request.page_token), page_size(request.page_size)
        messages, cursor = await self._store.read(
            lambda connection: page_of(
                ((own, job_message(job, place)) for own, job, place in listing.jobs(connection, before, size + 1)), size
            )
        )
        return pb.ListTrainingJobsResponse(training_jobs=messages, next_page_token=token_of("jobs", cursor))

    async def CancelTrainingJob(
        self, request: pb.CancelTrainingJobRequest, context: Context
    ) -> pb.CancelTrainingJobResponse:
        """End a job."""
        job = await self._jobs.cancel(parse_job("name", request.name))
        return pb.CancelTrainingJobResponse(training_job=job_message(job))

    async def GetServerInfo(self, request: pb.GetServerInfoRequest, context: Context) -> pb.GetServerInfoResponse:
        """Tell versions, devices, limits and queue depth."""
        response = pb.GetServerInfoResponse()
        response.CopyFrom(self._info)
        reports = {types.DEVICE_CPU: self._devices.cpu(), types.DEVICE_CUDA: await self._devices.cuda()}
        for device, report in reports.items():
            response.devices.add(device=device, **asdict(report))
        response.queued_job_count = await self._store.count_jobs(JobState.QUEUED)
        response.running_job_count = await self._store.count_jobs(JobState.RUNNING, JobState.CANCELLING)
        return response

    async def _earlier(self, request: pb.TrainRequest) -> Job | None:
        """Find the job of an equal earlier request, before anything that may have changed since is checked."""
        if not request.request_id or request.validate_only:
            return None
        if request.training_job_id:
            check_id("training_job_id", request.training_job_id)
        request_id = check_request_id(request.request_id)
        return await self._store.find_duplicate(request_id, digest_of(request), request.training_job_id)

    async def _message(self, job: Job) -> pb.TrainingJob:
        queued = job.status.state is JobState.QUEUED
        return job_message(job, await self._store.queue_position(job.id) if queued else 0)

    async def _labelled_rows(
        self, request: pb.EvaluateRequest, record: ModelRecord
    ) -> tuple[Dataset | DatasetRecord, NDArray[np.intp] | None]:
        """Return the rows, and where the model's inputs stand in each; None = in their order."""
        input_size, output_count = record.spec.layer_sizes[0], record.spec.layer_sizes[-1]
        class_count = _class_count(record)
        match request.WhichOneof("data"):
            case "dataset":
                dataset = await self._store.dataset(parse_dataset("dataset", request.dataset))
                name = version_name(record.model_id, record.version)
                columns = order_of("dataset", dataset.input_names, record.input_names, name)
                wanted = f"at most {class_count} classes" if class_count else f"{output_count} numbers as targets"
                found = f"{len(dataset.class_row_counts)} classes"
                if dataset.target_size:
                    found = f"{dataset.target_size} numbers as targets"
                fits = dataset.target_size == (0 if class_count else output_count)
                if dataset.input_size != input_size or not fits or len(dataset.class_row_counts) > class_count:
                    raise InvalidRequest.field(
                        "dataset",
                        f"dataset must have rows of {input_size} values and {wanted} as the model has, "
                        f"got {dataset.input_size} and {found}",
                        "SHAPE_MISMATCH",
                    )
                return dataset, columns
            case "rows":
                rows = await asyncio.to_thread(_rows_from, request.rows, input_size, output_count, class_count)
                return rows, None
            case _:
                raise InvalidRequest.field("data", "data must be dataset or rows, got neither")


def _rows_from(rows: pb.LabelledRows, input_size: int, output_count: int, class_count: int) -> Dataset:
    inputs = inputs_from("rows.inputs", rows.inputs, input_size)
    if class_count:
        return Dataset(inputs, labels_from("rows.labels", rows.labels, len(inputs), class_count))
    return Dataset(inputs, targets_from("rows.labels", rows.labels, len(inputs), output_count))


def _evaluation_response(record: ModelRecord, evaluation: Evaluation) -> pb.EvaluateResponse:
    counts, scores = evaluation.counts, evaluation.scores
    response = pb.EvaluateResponse(
        model=version_name(record.model_id, record.version),
        parameters_sha256=record.parameters_sha256,
        row_count=counts.row_count,
        correct_count=counts.correct_count,
        loss=counts.loss,
        compute_duration=duration(evaluation.compute_seconds),
        metrics=scores.values if scores else {},
        class_scores=[pb.ClassScores(**asdict(own)) for own in scores.classes] if scores else [],
    )
    if counts.confusion is not None:
        fill_tensor(response.confusion_matrix, counts.confusion)
    return response


def _prediction_response(
    record: ModelRecord, wanted: set[pb.OutputKind.ValueType], prediction: Prediction
) -> pb.PredictResponse:
    tensors = {
        pb.OUTPUT_KIND_LOGITS: ("logits", prediction.outputs),
        pb.OUTPUT_KIND_PROBABILITIES: ("probabilities", prediction.predictions),
        pb.OUTPUT_KIND_CLASSES: ("classes", prediction.decisions),
        pb.OUTPUT_KIND_VALUES: ("values", prediction.predictions),
    }
    response = pb.PredictResponse(
        model=version_name(record.model_id, record.version),
        compute_duration=duration(prediction.compute_seconds),
    )
    for kind in wanted:
        field, array = tensors[kind]
        assert array is not None
        fill_tensor(getattr(response, field), array)
    return response


def _class_count(record: ModelRecord) -> int:
    """Return the number of classes; 0 where targets are numbers."""
    if not TASKS[record.task].has_classes:
        return 0
    return 2 if record.task == "binary" else record.spec.layer_sizes[-1]


def _progress_item(log_id: str, event: Event) -> pb.StreamProgressResponse:
    return pb.StreamProgressResponse(event=event_message(event), event_log_id=log_id)


def _check_cursor(request: pb.StreamProgressRequest, job_id: str, log: LogState) -> float:
    if request.event_log_id not in ("", log.id):
        raise PreconditionFailed(
            "EVENT_LOG_CHANGED",
            f"event_log_id must be that of the job's log, {log.id}; this is another job of the same name",
            event_log_id=log.id,
        )
    if request.after_sequence < 0:
        text = f"after_sequence must be 0 or more, got {request.after_sequence}"
        raise InvalidRequest.field("after_sequence", text)
    if request.after_sequence > log.last_sequence:
        raise CursorOutOfRange(
            "SEQUENCE_AHEAD",
            f"after_sequence must be at most {log.last_sequence}, the newest event of {job_name(job_id)}, "
            f"got {request.after_sequence}",
            last_sequence=log.last_sequence,
        )
    if not request.HasField("heartbeat_interval"):
        return _HEARTBEAT_SECONDS_DEFAULT
    return _checked_heartbeat(request.heartbeat_interval)


def _checked_heartbeat(interval: Duration) -> float:
    check_duration("heartbeat_interval", interval)
    seconds = seconds_of(interval)
    low, high = _HEARTBEAT_SECONDS
    if not low <= seconds <= high:
        text = f"heartbeat_interval must be between {low:g} and {high:g} seconds, got {seconds:g}"
        raise InvalidRequest.field("heartbeat_interval", text)
    return seconds
