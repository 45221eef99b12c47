"""A channel to one server, and calls over it that outlive its absences."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

from mlpd.client.calls import DEFAULT_ADDRESS, Patience, call, full_address, open_channel
from mlpd.client.errors import MlpdError, NotFound
from mlpd.client.recipes import resource_name
from mlpd.client.spelling import did_you_mean
from mlpd.v1.dataset_service_pb2 import ListDatasetsRequest
from mlpd.v1.dataset_service_pb2_grpc import DatasetServiceStub
from mlpd.v1.model_service_pb2 import ListModelVersionsRequest
from mlpd.v1.model_service_pb2_grpc import ModelServiceStub
from mlpd.v1.trainer_service_pb2 import TrainingJob
from mlpd.v1.trainer_service_pb2_grpc import TrainerServiceStub

T = TypeVar("T")

PAGE_SIZE = 1000


class Connection:
    """A connection to the server at ``address``, host:port; close it, or use it in a ``with`` block."""

    def __init__(self, address: str = DEFAULT_ADDRESS, *, timeout_seconds: float = 60.0) -> None:
        self.address = full_address(address)
        self._timeout_seconds = timeout_seconds
        self._channel = open_channel(self.address)
        self._trainer = TrainerServiceStub(self._channel)
        self._datasets = DatasetServiceStub(self._channel)
        self._models = ModelServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; jobs go on."""
        self._channel.close()

    def _pages(self, method: Callable[..., T], request: Any) -> Iterator[T]:
        while True:
            page: Any = self._call(method, request)
            yield page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def _call(self, method: Callable[..., T], request: Any) -> T:
        try:
            return call(method, request, self._patience())
        except NotFound as error:
            raise self._with_a_known_name(error) from error.__cause__

    def _with_a_known_name(self, error: NotFound) -> NotFound:
        """Return ``error`` with the name of a data set or model that is most like the one that is not there."""
        dataset, model = (error.metadata.get(kind, "") for kind in ("dataset", "model"))
        hint = ""
        with suppress(MlpdError):  # the name alone would do
            if dataset:
                sets = call(self._datasets.ListDatasets, ListDatasetsRequest(page_size=PAGE_SIZE), self._patience())
                hint = did_you_mean(dataset, [own.name.removeprefix("datasets/") for own in sets.datasets])
            elif model:
                request = ListModelVersionsRequest(page_size=PAGE_SIZE)
                versions = call(self._models.ListModelVersions, request, self._patience()).model_versions
                names = {own.name.split("/")[1] for own in versions} - {model.split("/")[1]}
                hint = did_you_mean(model.split("/")[1], sorted(names))
        return NotFound(f"{error.message}{hint}", error.reason, error.fields, error.metadata)

    def _delete(self, method: Callable[..., T], request: Any) -> T:
        """Return the answer; what is gone at a second attempt counts as deleted by the first, whose answer was lost."""
        patience = self._patience()
        try:
            return call(method, request, patience)
        except NotFound:
            if not patience.has_waited:
                raise
        request.allow_missing = True
        return self._call(method, request)

    def _patience(self) -> Patience:
        return Patience(self.address, self._timeout_seconds)


def job_name(job: TrainingJob | str) -> str:
    """Return the full name of a job."""
    return resource_name("trainingJobs", job) if isinstance(job, str) else job.name
