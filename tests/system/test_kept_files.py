"""Servers that are killed between a file and its row, on the way in and on the way out: the next start makes both agree."""

import random
import sqlite3
import threading
import uuid
from contextlib import closing, contextmanager, suppress
from typing import Any

import numpy as np
import pytest
from mlpd.client import Client, MlpdError, training_spec

SETTINGS: dict[str, Any] = {
    "layer_sizes": [2, 8, 3],
    "batch_size": 10,
    "optimizer": "sgd",
    "learning_rate": 0.01,
    "seed": 1,
}
ROUNDS = 3


def files(server, folder):
    return {path.name.removesuffix(".safetensors") for path in (server.data_directory / folder).iterdir()}


def column(server, query):
    with closing(sqlite3.connect(server.data_directory / "mlpd.sqlite3")) as connection:
        return {value for (value,) in connection.execute(query)}


def check(server):
    """Hold files and rows against each other; no call may be under way."""
    assert files(server, "datasets") == column(server, "select sha256 from datasets")
    assert files(server, "models") == column(server, "select file_sha256 from models")
    assert files(server, "jobs") <= column(server, "select id from jobs")


@contextmanager
def without_rows(server):
    """Keep the server from writing rows, as another process would that has the database's lock."""
    with closing(sqlite3.connect(server.data_directory / "mlpd.sqlite3", isolation_level=None)) as connection:
        connection.execute("begin immediate")
        yield


def until(condition):
    pause = threading.Event()
    while not condition():
        pause.wait(0.005)


def killed_uploading(server, client, rings):
    """Kill the server when an upload has its file in place and no row; return the thread that calls for it."""
    before = files(server, "datasets")
    with without_rows(server):
        uploading = threading.Thread(target=upload, args=(client, rings))
        uploading.start()
        until(lambda: files(server, "datasets") != before)
        server.kill()
    return uploading


def upload(client, rings):
    with suppress(MlpdError):
        client.upload("rings", *rings)


def test_an_upload_that_dies_between_file_and_row_can_be_made_again(start_server, rings):
    server = start_server()
    before = files(server, "datasets")
    with Client(server.address) as client:
        uploading = killed_uploading(server, client, rings)
        server = start_server(port=server.port)
        uploading.join()
        stored = client.dataset("rings")
        assert files(server, "datasets") == before | {stored.sha256}
        client.delete_dataset("rings")
    check(server)


def test_an_upload_that_dies_for_good_is_swept_away_at_the_next_start(start_server, rings):
    server = start_server()
    before = files(server, "datasets")
    with Client(server.address, timeout_seconds=0.5) as client:
        killed_uploading(server, client, rings).join()
    assert files(server, "datasets") != before
    server = start_server()
    assert files(server, "datasets") == before
    check(server)


def test_a_model_that_is_written_and_not_published_is_published_or_gone(start_server, rings):
    server = start_server("--checkpoint-interval-seconds", "0")
    with Client(server.address) as client:
        client.upload("rings", *rings)
        job = client.train(training_spec(**SETTINGS, train_dataset="rings", epoch_count=200))
        next(client.progress(job))
        with without_rows(server):
            until(lambda: files(server, "models"))
            server.kill()
    server = start_server()
    with Client(server.address) as client:
        assert client.wait(job).model_version
        check(server)
        client.delete_model(job.name.removeprefix("trainingJobs/"))
        client.delete_job(job)
    check(server)
    assert files(server, "models") == set()
    assert files(server, "jobs") == set()


def test_a_server_whose_database_is_missing_removes_nothing(start_server, capfd):
    server = start_server()
    server.kill()
    before = files(server, "datasets")
    for path in server.data_directory.glob("mlpd.sqlite3*"):
        path.rename(path.with_name(f"aside-{path.name}"))
    with pytest.raises(AssertionError, match="ended with status 1"):
        start_server()
    assert "mlpd.sqlite3, which names the files of datasets/ and models/, is missing" in capfd.readouterr().err
    assert files(server, "datasets") == before
    for path in server.data_directory.glob("aside-*"):
        path.rename(path.with_name(path.name.removeprefix("aside-")))
    check(start_server())


@pytest.mark.parametrize("seed", [1])
def test_rows_and_files_agree_after_any_kill(start_server, seed):
    print(f"seed {seed}")
    draw = random.Random(seed)
    server = start_server()
    for _ in range(ROUNDS):
        acknowledged, gone = threading.Semaphore(0), threading.Event()
        users = [threading.Thread(target=use, args=(server.address, draw.random(), acknowledged, gone)) for _ in "abc"]
        for user in users:
            user.start()
        for _ in range(draw.randint(3, 25)):
            assert acknowledged.acquire(timeout=60)
        server.kill()
        gone.set()
        for user in users:
            user.join()
        server = start_server()
        check(server)


def use(address, seed, acknowledged, gone):
    """Upload and delete data sets, some of the same content, until the server is gone."""
    draw = random.Random(seed)
    names: list[str] = []
    with Client(address, timeout_seconds=1) as client:
        while not gone.is_set():
            with suppress(MlpdError):
                if names and draw.random() < 0.5:
                    client.delete_dataset(names.pop(draw.randrange(len(names))))
                else:
                    name = f"d-{uuid.UUID(int=draw.getrandbits(128))}"
                    client.upload(name, np.full((20_000, 2), draw.randrange(5), np.float32), np.arange(20_000) % 2)
                    names.append(name)
                acknowledged.release()
