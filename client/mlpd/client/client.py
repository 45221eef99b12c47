"""`Client`: one channel to one server."""

import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Unpack

import grpc
from google.rpc import error_details_pb2
from mlpd.client.arrays import (
    dataset_tensors,
    labels_from,
    rows_from,
    split,
    targets_from,
    tensor_from,
    write_dataset,
)
from mlpd.client.calls import Patience, upload
from mlpd.client.columns import is_frame, rows_for
from mlpd.client.connection import job_name
from mlpd.client.errors import InvalidRequest, JobCancelled, JobFailed, ServerError
from mlpd.client.housekeeping import Housekeeping
from mlpd.client.parts import refusals_of
from mlpd.client.recipes import model_name, resource_name
from mlpd.client.results import Evaluation, Prediction, evaluation_of, prediction_of
from mlpd.client.tables import LabelledTable, TableOptions, schema_of
from mlpd.client.tables.answers import labels_like
from mlpd.client.tables.memory import model_rows, understood
from mlpd.client.vocabulary import in_settings
from mlpd.v1 import dataset_service_pb2 as dataset_pb
from mlpd.v1 import model_service_pb2 as model_pb
from mlpd.v1 import trainer_service_pb2 as pb
from numpy.typing import ArrayLike

_CONFUSION_CLASSES_LIMIT = 1024
# What a call that lost its connection may end with; a server's own word for an error comes with a reason.
_CUT_OFF = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)


class Client(Housekeeping):
    """A connection to the server at ``address``; close it, or use it in a ``with`` block.

    Threads may share a client. Every method raises an error of `mlpd.client.errors`. Names may be short:
    "mnist-test" for "datasets/mnist-test", a job's id for its name, "digits" for "models/digits".
    ``timeout_seconds`` bounds each call, all attempts together: a call is made again while the server is away, starting
    or draining, or asks for another try later.
    """

    def train(
        self,
        spec: pb.TrainingSpec,
        *,
        job_id: str = "",
        model_id: str = "",
        labels: Mapping[str, str] | None = None,
        note: str = "",
        request_id: str = "",
    ) -> pb.TrainingJob:
        """Submit a job and return it as soon as the server has it on disk; its model version has its ``labels``, too.

        Sending the same ``request_id`` (a UUID) with the same arguments again gives the same job; without one, a fresh
        id covers this call's own retries.
        """
        request = pb.TrainRequest(
            spec=spec,
            training_job_id=job_id,
            model_id=model_id,
            labels=labels,
            note=note,
            request_id=request_id or str(uuid.uuid4()),
        )
        with in_settings():
            return self._call(self._trainer.Train, request).training_job

    def resolve(self, spec: pb.TrainingSpec) -> pb.TrainingSpec:
        """Return ``spec`` as the server would run it, every default filled in, and start nothing."""
        request = pb.TrainRequest(spec=spec, validate_only=True)
        with in_settings():
            return self._call(self._trainer.Train, request).training_job.spec

    def progress(
        self, job: pb.TrainingJob | str, after_sequence: int = 0, *, reconnect_timeout_seconds: float = 120.0
    ) -> Iterator[pb.ProgressEvent]:
        """Yield a job's events, each once and in order, to its end.

        When the connection or the server goes away, this connects again and continues after the last event it has
        yielded. It gives up after ``reconnect_timeout_seconds`` without a sign of the server, with `Unavailable` or
        what else the last attempt ended with; time that the caller spends on an event does not count.
        """
        request = pb.StreamProgressRequest(name=job_name(job), after_sequence=after_sequence)
        patience = Patience(self.address, reconnect_timeout_seconds)
        while True:
            stream = self._trainer.StreamProgress(request)
            try:
                for item in stream:
                    request.event_log_id = item.event_log_id
                    if item.HasField("event"):
                        if item.event.sequence != request.after_sequence + 1:
                            raise ServerError(
                                f"event {request.after_sequence + 1} must come next, got {item.event.sequence}"
                            )
                        request.after_sequence = item.event.sequence
                        yield item.event
                    patience.restart()
                return
            except grpc.RpcError as error:
                patience.wait(error, _CUT_OFF)
            finally:
                stream.cancel()

    def wait(self, job: pb.TrainingJob | str) -> pb.TrainingJob:
        """Wait for the end of a job and return it; raises `JobFailed` or `JobCancelled` if that is how it ended."""
        for _ in self.progress(job):
            pass
        ended = self.job(job)
        if ended.state == pb.TrainingJob.STATE_FAILED:
            raise JobFailed(f"{ended.name} failed: {ended.error.message}", _failure_reason(ended), ended)
        if ended.state == pb.TrainingJob.STATE_CANCELLED:
            raise JobCancelled(f"{ended.name} was cancelled", "CANCELLED", ended)
        return ended

    def job(self, job: pb.TrainingJob | str) -> pb.TrainingJob:
        """Return a job as it is now."""
        return self._call(self._trainer.GetTrainingJob, pb.GetTrainingJobRequest(name=job_name(job))).training_job

    def cancel(self, job: pb.TrainingJob | str) -> pb.TrainingJob:
        """Ask for the end of a job and return it, cancelling or cancelled; asking again changes nothing."""
        request = pb.CancelTrainingJobRequest(name=job_name(job))
        return self._call(self._trainer.CancelTrainingJob, request).training_job

    def evaluate(
        self, model: str, data: str | tuple[Any, ArrayLike] | LabelledTable, *, include_scores: bool = False
    ) -> Evaluation:
        """Score a model on a stored data set, or on rows (rows, width) and their labels (rows,) or targets.

        Where model and data have names for their columns, a data frame's too, columns are matched by name, those of
        targets too; labels may be the names of classes. A table of `mlpd.client.tables.read_labelled` must have been
        read like the model.
        Rows are split to fit the server's messages, and the counts added up; scores need all rows in one message, or
        stored. Models of up to 1024 classes come with their confusion matrix.
        """
        version = self.model(model)
        request = pb.EvaluateRequest(model=version.name, include_scores=include_scores)
        has_classes = version.task in ("multiclass", "binary")
        request.include_confusion_matrix = has_classes and version.spec.layer_sizes[-1] <= _CONFUSION_CLASSES_LIMIT
        if isinstance(data, str):
            request.dataset = resource_name("datasets", data)
            return evaluation_of([self._call(self._trainer.Evaluate, request)], version)
        given: Any
        if isinstance(data, LabelledTable):
            inputs, given = data.inputs, data.targets if data.labels is None else data.labels
        else:
            inputs = model_rows(data[0], version)
            given = data[1]
            if has_classes:
                given = labels_like(given, version.class_names, version.name)
            elif is_frame(given):
                given = rows_for("targets", given, version.target_names, version.name)
        rows = rows_from("inputs", inputs)
        labels = (labels_from if has_classes else targets_from)("labels", given, len(rows))
        parts = list(split(rows, self._message_bytes, labels.nbytes // max(len(labels), 1)))
        if include_scores and len(parts) > 1:
            raise InvalidRequest(
                f"inputs must fit one message of {self._message_bytes} bytes for scores, got {rows.nbytes} bytes; "
                "upload them and evaluate the data set"
            )
        answers = []
        for part in parts:
            request.rows.CopyFrom(pb.LabelledRows(inputs=tensor_from(rows[part]), labels=tensor_from(labels[part])))
            with refusals_of(part, len(rows)):
                answers.append(self._call(self._trainer.Evaluate, request))
        return evaluation_of(answers, version)

    def predict(self, model: str, inputs: ArrayLike) -> Prediction:
        """Run a model on rows (rows, width), or (rows, ...) to be flattened, in the units of its training data.

        The columns of a data frame are matched by name with those that the model was trained on; an array's, and those
        without names, are taken in their order.
        """
        version = self.model(model)  # a newer version must not answer some parts
        rows = rows_from("inputs", model_rows(inputs, version))
        row_limit = self.server_info.max_prediction_values // version.spec.layer_sizes[-1]
        answers = []
        for part in split(rows, self._message_bytes, row_limit=row_limit):
            inputs_part = tensor_from(rows[part])
            request = pb.PredictRequest(model=version.name, inputs=inputs_part, outputs=[pb.OUTPUT_KIND_ALL])
            with refusals_of(part, len(rows)):
                answers.append(self._call(self._trainer.Predict, request))
        return prediction_of(answers, version)

    def upload(
        self,
        name: str,
        data: Any,
        labels: Any = None,
        *,
        targets: Any = None,
        weights: Any = None,
        input_names: Sequence[str] | None = None,
        like: str = "",
        on_progress: Callable[[int, int], None] | None = None,
        **options: Unpack[TableOptions],
    ) -> dataset_pb.Dataset:
        """Store rows with what to learn of them as the data set ``name``; a name never moves to other content.

        ``data`` are a path of a file, a frame of any library, an array (rows, width), or what
        `mlpd.client.tables.read_labelled` gave. What is learnt is a column of a table, by ``target`` and the other
        ``options`` of `mlpd.client.tables.TableOptions`; or it is given: ``labels`` (rows,), classes 0, 1, 2, ... or
        their names; or ``targets`` (rows, outputs), numbers, or 0 and 1 for labels that do not exclude each other.
        ``weights`` (rows,) say how much each row counts. An array's columns have the names ``input_names``. Columns and
        classes are read as those of the data set that it is ``like``. A column that is left out because its texts are
        too many is warned of. The same content again is not sent twice. ``on_progress`` is called with bytes sent and
        all bytes.
        """
        schema = schema_of(self.dataset(like)) if like else None
        table = understood(data, labels, targets, weights, input_names, schema, **options)
        for sentence in () if isinstance(data, LabelledTable) else table.warnings:
            warnings.warn(sentence, stacklevel=2)
        tensors = dataset_tensors(table)
        with tempfile.TemporaryDirectory(prefix="mlpd-") as folder:
            path = Path(folder) / "dataset.safetensors"
            sha256, size_bytes = write_dataset(path, tensors, table.metadata())
            header = dataset_pb.UploadDatasetRequest.Header(
                dataset_id=name.removeprefix("datasets/"), sha256=sha256, size_bytes=size_bytes
            )
            chunk_bytes = self.server_info.preferred_chunk_bytes
            return upload(
                self._datasets.UploadDataset, header, path, chunk_bytes, self._patience(), on_progress
            ).dataset

    def dataset(self, name: str) -> dataset_pb.Dataset:
        """Return what is known of a data set."""
        request = dataset_pb.GetDatasetRequest(name=resource_name("datasets", name))
        return self._call(self._datasets.GetDataset, request).dataset

    def model(self, model: str) -> model_pb.ModelVersion:
        """Return what is known of a model version."""
        request = model_pb.GetModelVersionRequest(name=model_name(model))
        return self._call(self._models.GetModelVersion, request).model_version

    @cached_property
    def server_info(self) -> pb.GetServerInfoResponse:
        """The server's version, devices and limits, as they were when first asked for."""
        return self._call(self._trainer.GetServerInfo, pb.GetServerInfoRequest())

    @property
    def _message_bytes(self) -> int:
        return self.server_info.max_message_bytes


def _failure_reason(job: pb.TrainingJob) -> str:
    info = error_details_pb2.ErrorInfo()
    return info.reason if any(detail.Unpack(info) for detail in job.error.details) else ""
