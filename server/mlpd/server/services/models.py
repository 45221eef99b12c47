"""Answers mlpd.v1.ModelService."""

from contextlib import nullcontext, suppress
from functools import partial

import mlpd.v1.model_service_pb2 as pb
from mlpd.server.errors import NotFound
from mlpd.server.labels import LabelChange, check_labels
from mlpd.server.names import parse_model, parse_series, parse_version
from mlpd.server.records import ModelRecord
from mlpd.server.storage import listing
from mlpd.server.storage.housekeeping import Housekeeping
from mlpd.server.storage.labelling import label_version
from mlpd.server.storage.store import Store
from mlpd.server.wire.guard import Context
from mlpd.server.wire.messages import listed, model_message
from mlpd.server.wire.paging import number_cursor, page_of, page_size, token_of
from mlpd.v1.model_service_pb2_grpc import ModelServiceServicer

_EVERY_MODEL = ("", "models/-")


class ModelService(ModelServiceServicer):
    """Model versions."""

    def __init__(self, store: Store, housekeeping: Housekeeping) -> None:
        self._store = store
        self._housekeeping = housekeeping

    async def GetModelVersion(self, request: pb.GetModelVersionRequest, context: Context) -> pb.GetModelVersionResponse:
        """Read one version."""
        record = await self._store.model(*parse_model("name", request.name))
        return pb.GetModelVersionResponse(model_version=model_message(record))

    async def ListModelVersions(
        self, request: pb.ListModelVersionsRequest, context: Context
    ) -> pb.ListModelVersionsResponse:
        """List versions, newest first."""
        model_id = None if request.parent in _EVERY_MODEL else parse_series("parent", request.parent)
        labels = check_labels("labels", request.labels)
        before, size = number_cursor("models", request.page_token), page_size(request.page_size)
        messages, cursor = await self._store.read(
            lambda connection: page_of(
                map(_listed_version, listing.models(connection, model_id, before, size + 1, labels)), size
            )
        )
        return pb.ListModelVersionsResponse(model_versions=messages, next_page_token=token_of("models", cursor))

    async def UpdateModelVersion(
        self, request: pb.UpdateModelVersionRequest, context: Context
    ) -> pb.UpdateModelVersionResponse:
        """Change a version's labels and note."""
        asked = request.model_version
        model_id, version = parse_version("model_version.name", asked.name)
        change = LabelChange("model_version", asked.labels, asked.note, request.update_mask.paths)
        await self._store.write(partial(label_version, model_id=model_id, version=version, change=change))
        record = await self._store.model(model_id, version)
        return pb.UpdateModelVersionResponse(model_version=model_message(record))

    async def DeleteModelVersion(
        self, request: pb.DeleteModelVersionRequest, context: Context
    ) -> pb.DeleteModelVersionResponse:
        """Delete one version."""
        response = pb.DeleteModelVersionResponse()
        with suppress(NotFound) if request.allow_missing else nullcontext():
            _, response.freed_bytes = await self._housekeeping.delete_versions(*parse_version("name", request.name))
        return response

    async def DeleteModel(self, request: pb.DeleteModelRequest, context: Context) -> pb.DeleteModelResponse:
        """Delete all versions of a model."""
        response = pb.DeleteModelResponse()
        with suppress(NotFound) if request.allow_missing else nullcontext():
            deleted = await self._housekeeping.delete_versions(parse_series("name", request.name), None)
            response.version_count, response.freed_bytes = deleted
        return response


def _listed_version(entry: listing.Entry[ModelRecord]) -> tuple[int | str, pb.ModelVersion]:
    return entry.cursor, listed(
        lambda: model_message(entry.read()), lambda error: pb.ModelVersion(name=entry.name, error=error)
    )
