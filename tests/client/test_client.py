"""The Python client against a real server."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
from mlpd.client import (
    AlreadyExists,
    Client,
    InvalidRequest,
    JobCancelled,
    JobFailed,
    MlpdError,
    NotFound,
    PreconditionFailed,
    training_spec,
)
from mlpd.client.arrays import split
from sklearn.datasets import load_digits

from ..conftest import ENVIRONMENT

RINGS: dict[str, Any] = {
    "layer_sizes": [2, 32, 3],
    "train_dataset": "rings",
    "batch_size": 50,
    "epoch_count": 30,
    "optimizer": "adam",
    "learning_rate": 0.01,
    "seed": 1,
}


@pytest.fixture(scope="module")
def client(server, rings):
    with Client(server.address) as client:
        client.upload("rings", *rings)
        yield client


@pytest.fixture(scope="module")
def model(client):
    return client.wait(client.train(training_spec(**RINGS), model_id="rings-model")).model_version


def test_images_are_flattened(client):
    digits = load_digits()
    client.upload("digits-images", digits.images, digits.target)
    assert client.dataset("digits-images").input_size == 64
    spec = training_spec(
        layer_sizes=[64, 32, 10], train_dataset="digits-images", batch_size=32, epoch_count=2,
        optimizer="adam", learning_rate=0.003, input_scale=1 / 16, seed=0,
    )  # fmt: skip
    model = client.wait(client.train(spec)).model_version
    images, rows = client.predict(model, digits.images[:9]), client.predict(model, digits.data[:9])
    assert np.array_equal(images.logits, rows.logits)
    assert np.array_equal(rows.classes, rows.probabilities.argmax(axis=1))


def test_progress_is_numbered_and_ends(client):
    job = client.train(training_spec(**RINGS))
    events = list(client.progress(job))
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert [event.sequence for event in client.progress(job.name, after_sequence=5)] == list(range(6, len(events) + 1))


def test_waiting_for_a_cancelled_job_says_so(client):
    job = client.train(training_spec(**RINGS | {"epoch_count": 100_000, "batch_size": 1}))
    client.cancel(job)
    with pytest.raises(JobCancelled) as caught:
        client.wait(job)
    assert caught.value.job.name == job.name


def test_waiting_for_a_failed_job_says_why(client):
    spec = training_spec(**RINGS | {"optimizer": "sgd", "learning_rate": 1e9})
    with pytest.raises(JobFailed, match="try a smaller learning rate") as caught:
        client.wait(client.train(spec))
    assert caught.value.reason == "DIVERGED"


def test_the_same_request_id_gives_the_same_job(client):
    request_id = "123e4567-e89b-12d3-a456-426614174001"
    first, second = (client.train(training_spec(**RINGS), request_id=request_id) for _ in range(2))
    assert first.name == second.name
    client.wait(first)
    with pytest.raises(AlreadyExists) as caught:
        client.train(training_spec(**RINGS | {"seed": 2}), request_id=request_id)
    assert caught.value.metadata["training_job"] == first.name


def test_errors_keep_reason_fields_and_cause(client):
    with pytest.raises(InvalidRequest, match="batch_size must be between 1 and 600, got 0") as caught:
        client.train(training_spec(**RINGS | {"batch_size": 0}))
    assert list(caught.value.fields) == ["batch_size"]
    assert isinstance(caught.value.__cause__, grpc.RpcError)
    with pytest.raises(NotFound):
        client.job("no")
    with pytest.raises(PreconditionFailed, match="CUDA"):
        client.train(training_spec(**RINGS, device="cuda"))


@pytest.mark.parametrize(
    "dtype", ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", ">f4", "f2", "f4", "f8"]
)
def test_rows_of_every_type_get_the_same_answer(client, model, dtype):
    rows = np.array([[0, 1], [1, 1], [1, 0]])
    assert np.array_equal(client.predict(model, rows.astype(dtype)).logits, client.predict(model, rows).logits)


def test_rows_need_not_be_contiguous(client, model, rings):
    rows = np.asfortranarray(rings[0])[::3]
    assert np.array_equal(client.predict(model, rows).logits, client.predict(model, rows.copy(order="C")).logits)


@pytest.mark.parametrize(
    "rows",
    [
        np.ones(2),
        np.ones((1, 2), complex),
        np.array([["a", "b"]]),
        np.array([[None, 1]]),
        np.ones((1, 3)),
        np.full((1, 2), np.nan),
        np.ones((1, 2), np.uint64),
        [[0.0, 1.0], [0.0]],
    ],
)
def test_rows_that_do_not_fit_are_refused(client, model, rows):
    with pytest.raises(InvalidRequest, match="inputs"):
        client.predict(model, rows)


@pytest.mark.parametrize(
    "labels",
    [
        [0.5] * 600,
        [-1] * 600,
        [0] * 599,
        [np.nan] * 600,
        [*["a"] * 599, None],
        ["a"] * 599,
        [65536] * 600,
        [1e30] * 600,
        np.full(600, 2**63 + 1, np.uint64),
        np.full(600, np.inf, np.float16),
        [[0], [1, 2]],
    ],
)
def test_labels_that_do_not_fit_are_refused_before_anything_is_sent(client, rings, labels):
    with pytest.raises(InvalidRequest, match="labels"):
        client.upload("never", rings[0], labels)


def test_rows_that_are_not_finite_are_refused_before_anything_is_sent(client, rings):
    rows = rings[0].copy()
    rows[7, 1] = np.inf
    with pytest.raises(InvalidRequest, match="inputs must be finite as float32, got inf at row 7, column 1"):
        client.upload("never", rows, rings[1])


def test_large_requests_are_split_to_fit_the_server(start_server, rings):
    server = start_server("--max-message-bytes", "65536")
    with Client(server.address) as client:
        client.upload("rings", *rings)
        model = client.wait(client.train(training_spec(**RINGS))).model_version
        rows, labels = np.tile(rings[0], (50, 1)), np.tile(rings[1], 50)
        prediction = client.predict(model, rows)
        assert prediction.logits.shape == (30_000, 3)
        np.testing.assert_allclose(prediction.logits[-600:], prediction.logits[:600], rtol=1e-4, atol=1e-5)
        evaluation = client.evaluate(model, (rows, labels))
        stored = client.evaluate(model, "rings")
        assert (evaluation.row_count, stored.row_count) == (30_000, 600)
        assert evaluation.accuracy == stored.accuracy
        assert evaluation.loss == pytest.approx(stored.loss)


def test_parts_cover_every_row_once():
    rows = np.empty((1000, 3), np.float32)
    parts = list(split(rows, 8192))
    assert len(parts) > 1
    assert np.array_equal(np.concatenate([np.arange(1000)[part] for part in parts]), np.arange(1000))


def test_short_names_stand_for_full_ones(client, model):
    assert model == "models/rings-model/versions/1"
    for name in ("rings-model", "rings-model/1", "models/rings-model", model):
        assert client.model(name).name == model
    assert client.dataset("datasets/rings") == client.dataset("rings")
    assert model in {version.name for version in client.models()}
    assert {version.name for version in client.models("rings-model")} == {model}
    assert "datasets/mnist-test" in {dataset.name for dataset in client.datasets()}
    assert client.model(model).training_job in {job.name for job in client.jobs()}


def test_the_resolved_spec_can_be_asked_for(client):
    before = len(list(client.jobs()))
    assert client.resolve(training_spec(**RINGS)).train_sha256 == client.dataset("rings").sha256
    assert len(list(client.jobs())) == before


def test_a_server_of_another_kind_is_recognised():
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with Client(f"127.0.0.1:{port}") as client, pytest.raises(MlpdError, match=r"does not speak mlpd\.v1"):
        client.job("a")
    server.stop(None).wait()


def test_importing_the_client_imports_nothing_heavy():
    code = "import sys, mlpd.client; print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True
    ).stdout.split()
    for name in ("mlpd.core", "mlpd.server", "sqlalchemy", "cupy", "typer", "rich", "structlog"):
        assert name not in modules
