"""The event loop of a server, which is never held up: by a file, by a long spec or by a large answer."""

import asyncio
import hashlib
import sys
import threading
import time
from contextlib import suppress

import grpc
import numpy as np
import pytest
from mlpd.server.daemon import Daemon
from mlpd.server.options import ServerOptions
from mlpd.v1 import dataset_service_pb2 as dataset_pb
from mlpd.v1 import trainer_service_pb2 as pb
from mlpd.v1 import types_pb2 as types
from safetensors.numpy import save

from ..conftest import ENVIRONMENT
from .conftest import Stubs, upload_messages

OF_FILES = {"open", "os.remove", "os.mkdir", "os.rename", "os.rmdir", "os.listdir", "os.scandir", "shutil.rmtree"}
CLASSES = 65_536
# Processor time between two turns: what is left are copies of bytes by gRPC, slow where many processes share memory.
LONGEST_SECONDS = 0.04

_watched: dict[str, object] = {}
_found: list[str] = []


def _audit(event, arguments):
    """Note what the loop's thread does with files of the data directory; the interpreter calls it before each."""
    if event in OF_FILES and _watched.get("thread") == threading.get_ident():
        path = str(arguments[0])
        if path.startswith(str(_watched["root"])):
            _found.append(f"{event} {path}")


sys.addaudithook(_audit)  # there is no way to remove it


class Loop(threading.Thread):
    """A server in a thread of this process, and the most processor time that passed between two turns of its loop."""

    def __init__(self, root):
        super().__init__(daemon=True)
        self._daemon, self._ready = Daemon(ServerOptions(data_directory=root, port=0)), threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.address, self.longest_seconds = "", 0.0

    def run(self):
        with suppress(asyncio.CancelledError):
            asyncio.run(self._serve())

    async def _serve(self):
        self._loop = asyncio.get_running_loop()
        beating = asyncio.create_task(self._beat())
        await self._daemon.run(self._told)
        beating.cancel()

    async def _beat(self):
        while True:
            before = time.thread_time()
            await asyncio.sleep(0)
            self.longest_seconds = max(self.longest_seconds, time.thread_time() - before)

    def _told(self, address):
        self.address = address
        _watched["thread"] = threading.get_ident()
        self._ready.set()

    def __enter__(self):
        self.start()
        assert self._ready.wait(60)
        return self

    def __exit__(self, *_):
        _watched.clear()
        assert self._loop
        self._loop.call_soon_threadsafe(self._daemon.stop)
        self.join()


@pytest.fixture(scope="module")
def loop(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PYTHONPATH", "CUDA_VISIBLE_DEVICES"):
            patch.setenv(name, ENVIRONMENT[name])
        root = tmp_path_factory.mktemp("loop") / "data"
        _watched["root"] = root
        with Loop(root) as running:
            yield running


@pytest.fixture
def stubs(loop):
    _found.clear()
    with grpc.insecure_channel(loop.address, [("grpc.max_receive_message_length", -1)]) as channel:
        yield Stubs(channel)
    print(f"at most {1000 * loop.longest_seconds:.1f} ms between two turns so far")
    assert not _found


def test_files_of_uploads_are_made_and_removed_elsewhere(stubs, rings):
    inputs, labels = rings
    content = save({"inputs": inputs, "labels": labels})
    half = list(upload_messages("cut", content, chunk_bytes=4096))[:3]
    with pytest.raises(grpc.RpcError) as cut:
        stubs.datasets.UploadDataset(iter(half))
    assert cut.value.code() is grpc.StatusCode.DATA_LOSS
    broken = b"x" * 5000
    header = {"sha256": hashlib.sha256(broken).hexdigest(), "size_bytes": len(broken)}
    with pytest.raises(grpc.RpcError):
        stubs.datasets.UploadDataset(upload_messages("broken", broken, **header))
    stubs.upload("rings", *rings)
    stubs.datasets.DeleteDataset(dataset_pb.DeleteDatasetRequest(name="datasets/rings"))


@pytest.fixture(scope="module")
def wide(loop):
    """A job with a spec of half a megabyte, and the model of 65,536 classes that it made."""
    with grpc.insecure_channel(loop.address) as channel:
        stubs = Stubs(channel)
        stubs.upload("wide", np.zeros((2, 2), np.uint8), np.array([0, CLASSES - 1]))
        loop.longest_seconds = 0.0
        _found.clear()
        job = stubs.train(
            pb.TrainingSpec(
                model=types.ModelSpec(layer_sizes=[2, CLASSES]),
                loss=pb.Loss(class_weights=np.linspace(0.5, 1.5, CLASSES).tolist()),
                train_dataset="datasets/wide",
                batch_size=2,
                epoch_count=1,
                optimizer=pb.Optimizer(sgd=pb.Optimizer.Sgd()),
                schedule=pb.Schedule(learning_rate=0.01),
                device=types.DEVICE_CPU,
            )
        )
        assert stubs.events(job.name)[-1].state_changed.to_state == pb.TrainingJob.STATE_SUCCEEDED
        assert not _found
        return stubs.job(job.name)


def test_a_long_spec_is_said_and_sent_to_its_worker_elsewhere(loop, stubs, wide):
    assert len(stubs.job(wide.name).spec.loss.class_weights) == CLASSES
    assert loop.longest_seconds < LONGEST_SECONDS


def test_a_large_answer_is_made_elsewhere(loop, stubs, wide):
    limit = stubs.trainer.GetServerInfo(pb.GetServerInfoRequest()).max_prediction_values
    count = limit // CLASSES
    inputs = types.Tensor(data_type=types.DATA_TYPE_UINT8, shape=[count, 2], data=bytes(2 * count))
    request = pb.PredictRequest(model=wide.model_version, inputs=inputs, outputs=[pb.OUTPUT_KIND_ALL])
    loop.longest_seconds = 0.0
    answer = stubs.trainer.Predict(request)
    assert len(answer.logits.data) == 4 * limit
    assert answer.ByteSize() < 13_000_000
    assert loop.longest_seconds < LONGEST_SECONDS
