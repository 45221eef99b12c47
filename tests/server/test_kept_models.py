"""Models in memory: bounded by bytes, loaded once for all who wait, and no one else waits for that."""

import os
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
from grpc import StatusCode
from mlpd.core.devices.arrays import Cpu
from mlpd.core.models.predictor import CompiledPredictor, Predictor
from mlpd.core.network.architecture import ModelSpec, parameter_count
from mlpd.core.optimization.optimizers import Sgd
from mlpd.server.inference.kept_models import bytes_of, capacity_of
from mlpd.server.records import ModelRecord
from mlpd.v1 import model_service_pb2 as model_pb
from mlpd.v1 import trainer_service_pb2 as pb
from mlpd.v1 import types_pb2 as types

from ..conftest import needs_compiler
from ..core.family import model_of
from .conftest import refused, rings_spec

SECONDS = 60


@pytest.fixture
def stubs_of(start_server, connect, rings):
    """Start a server with models of the ids given; return it and its stubs."""

    def start(*model_ids, options=()):
        server = start_server(*options)
        stubs = connect(server.address)
        stubs.upload("rings", *rings)
        for model_id in model_ids:
            job = stubs.train(rings_spec(seed=len(model_id)), model_id=model_id)
            assert stubs.events(job.name)[-1].state_changed.to_state == pb.TrainingJob.STATE_SUCCEEDED
        return server, stubs

    return start


def predict(stubs, model):
    inputs = types.Tensor(data_type=types.DATA_TYPE_FP32, shape=[1, 2], data=bytes(8))
    return stubs.trainer.Predict(pb.PredictRequest(model=model, inputs=inputs), timeout=SECONDS)


def serving_bytes(stubs):
    return stubs.trainer.GetServerInfo(pb.GetServerInfoRequest()).serving_bytes


@contextmanager
def slow(server):
    """Have the file of the server's only model come through a pipe; yield what writes it, and the content."""
    (path,) = (server.data_directory / "models").iterdir()
    content = path.read_bytes()
    path.unlink()
    os.mkfifo(path)
    yield path, content
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def test_one_load_answers_all_who_wait_and_no_other_model_waits(stubs_of):
    server, stubs = stubs_of("slow")
    with slow(server) as (path, content), ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(predict, stubs, "models/slow") for _ in range(8)]
        with path.open("wb", buffering=0) as pipe:  # the server has opened it, and reads
            other = stubs.train(rings_spec(seed=5), model_id="other")
            assert stubs.events(other.name)[-1].state_changed.to_state == pb.TrainingJob.STATE_SUCCEEDED
            assert predict(stubs, "models/other").model == "models/other/versions/1"
            assert not any(one.done() for one in waiting)
            pipe.write(content)
        answers = [one.result(SECONDS) for one in waiting]
    assert {answer.model for answer in answers} == {"models/slow/versions/1"}
    assert len({answer.probabilities.data for answer in answers}) == 1


def test_a_load_that_failed_is_tried_again(stubs_of):
    server, stubs = stubs_of("slow")
    with slow(server) as (path, content), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(refused, predict, stubs, "models/slow")
        path.write_bytes(content[:-1])
        assert waiting.result(SECONDS).code is StatusCode.DATA_LOSS
        assert serving_bytes(stubs) == 0
    assert predict(stubs, "models/slow").model == "models/slow/versions/1"
    assert serving_bytes(stubs) > 0


def test_a_model_that_is_deleted_while_it_loads_is_not_kept(stubs_of):
    server, stubs = stubs_of("slow")
    request = model_pb.DeleteModelVersionRequest(name="models/slow/versions/1")
    with slow(server) as (path, content), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(predict, stubs, "models/slow")
        with path.open("wb", buffering=0) as pipe:
            stubs.models.DeleteModelVersion(request)
            assert refused(predict, stubs, "models/slow").code is StatusCode.NOT_FOUND
            pipe.write(content)
        assert waiting.result(SECONDS).model == "models/slow/versions/1"  # it was asked before
        assert serving_bytes(stubs) == 0


def test_models_are_kept_by_their_bytes_and_the_newest_in_any_case(stubs_of):
    _, stubs = stubs_of("a", "bb", options=("--max-serving-bytes", "1"))
    predict(stubs, "models/a")
    one = serving_bytes(stubs)
    predict(stubs, "models/bb")
    assert serving_bytes(stubs) == one > 1
    stubs.models.DeleteModel(model_pb.DeleteModelRequest(name="models/bb"))
    assert serving_bytes(stubs) == 0


SPECS = {
    "small": ModelSpec.plain((4, 6, 3)),
    "wide": ModelSpec.plain((3000, 16, 3)),
    "deep": ModelSpec.plain((64, *[1024] * 6, 10)),
    "many outputs": ModelSpec.plain((4, 16, 5000)),
    "float64": ModelSpec.plain((500, 800, 10), dtype="float64"),
}


@needs_compiler
@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("compiled", [False, True])
def test_a_model_takes_no_more_than_is_counted(tmp_path, name, compiled):
    spec = SPECS[name]
    record = ModelRecord(
        *("m", 1, "", "", "j", spec, "multiclass", "softmax_cross_entropy", Sgd(), parameter_count(spec.layers())),
        *(spec.layer_sizes[0], 1),
    )
    rows = np.ones((capacity_of(record), spec.layer_sizes[0]), np.float32)

    def opened():
        model = model_of(spec)
        if compiled:
            return CompiledPredictor(model, capacity_of(record), kernels=tmp_path / "kernels")
        return Predictor(Cpu(), model, capacity_of(record))

    opened().predict(rows)  # what is compiled and imported once is not counted
    tracemalloc.start()
    try:
        predictor = opened()
        for size in (1, 20, len(rows)):
            predictor.outputs(rows[:size])
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    print(f"{name:15} takes {taken / 1e6:7.2f} MB, counted {bytes_of(record, 1) / 1e6:7.2f}")
    assert taken < bytes_of(record, 1) + 1_000_000
    if compiled:  # NumPy's own buffers are fewer
        assert bytes_of(record, 1) < 2.5 * taken + 1_000_000
