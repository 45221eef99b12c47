"""How a run's steps are run: chosen by its network and by what the server has, and a part of its spec from then on."""

import os
from dataclasses import replace
from typing import Any

import pytest
from google.rpc import error_details_pb2
from grpc import StatusCode
from mlpd.core.network.architecture import ModelSpec
from mlpd.core.spec.split import best_blocks
from mlpd.v1 import trainer_service_pb2 as pb
from mlpd.v1 import types_pb2 as types

from ..conftest import ENVIRONMENT
from .conftest import refused, rings_spec
from .test_lifecycle import SPEC

# Is read by every Python that starts with it in its path, the server's workers too.
WITHOUT_LLVMLITE = """
import sys
from importlib.machinery import PathFinder

class WithoutLlvmlite(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name == "llvmlite" else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = WithoutLlvmlite
"""
ENDLESS = 100_000  # epochs that no test waits for
COMPILED: Any = {"runner": "compiled", "split": "units", "block_count": 2}


def mnist_spec(*sizes, normalization="none", **fields):
    model = types.ModelSpec(layer_sizes=sizes, normalization=normalization)
    return rings_spec(model=model, train_dataset="datasets/mnist-train", **fields)


def chosen(stubs, spec):
    """Return what the server makes of a spec's runner, split and number of blocks."""
    resolved = stubs.trainer.Train(pb.TrainRequest(spec=spec, validate_only=True)).training_job.spec
    return resolved.runner, resolved.split, resolved.block_count


def ended(stubs, job):
    """Return how a job ended, and the job as it is then."""
    return stubs.events(job.name)[-1].state_changed, stubs.job(job.name)


def reason_of(status):
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return info.reason


@pytest.fixture
def without_llvmlite(tmp_path):
    """The environment of a server that finds no llvmlite, whatever is installed."""
    folder = tmp_path / "without-llvmlite"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(WITHOUT_LLVMLITE)
    return ENVIRONMENT | {"PYTHONPATH": f"{ENVIRONMENT['PYTHONPATH']}{os.pathsep}{folder}"}


@pytest.mark.parametrize("sizes", [(784, 532, 10), (784, 16, 10), (784, 10), (784, 1000, 500, 10)])
@pytest.mark.parametrize("batch_size", [1, 128, 60_000])
def test_a_run_is_compiled_in_as_many_blocks_as_pay_for_its_network(stubs, sizes, batch_size):
    spec = replace(SPEC, model=ModelSpec.plain(sizes), batch_size=batch_size, runner="compiled")
    assert chosen(stubs, mnist_spec(*sizes, batch_size=batch_size)) == ("compiled", *best_blocks(spec))


@pytest.mark.parametrize(
    ("asked", "resolved"),
    [
        ({"runner": "plain"}, ("plain", "units", 1)),
        ({"runner": "compiled"}, ("compiled", "units", 4)),
        ({"split": "units"}, ("compiled", "units", 4)),
        ({"split": "rows"}, ("compiled", "rows", 4)),
        ({"block_count": 3}, ("compiled", "units", 3)),
        ({"split": "rows", "block_count": 64}, ("compiled", "rows", 64)),
        ({"split": "units", "block_count": 1}, ("compiled", "units", 1)),
    ],
)
def test_what_is_asked_for_stays_and_the_rest_is_filled_in(stubs, asked, resolved):
    assert chosen(stubs, mnist_spec(784, 532, 10, batch_size=128, **asked)) == resolved


def test_what_can_not_be_cut_is_one_block(stubs):
    assert chosen(stubs, mnist_spec(784, 10, split="units")) == ("compiled", "units", 1)
    for normalization, whole, cut in (("layer", "units", "rows"), ("batch", "rows", "units")):
        spec = mnist_spec(784, 532, 10, batch_size=128, normalization=normalization)
        assert chosen(stubs, spec) == ("compiled", cut, 4)
        spec.split = whole
        assert chosen(stubs, spec) == ("compiled", whole, 1)


@pytest.mark.parametrize(
    ("asked", "field", "rule"),
    [
        ({"runner": "fast"}, "runner", "must be one of plain, compiled, got fast"),
        ({"split": "columns"}, "split", "must be one of units, rows, got columns"),
        ({"split": "units", "block_count": 0}, "block_count", "must be between 1 and 32, as many blocks of units as"),
        ({"split": "units", "block_count": 33}, "block_count", "this run can be cut into, got 33"),
        ({"split": "rows", "block_count": 51}, "block_count", "must be between 1 and 50, as many blocks of rows as"),
        ({"block_count": -1}, "block_count", "got -1"),
        ({"runner": "plain", "block_count": 2}, "block_count", "must be between 1 and 1, for blocks of units take the"),
    ],
)
def test_a_choice_that_breaks_a_rule_is_named(stubs, asked, field, rule):
    refusal = refused(stubs.trainer.Train, pb.TrainRequest(spec=rings_spec(**asked)))
    assert (refusal.code, refusal.fields) == (StatusCode.INVALID_ARGUMENT, [f"spec.{field}"])
    assert f"spec.{field} must" in refusal.message
    assert rule in refusal.message


@pytest.mark.parametrize("asked", [{"runner": "plain"}, COMPILED, COMPILED | {"split": "rows"}])
def test_every_runner_learns_and_is_named_in_the_environment(stubs, asked):
    change, job = ended(stubs, stubs.train(rings_spec(epoch_count=40, **asked)))
    assert change.to_state == pb.TrainingJob.STATE_SUCCEEDED, change.error
    assert all(getattr(job.spec, name) == value for name, value in asked.items())
    assert ("compiled" in job.environment) == (asked["runner"] == "compiled")
    answer = stubs.trainer.Evaluate(pb.EvaluateRequest(model=job.model_version, dataset="datasets/rings"))
    assert answer.correct_count >= 570


def test_a_compiled_run_is_cancelled_before_its_next_report(stubs):
    """That would come after 60,000 steps, which take it minutes."""
    job = stubs.train(mnist_spec(784, 1000, 1000, 10, batch_size=1, epoch_count=ENDLESS, **COMPILED))
    follow = stubs.trainer.StreamProgress(pb.StreamProgressRequest(name=job.name))
    next(item for item in follow if item.event.HasField("attempt_started"))
    stubs.trainer.CancelTrainingJob(pb.CancelTrainingJobRequest(name=job.name))
    rest = [item.event for item in follow if item.HasField("event")]
    assert rest[-1].state_changed.to_state == pb.TrainingJob.STATE_CANCELLED
    assert not any(event.HasField("metrics_recorded") for event in rest)


def test_a_server_without_llvmlite_trains_plainly_and_refuses_what_it_can_not_do(
    start_server, connect, rings, without_llvmlite
):
    server = start_server()
    before = connect(server.address)
    before.upload("rings", *rings)
    begun = before.train(rings_spec(epoch_count=ENDLESS, **COMPILED))
    follow = before.trainer.StreamProgress(pb.StreamProgressRequest(name=begun.name))
    next(item for item in follow if item.event.HasField("metrics_recorded"))
    server.kill()

    stubs = connect(start_server(environment=without_llvmlite).address)
    change, _ = ended(stubs, begun)
    assert (change.to_state, reason_of(change.error)) == (pb.TrainingJob.STATE_FAILED, "RUNNER_UNAVAILABLE")
    assert change.error.message.startswith("runner compiled can't be used: llvmlite")

    refusal = refused(stubs.trainer.Train, pb.TrainRequest(spec=rings_spec(runner="compiled")))
    assert (refusal.code, refusal.reason) == (StatusCode.FAILED_PRECONDITION, "RUNNER_UNAVAILABLE")
    assert "spec.runner must be a runner that this server has: llvmlite" in refusal.message

    change, job = ended(stubs, stubs.train(rings_spec()))
    assert change.to_state == pb.TrainingJob.STATE_SUCCEEDED, change.error
    assert (job.spec.runner, job.spec.split, job.spec.block_count) == ("plain", "units", 1)
