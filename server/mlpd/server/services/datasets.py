"""Answers mlpd.v1.DatasetService."""

from collections.abc import AsyncIterator
from contextlib import nullcontext, suppress

import mlpd.v1.dataset_service_pb2 as pb
from mlpd.server.errors import InvalidRequest, NotFound
from mlpd.server.names import parse_dataset
from mlpd.server.records import DatasetRecord
from mlpd.server.storage import listing
from mlpd.server.storage.datasets import Datasets
from mlpd.server.storage.housekeeping import Housekeeping
from mlpd.server.storage.store import Store
from mlpd.server.wire.guard import Context
from mlpd.server.wire.messages import dataset_message, listed
from mlpd.server.wire.paging import page_of, page_size, text_cursor, token_of
from mlpd.v1.dataset_service_pb2_grpc import DatasetServiceServicer


class DatasetService(DatasetServiceServicer):
    """Labelled data sets, addressed by their content."""

    def __init__(self, store: Store, datasets: Datasets, housekeeping: Housekeeping) -> None:
        self._store = store
        self._datasets = datasets
        self._housekeeping = housekeeping

    async def UploadDataset(
        self, requests: AsyncIterator[pb.UploadDatasetRequest], context: Context
    ) -> pb.UploadDatasetResponse:
        """Store a data set."""
        first = await anext(requests, None)
        if first is None or first.WhichOneof("item") != "header":
            raise InvalidRequest.field("header", "header must be the first message")
        header = first.header
        record, known = await self._datasets.upload(
            header.dataset_id, header.sha256, header.size_bytes, _chunks(requests)
        )
        return pb.UploadDatasetResponse(dataset=dataset_message(record), deduplicated=known)

    async def GetDataset(self, request: pb.GetDatasetRequest, context: Context) -> pb.GetDatasetResponse:
        """Read one data set's metadata."""
        record = await self._store.dataset(parse_dataset("name", request.name))
        return pb.GetDatasetResponse(dataset=dataset_message(record))

    async def ListDatasets(self, request: pb.ListDatasetsRequest, context: Context) -> pb.ListDatasetsResponse:
        """List data sets by name."""
        after, size = text_cursor("datasets", request.page_token), page_size(request.page_size)
        messages, cursor = await self._store.read(
            lambda connection: page_of(map(_listed_dataset, listing.datasets(connection, after, size + 1)), size)
        )
        return pb.ListDatasetsResponse(datasets=messages, next_page_token=token_of("datasets", cursor))

    async def DeleteDataset(self, request: pb.DeleteDatasetRequest, context: Context) -> pb.DeleteDatasetResponse:
        """Delete a data set."""
        response = pb.DeleteDatasetResponse()
        with suppress(NotFound) if request.allow_missing else nullcontext():
            response.freed_bytes = await self._housekeeping.delete_dataset(parse_dataset("name", request.name))
        return response


def _listed_dataset(entry: listing.Entry[DatasetRecord]) -> tuple[int | str, pb.Dataset]:
    return entry.cursor, listed(
        lambda: dataset_message(entry.read()), lambda error: pb.Dataset(name=entry.name, error=error)
    )


async def _chunks(requests: AsyncIterator[pb.UploadDatasetRequest]) -> AsyncIterator[bytes]:
    async for request in requests:
        if request.WhichOneof("item") != "chunk":
            raise InvalidRequest.field("chunk", "chunk must be set in every message after the first")
        yield request.chunk
