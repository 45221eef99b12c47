"""A checkpoint that the log names is there until the log names newer ones, whatever happens to the database's disk."""

import sqlite3
import time
from contextlib import closing

from mlpd.client import Client, training_spec

from .processes import named_checkpoints

SECONDS = 60
OFTEN = ("--checkpoint-interval-seconds", "0.05")
LONG = training_spec(
    layer_sizes=[784, 10],
    train_dataset="mnist-test",
    batch_size=10,
    epoch_count=10_000,
    metrics_interval_steps=10**9,
    optimizer="sgd",
    learning_rate=0.01,
)


def wait_until(condition):
    deadline = time.monotonic() + SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


class Checkpoints:
    """What a job has in its folder, and what its status names."""

    def __init__(self, data, job_id):
        self._folder, self._data, self._job_id = data / "jobs" / job_id, data, job_id

    def files(self):
        return {int(path.stem.removeprefix("checkpoint-")) for path in self._folder.glob("checkpoint-*.safetensors")}

    def named(self):
        return set(named_checkpoints(self._data, self._job_id))


def test_what_the_log_names_outlives_a_server_that_could_not_write_it_anew(start_server, tmp_path):
    """A worker that goes on saving while the database is locked must not remove what only the newer log could miss."""
    server = start_server(*OFTEN)
    with Client(server.address) as client:
        client.train(LONG, job_id="long")
    own = Checkpoints(tmp_path / "data", "long")
    first = wait_until(own.named)
    assert len(wait_until(lambda: named if len(named := own.named()) == 2 and not named & first else None)) == 2
    wait_until(lambda: len(own.files()) <= 3)  # older ones are gone: two, and one that may not be in the log yet
    with closing(sqlite3.connect(tmp_path / "data" / "mlpd.sqlite3", isolation_level=None)) as other:
        wait_until(lambda: _locks(other))
        named = own.named()
        wait_until(lambda: len({step for step in own.files() if step > max(named)}) > 1)
        assert named <= own.files()
        server.kill()
    assert named <= own.files()
    with start_server(*OFTEN) as again, Client(again.address) as client:
        starts = (event.attempt_started for event in client.progress("long") if event.HasField("attempt_started"))
        assert [next(starts).resume_step for _ in range(2)] == [0, max(named)]
        client.cancel("long")
        wait_until(lambda: not own.files())


def _locks(connection):
    try:
        connection.execute("begin immediate")
    except sqlite3.OperationalError:
        return False
    return True
