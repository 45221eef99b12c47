"""The guard around handlers that misbehave, on a real grpc.aio server."""

import asyncio
import threading

import grpc
import grpc.aio
import pytest
from grpc import StatusCode
from mlpd.server.errors import ResourceExhausted
from mlpd.server.wire.guard import Guard
from mlpd.v1 import trainer_service_pb2 as pb
from mlpd.v1.trainer_service_pb2_grpc import (
    TrainerServiceServicer,
    TrainerServiceStub,
    add_TrainerServiceServicer_to_server,
)

from .conftest import Refusal

GET = "/mlpd.v1.TrainerService/GetTrainingJob"


class Misbehaving(TrainerServiceServicer):
    async def GetTrainingJob(self, request, context):  # noqa: N802
        raise RuntimeError("a secret of the server")

    async def Train(self, request, context):  # noqa: N802
        raise ResourceExhausted("QUEUE_FULL", "the queue is full", limit=3)

    async def StreamProgress(self, request, context):  # noqa: N802
        yield pb.StreamProgressResponse()
        raise RuntimeError("a secret of the server")


def refusal_of(call):
    """Run ``call(channel)`` in a thread against a guarded server, and return what it was refused with."""

    async def serve():
        server = grpc.aio.server(interceptors=(Guard(body_seconds=0.2),))
        add_TrainerServiceServicer_to_server(Misbehaving(), server)  # type: ignore[abstract]
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            return await asyncio.to_thread(attempt, port)
        finally:
            await server.stop(None)

    def attempt(port):
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, pytest.raises(grpc.RpcError) as caught:
            call(channel)
        return Refusal(caught.value)

    return asyncio.run(serve())


def test_a_fault_of_ours_is_told_by_an_opaque_id_alone():
    for call in (
        lambda channel: TrainerServiceStub(channel).GetTrainingJob(pb.GetTrainingJobRequest()),
        lambda channel: list(TrainerServiceStub(channel).StreamProgress(pb.StreamProgressRequest())),
    ):
        refusal = refusal_of(call)
        assert (refusal.code, refusal.reason) == (StatusCode.INTERNAL, "INTERNAL")
        assert "secret" not in refusal.message
        assert refusal.metadata["error_id"] in refusal.message


def test_an_error_keeps_reason_and_metadata():
    refusal = refusal_of(lambda channel: TrainerServiceStub(channel).Train(pb.TrainRequest()))
    assert (refusal.code, refusal.reason, refusal.metadata) == (
        StatusCode.RESOURCE_EXHAUSTED,
        "QUEUE_FULL",
        {"limit": "3"},
    )


@pytest.mark.parametrize("sent", [[], [b""]], ids=["no message", "no end"])
def test_a_body_that_does_not_come_ends_the_call(sent):
    never = threading.Event()

    def stall():
        yield from sent
        never.wait()

    def call(channel):
        try:
            channel.stream_unary(GET)(stall())
        finally:
            never.set()

    refusal = refusal_of(call)
    assert (refusal.code, refusal.reason) == (StatusCode.DEADLINE_EXCEEDED, "BODY_TIMEOUT")
