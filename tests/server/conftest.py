"""Raw stubs: what any client in any language sees."""

import hashlib
import uuid
from collections.abc import Callable, Iterator

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from mlpd.v1 import dataset_service_pb2 as dataset_pb
from mlpd.v1 import trainer_service_pb2 as pb
from mlpd.v1 import types_pb2 as types
from mlpd.v1.dataset_service_pb2_grpc import DatasetServiceStub
from mlpd.v1.model_service_pb2_grpc import ModelServiceStub
from mlpd.v1.trainer_service_pb2_grpc import TrainerServiceStub
from safetensors.numpy import save


class Stubs:
    """Every service over one channel."""

    def __init__(self, channel: grpc.Channel):
        self.channel = channel
        self.trainer = TrainerServiceStub(channel)
        self.datasets = DatasetServiceStub(channel)
        self.models = ModelServiceStub(channel)

    def upload(self, name, x, y):
        content = save({"inputs": x, "labels": y})
        return self.datasets.UploadDataset(upload_messages(name, content)).dataset

    def train(self, spec, **fields):
        return self.trainer.Train(pb.TrainRequest(spec=spec, request_id=str(uuid.uuid4()), **fields)).training_job

    def events(self, name, after_sequence=0):
        request = pb.StreamProgressRequest(name=name, after_sequence=after_sequence)
        return [item.event for item in self.trainer.StreamProgress(request) if item.HasField("event")]

    def job(self, name):
        return self.trainer.GetTrainingJob(pb.GetTrainingJobRequest(name=name)).training_job


def upload_messages(name, content, chunk_bytes=65536, **header):
    fields = {"dataset_id": name, "sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)} | header
    yield dataset_pb.UploadDatasetRequest(header=dataset_pb.UploadDatasetRequest.Header(**fields))
    for start in range(0, len(content), chunk_bytes):
        yield dataset_pb.UploadDatasetRequest(chunk=content[start : start + chunk_bytes])


@pytest.fixture
def connect() -> Iterator[Callable[[str], Stubs]]:
    """Open channels that are closed after the test."""
    channels = []

    def open_channel(address: str) -> Stubs:
        channels.append(grpc.insecure_channel(address))
        return Stubs(channels[-1])

    yield open_channel
    for channel in channels:
        channel.close()


@pytest.fixture(scope="session")
def stubs(server, rings) -> Iterator[Stubs]:
    """The shared server, with the data set ``rings``."""
    with grpc.insecure_channel(server.address) as channel:
        stubs = Stubs(channel)
        stubs.upload("rings", *rings)
        yield stubs


@pytest.fixture(scope="session")
def model(stubs) -> str:
    """The version that a short job on ``rings`` published."""
    job = stubs.train(rings_spec(epoch_count=40))
    assert stubs.events(job.name)[-1].state_changed.to_state == pb.TrainingJob.STATE_SUCCEEDED
    version: str = stubs.job(job.name).model_version
    return version


def rings_spec(**fields) -> pb.TrainingSpec:
    """A spec for ``rings``; ``fields`` replace or add to its own."""
    spec = pb.TrainingSpec(
        model=types.ModelSpec(layer_sizes=[2, 32, 3]),
        train_dataset="datasets/rings",
        batch_size=50,
        epoch_count=3,
        optimizer=pb.Optimizer(adam=pb.Optimizer.Adam()),
        schedule=pb.Schedule(learning_rate=0.01),
        seed=1,
    )
    for name in fields:
        spec.ClearField(name)  # type: ignore[arg-type]
    spec.MergeFrom(pb.TrainingSpec(**fields))
    return spec


class Refusal:
    """What a call was refused with."""

    def __init__(self, error: grpc.RpcError):
        self.code = error.code()
        self.message: str = error.details() or ""
        metadata: dict[str, bytes] = dict(error.trailing_metadata())  # type: ignore[arg-type]
        status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
        assert (status.code, status.message) == (self.code.value[0], self.message)
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        assert status.details[0].Unpack(info)
        self.reason, self.metadata = info.reason, dict(info.metadata)
        self.fields = [v.field for d in status.details[1:] if d.Unpack(bad) for v in bad.field_violations]
        assert info.domain == "mlpd.dev"


def refused(call, *args, **kwargs) -> Refusal:
    """Make a call that must fail."""
    with pytest.raises(grpc.RpcError) as caught:
        call(*args, **kwargs)
    return Refusal(caught.value)
