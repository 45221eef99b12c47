"""What a server keeps: listed, labelled and deleted."""

from collections.abc import Iterable, Iterator, Mapping

from google.protobuf.field_mask_pb2 import FieldMask
from mlpd.client.connection import PAGE_SIZE, Connection, job_name
from mlpd.client.errors import InvalidRequest
from mlpd.client.recipes import model_name, resource_name
from mlpd.v1 import dataset_service_pb2 as dataset_pb
from mlpd.v1 import model_service_pb2 as model_pb
from mlpd.v1 import trainer_service_pb2 as pb

STATES = tuple(name.removeprefix("STATE_").lower() for name in pb.TrainingJob.State.keys()[1:])


class Housekeeping(Connection):
    """The part of a client that lists, labels and deletes jobs, data sets and models."""

    def jobs(
        self, *, states: Iterable[str] = (), model: str = "", labels: Mapping[str, str] | None = None
    ) -> Iterator[pb.TrainingJob]:
        """Yield every job, newest first.

        With ``states`` ("failed") only those in one of these, with ``model`` those that publish under it, with
        ``labels`` those that have all of them.
        """
        request = pb.ListTrainingJobsRequest(
            page_size=PAGE_SIZE,
            states=[_state_number(state) for state in states],
            model=resource_name("models", model),
            labels=labels,
        )
        for page in self._pages(self._trainer.ListTrainingJobs, request):
            yield from page.training_jobs

    def update_job(
        self, job: pb.TrainingJob | str, *, labels: Mapping[str, str | None] | None = None, note: str | None = None
    ) -> pb.TrainingJob:
        """Set these labels of a job, or remove those that are None, and its note; return the job as it is then.

        What is not named stays as it is.
        """
        wanted = pb.TrainingJob(name=job_name(job), labels=_present(labels), note=note or "")
        request = pb.UpdateTrainingJobRequest(training_job=wanted, update_mask=_mask(labels, note))
        return self._call(self._trainer.UpdateTrainingJob, request).training_job

    def delete_job(self, job: pb.TrainingJob | str) -> int:
        """Delete a job that has ended, with its events and checkpoints; return how many bytes were freed.

        The model version that it published stays.
        """
        request = pb.DeleteTrainingJobRequest(name=job_name(job))
        return self._delete(self._trainer.DeleteTrainingJob, request).freed_bytes

    def datasets(self) -> Iterator[dataset_pb.Dataset]:
        """Yield every data set, by name."""
        for page in self._pages(self._datasets.ListDatasets, dataset_pb.ListDatasetsRequest(page_size=PAGE_SIZE)):
            yield from page.datasets

    def delete_dataset(self, name: str) -> int:
        """Delete a data set that no job needs; return how many bytes were freed, 0 where another name has its content.

        Its name can be given to the same content again, and to no other.
        """
        request = dataset_pb.DeleteDatasetRequest(name=resource_name("datasets", name))
        return self._delete(self._datasets.DeleteDataset, request).freed_bytes

    def models(self, model: str = "", *, labels: Mapping[str, str] | None = None) -> Iterator[model_pb.ModelVersion]:
        """Yield every version of a model, or of all, newest first; with ``labels`` those that have all of them."""
        parent = resource_name("models", model)
        request = model_pb.ListModelVersionsRequest(parent=parent, page_size=PAGE_SIZE, labels=labels)
        for page in self._pages(self._models.ListModelVersions, request):
            yield from page.model_versions

    def update_version(
        self, version: str, *, labels: Mapping[str, str | None] | None = None, note: str | None = None
    ) -> model_pb.ModelVersion:
        """Change labels and note of a version, "digits/3", as `update_job` does; return the version as it is then."""
        wanted = model_pb.ModelVersion(name=model_name(version), labels=_present(labels), note=note or "")
        request = model_pb.UpdateModelVersionRequest(model_version=wanted, update_mask=_mask(labels, note))
        return self._call(self._models.UpdateModelVersion, request).model_version

    def delete_version(self, version: str) -> int:
        """Delete a version, "digits/3", that no job goes on from; return how many bytes were freed.

        Its number is not given to another.
        """
        request = model_pb.DeleteModelVersionRequest(name=model_name(version))
        return self._delete(self._models.DeleteModelVersion, request).freed_bytes

    def delete_model(self, model: str) -> model_pb.DeleteModelResponse:
        """Delete all versions of a model, or none where a job goes on from one; return how many, and bytes freed."""
        request = model_pb.DeleteModelRequest(name=resource_name("models", model))
        return self._delete(self._models.DeleteModel, request)


def _present(labels: Mapping[str, str | None] | None) -> dict[str, str]:
    return {key: value for key, value in (labels or {}).items() if value is not None}


def _mask(labels: Mapping[str, str | None] | None, note: str | None) -> FieldMask:
    return FieldMask(paths=[*(f"labels.{key}" for key in labels or {}), *(["note"] if note is not None else [])])


def _state_number(state: str) -> pb.TrainingJob.State.ValueType:
    if state not in STATES:
        raise InvalidRequest(f"states must be of {', '.join(STATES)}, got {state}")
    return pb.TrainingJob.State.Value(f"STATE_{state.upper()}")
