"""Answers mlpd.v1.ModelService."""

import mlpd.v1.model_service_pb2 as pb
from mlpd.server.names import parse_model, parse_series
from mlpd.server.storage import listing
from mlpd.server.storage.store import Store
from mlpd.server.wire.guard import Context
from mlpd.server.wire.messages import model_message
from mlpd.server.wire.paging import number_cursor, page_of, page_size, token_of
from mlpd.v1.model_service_pb2_grpc import ModelServiceServicer

_EVERY_MODEL = ("", "models/-")


class ModelService(ModelServiceServicer):
    """Immutable model versions."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def GetModelVersion(self, request: pb.GetModelVersionRequest, context: Context) -> pb.GetModelVersionResponse:
        """Read one version."""
        record = await self._store.model(*parse_model("name", request.name))
        return pb.GetModelVersionResponse(model_version=model_message(record))

    async def ListModelVersions(
        self, request: pb.ListModelVersionsRequest, context: Context
    ) -> pb.ListModelVersionsResponse:
        """List versions, newest first."""
        model_id = None if request.parent in _EVERY_MODEL else parse_series("parent", request.parent)
        before, size = number_cursor("models", request.page_token), page_size(request.page_size)
        messages, cursor = await self._store.read(
            lambda connection: page_of(
                (
                    (own, model_message(record))
                    for own, record in listing.models(connection, model_id, before, size + 1)
                ),
                size,
            )
        )
        return pb.ListModelVersionsResponse(model_versions=messages, next_page_token=token_of("models", cursor))
