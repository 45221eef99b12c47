"""A database that another process holds for long: nothing piles up on the disk, nothing acknowledged is lost."""

import sqlite3
import uuid
from contextlib import closing, contextmanager

import grpc
import numpy as np
import pytest
from mlpd.client import Client
from mlpd.v1 import trainer_service_pb2 as pb
from safetensors.numpy import save

from ..server.conftest import Stubs, rings_spec, upload_messages
from .test_checkpoints import LONG, OFTEN, Checkpoints, wait_until

FILES_LIMIT = 4


@contextmanager
def locked(data):
    """Hold the database's write lock, as ``sqlite3`` with BEGIN IMMEDIATE does."""
    with closing(sqlite3.connect(data / "mlpd.sqlite3", isolation_level=None, timeout=60)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def test_checkpoints_do_not_pile_up_while_the_log_can_t_name_them(start_server, tmp_path):
    server = start_server(*OFTEN)
    own = Checkpoints(tmp_path / "data", "long")
    with Client(server.address) as client:
        client.train(LONG, job_id="long")
        wait_until(lambda: len(own.named()) == 2)
        acknowledged = client.job("long").last_sequence
        with locked(tmp_path / "data"):
            named = own.named()
            wait_until(lambda: len(own.files()) == FILES_LIMIT)
            held = own.files()
            # So long that a dozen more would have been saved: a Train is refused after 5 seconds of waiting.
            with pytest.raises(grpc.RpcError), grpc.insecure_channel(server.address) as channel:
                Stubs(channel).trainer.Train(pb.TrainRequest(spec=rings_spec(), request_id=str(uuid.uuid4())))
            assert own.files() == held
            assert named <= held
        newest = max(held)
        wait_until(lambda: min(own.named()) > newest)
        wait_until(lambda: len(own.files()) < FILES_LIMIT)
        events = client.progress("long")
        assert [next(events).sequence for _ in range(acknowledged)] == list(range(1, acknowledged + 1))
        client.cancel("long")
        wait_until(lambda: not own.files())


def test_what_an_attempt_left_without_a_name_goes_when_the_next_one_starts(start_server, tmp_path):
    server = start_server(*OFTEN)
    own = Checkpoints(tmp_path / "data", "long")
    with Client(server.address) as client:
        client.train(LONG, job_id="long")
    wait_until(lambda: len(own.named()) == 2)
    with locked(tmp_path / "data"):
        wait_until(lambda: len(own.files()) == FILES_LIMIT)
        server.kill()
        left = own.files() - own.named()
    assert left
    with start_server(*OFTEN) as again, Client(again.address) as client:
        wait_until(lambda: not own.files() & left)
        client.cancel("long")
        wait_until(lambda: not own.files())


def test_an_upload_that_is_refused_leaves_no_file_once_the_database_is_free(start_server, rings):
    server = start_server()
    inputs, labels = rings
    content = save({"inputs": inputs + np.float32(1), "labels": labels})
    folder = server.data_directory / "datasets"
    before = set(folder.iterdir())
    with grpc.insecure_channel(server.address) as channel:
        stubs = Stubs(channel)
        with locked(server.data_directory):
            with pytest.raises(grpc.RpcError):
                stubs.datasets.UploadDataset(upload_messages("other", content))
            assert len(set(folder.iterdir()) - before) == 1
        wait_until(lambda: set(folder.iterdir()) == before)
        stubs.upload("rings", *rings)
        assert len(set(folder.iterdir()) - before) == 1
