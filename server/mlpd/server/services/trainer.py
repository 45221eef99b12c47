"""Answers mlpd.v1.TrainerService."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext, suppress
from dataclasses import asdict
from functools import partial

import mlpd.v1.trainer_service_pb2 as pb
from google.protobuf.duration_pb2 import Duration
from mlpd.core.network.tasks import TASKS, OutputKind
from mlpd.server.asynchronous import BoundedThreads
from mlpd.server.errors import CursorOutOfRange, DataLoss, InvalidRequest, NotFound, PreconditionFailed
from mlpd.server.executors.devices import Devices
from mlpd.server.inference.serving import Evaluation, Prediction, Serving
from mlpd.server.jobs.events import EventLog
from mlpd.server.jobs.queue import Jobs
from mlpd.server.jobs.resolution import digest_of, resolve
from mlpd.server.labels import LabelChange, check_labels
from mlpd.server.names import (
    check_id,
    check_request_id,
    job_name,
    parse_dataset,
    parse_job,
    parse_model,
    parse_series,
    version_name,
)
from mlpd.server.records import Event, Job, JobState, ModelRecord
from mlpd.server.storage import listing
from mlpd.server.storage.datasets import Datasets
from mlpd.server.storage.housekeeping import Housekeeping
from mlpd.server.storage.labelling import label_job
from mlpd.server.storage.store import LogState, Store
from mlpd.server.storage.stored_files import StoredFiles
from mlpd.server.wire.durations import check_duration, duration, seconds_of
from mlpd.server.wire.guard import Context
from mlpd.server.wire.messages import event_message, job_message, listed
from mlpd.server.wire.paging import number_cursor, page_of, page_size, token_of
from mlpd.server.wire.tensors import fill_tensor
from mlpd.v1 import types_pb2 as types
from mlpd.v1.trainer_service_pb2_grpc import TrainerServiceServicer

_CHECKING_THREADS = 2
_HEARTBEAT_SECONDS_DEFAULT = 10.0
_HEARTBEAT_SECONDS = (0.1, 60.0)
_STATES = {pb.TrainingJob.State.Value(f"STATE_{state}"): state for state in JobState}
_KINDS = {pb.OutputKind.Value(f"OUTPUT_KIND_{kind.name}"): kind for kind in OutputKind}


class TrainerService(TrainerServiceServicer):
    """Trains, follows, evaluates and serves models."""

    def __init__(
        self,
        store: Store,
        files: StoredFiles,
        datasets: Datasets,
        housekeeping: Housekeeping,
        jobs: Jobs,
        log: EventLog[pb.StreamProgressResponse],
        serving: Serving,
        devices: Devices,
        info: pb.GetServerInfoResponse,
    ) -> None:
        self._store = store
        self._files = files
        self._datasets = datasets
        self._housekeeping = housekeeping
        self._jobs = jobs
        self._log = log
        self._serving = serving
        self._devices = devices
        self._info = info
        self._checks = BoundedThreads(_CHECKING_THREADS)

    async def Train(self, request: pb.TrainRequest, context: Context) -> pb.TrainResponse:
        """Queue a job, or only resolve its spec if ``validate_only`` is set."""
        if earlier := await self._earlier(request):
            return pb.TrainResponse(training_job=await self._message(earlier), deduplicated=True)
        submission = await resolve(
            request, self._store, self._files, self._devices, self._jobs.thread_count, self._checks
        )
        if request.validate_only:
            message = await asyncio.to_thread(job_message, self._jobs.job_from(submission))
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
        if not request.WhichOneof("data"):
            raise InvalidRequest.field("data", "data must be dataset or rows, got neither")
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._told_if_deleted(record))
            by_name = request.HasField("dataset")
            kept = self._datasets.kept(parse_dataset("dataset", request.dataset)) if by_name else None
            evaluation = await self._serving.evaluate(
                record,
                await stack.enter_async_context(kept) if kept else request.rows,
                include_confusion=request.include_confusion_matrix,
                include_scores=request.include_scores,
            )
        return await asyncio.to_thread(_evaluation_response, record, evaluation)

    async def Predict(self, request: pb.PredictRequest, context: Context) -> pb.PredictResponse:
        """Run a model version on rows."""
        record = await self._store.model(*parse_model("model", request.model))
        async with self._told_if_deleted(record):
            prediction = await self._serving.predict(record, request.inputs, _kinds(record, request.outputs))
        return await asyncio.to_thread(_prediction_response, record, prediction)

    async def GetTrainingJob(self, request: pb.GetTrainingJobRequest, context: Context) -> pb.GetTrainingJobResponse:
        """Read one job."""
        job = await self._store.job(parse_job("name", request.name))
        return pb.GetTrainingJobResponse(training_job=await self._message(job))

    async def ListTrainingJobs(
        self, request: pb.ListTrainingJobsRequest, context: Context
    ) -> pb.ListTrainingJobsResponse:
        """List jobs, newest first."""
        chosen = _chosen_jobs(request)
        before, size = number_cursor("jobs", request.page_token), page_size(request.page_size)
        messages, cursor = await self._store.read(
            lambda connection: page_of(map(_listed_job, listing.jobs(connection, before, size + 1, chosen)), size)
        )
        return pb.ListTrainingJobsResponse(training_jobs=messages, next_page_token=token_of("jobs", cursor))

    async def UpdateTrainingJob(
        self, request: pb.UpdateTrainingJobRequest, context: Context
    ) -> pb.UpdateTrainingJobResponse:
        """Change a job's labels and note."""
        asked = request.training_job
        job_id = parse_job("training_job.name", asked.name)
        change = LabelChange("training_job", asked.labels, asked.note, request.update_mask.paths)
        await self._store.write(partial(label_job, job_id=job_id, change=change))
        return pb.UpdateTrainingJobResponse(training_job=await self._message(await self._store.job(job_id)))

    async def DeleteTrainingJob(
        self, request: pb.DeleteTrainingJobRequest, context: Context
    ) -> pb.DeleteTrainingJobResponse:
        """Delete a job that has ended."""
        response = pb.DeleteTrainingJobResponse()
        with suppress(NotFound) if request.allow_missing else nullcontext():
            response.freed_bytes = await self._housekeeping.delete_job(parse_job("name", request.name))
        return response

    async def CancelTrainingJob(
        self, request: pb.CancelTrainingJobRequest, context: Context
    ) -> pb.CancelTrainingJobResponse:
        """Cancel a job; a running one is CANCELLING until its worker has stopped."""
        job = await self._jobs.cancel(parse_job("name", request.name))
        return pb.CancelTrainingJobResponse(training_job=await asyncio.to_thread(job_message, job))

    async def GetServerInfo(self, request: pb.GetServerInfoRequest, context: Context) -> pb.GetServerInfoResponse:
        """Tell versions, devices, limits, queue depth and disk usage."""
        response = pb.GetServerInfoResponse()
        response.CopyFrom(self._info)
        reports = {types.DEVICE_CPU: self._devices.cpu(), types.DEVICE_CUDA: await self._devices.cuda()}
        for device, report in reports.items():
            response.devices.add(device=device, **asdict(report))
        response.disk_usage.MergeFrom(response.DiskUsage(**asdict(await self._housekeeping.disk_usage())))
        response.serving_bytes = self._serving.models.used_bytes
        response.queued_job_count = await self._store.count_jobs(JobState.QUEUED)
        response.running_job_count = await self._store.count_jobs(JobState.RUNNING, JobState.CANCELLING)
        return response

    @asynccontextmanager
    async def _told_if_deleted(self, record: ModelRecord) -> AsyncIterator[None]:
        """Raise `NotFound` in place of `DataLoss` where a version was deleted before its file was read."""
        try:
            yield
        except DataLoss:
            await self._store.model(record.model_id, record.version)
            raise

    async def _earlier(self, request: pb.TrainRequest) -> Job | None:
        """Return the job of an equal earlier request, if any: what a check would find may have changed since."""
        if not request.request_id or request.validate_only:
            return None
        if request.training_job_id:
            check_id("training_job_id", request.training_job_id)
        request_id = check_request_id(request.request_id)
        return await self._store.find_duplicate(request_id, digest_of(request), request.training_job_id)

    async def _message(self, job: Job) -> pb.TrainingJob:
        queued = job.status.state is JobState.QUEUED
        position = await self._store.queue_position(job.id) if queued else 0
        return await asyncio.to_thread(job_message, job, position)


def _listed_job(entry: listing.JobEntry) -> tuple[int | str, pb.TrainingJob]:
    state = pb.TrainingJob.State.Value(f"STATE_{entry.state or 'UNSPECIFIED'}")
    return entry.cursor, listed(
        lambda: job_message(entry.read(), entry.queue_position),
        lambda error: pb.TrainingJob(name=entry.name, state=state, error=error, queue_position=entry.queue_position),
    )


def _chosen_jobs(request: pb.ListTrainingJobsRequest) -> listing.ChosenJobs:
    states = []
    for number in request.states:
        if number not in _STATES:
            raise InvalidRequest.field("states", f"states must be states of jobs, got number {number}")
        states.append(_STATES[number])
    model_id = parse_series("model", request.model) if request.model else None
    return listing.ChosenJobs(tuple(states), model_id, check_labels("labels", request.labels))


def _kinds(record: ModelRecord, asked: Sequence[pb.OutputKind.ValueType]) -> set[OutputKind]:
    """Return the kinds of outputs that are asked for, by default the first of the model's task."""
    known = TASKS[record.task].output_kinds
    wanted = {number: _KINDS.get(number) for number in asked if number != pb.OUTPUT_KIND_ALL}
    if unknown := [number for number, kind in wanted.items() if kind not in known]:
        names = ", ".join(sorted(kind.name for kind in known))
        text = f"outputs must be of {names} for task {record.task}, got {min(unknown)}"
        raise InvalidRequest.field("outputs", text)
    if pb.OUTPUT_KIND_ALL in asked:
        return set(known)
    return {kind for kind in wanted.values() if kind} or {known[0]}


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


def _prediction_response(record: ModelRecord, prediction: Prediction) -> pb.PredictResponse:
    response = pb.PredictResponse(
        model=version_name(record.model_id, record.version),
        compute_duration=duration(prediction.compute_seconds),
    )
    for kind, array in prediction.outputs.items():
        fill_tensor(getattr(response, kind), array)
    return response


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
