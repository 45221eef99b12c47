"""The memory that a job is said to need, held to what the kernel says its processes had at most."""

import re
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlpd.client import Client, training_spec

from .processes import children_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

INPUTS, LABELS = 100, 2000
PLAIN: dict[str, Any] = {
    "train_dataset": "classes",
    "batch_size": 500,
    "epoch_count": 2,
    "optimizer": "adam",
    "learning_rate": 1e-4,
    "seed": 0,
    "device": "cpu",
    "shard_count": 1,
    "blas": "default",
}
SPECS: dict[str, dict[str, Any]] = {
    "small": {"layer_sizes": [INPUTS, 16, 3]},
    "many parameters": {
        "layer_sizes": [INPUTS, 3000, 1000, 3],
        "average_decay": 0.9,
        "validation_fraction": 0.2,
        "early_stopping_patience": 5,
    },
    "two processes": {"layer_sizes": [INPUTS, 1000, 1000, 3], "shard_count": 2},
    "more shards than threads": {"layer_sizes": [INPUTS, 64, 3], "shard_count": 32},
    "a large batch": {"layer_sizes": [INPUTS, 512, 512, 3], "batch_size": 8000, "normalization": "batch"},
    "float64": {"layer_sizes": [INPUTS, 2000, 3], "data_type": "float64", "standardize": True, "dropout": 0.5},
    "wide targets": {"layer_sizes": [INPUTS, 64, LABELS], "train_dataset": "labels", "validation_fraction": 0.2},
}
# What a process has in any case, but for libraries: mapped files, which don't count here and are part of the estimate.
CONSTANT_BYTES = 90_000_000


class Peak(threading.Thread):
    """Watches the workers of a server, each with the processes that help it; in all what they had at most."""

    def __init__(self, server_pid):
        super().__init__(daemon=True)
        self._server_pid, self.bytes, self.process_count = server_pid, 0, 0
        self._ended = threading.Event()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self.join()

    def run(self):
        while not self._ended.wait(0.01):
            for worker in children_of(self._server_pid):
                try:
                    own = [worker, *children_of(worker)] if "mlpd.server.worker" in words(worker, "cmdline") else []
                    sizes = [peak_and_shared(pid) for pid in own]
                except (FileNotFoundError, ProcessLookupError):  # one has just ended
                    continue
                self.bytes = max(self.bytes, sum(peak for peak, _ in sizes) - sum(shared for _, shared in sizes[1:]))
                self.process_count = max(self.process_count, len(own))


def words(pid, name):
    return Path(f"/proc/{pid}/{name}").read_text()


def peak_and_shared(pid):
    """Return what a process had at most without mapped files, and what it shares with others of that."""
    found = {name: 1024 * int(size) for name, size in re.findall(r"(\w+):\s+(\d+) kB", words(pid, "status"))}
    if "VmHWM" not in found:  # it has ended, but nobody has looked yet
        return 0, 0
    return found["VmHWM"] - found["RssFile"], found["RssShmem"]


@pytest.fixture(scope="module")
def rows():
    seed = 5
    print(f"seed {seed}")
    random = np.random.default_rng(seed)
    return random.normal(size=(10_000, INPUTS)).astype(np.float32), random.integers(0, 3, 10_000)


def test_a_job_takes_what_it_was_said_to_need_and_not_much_less(start_server, rows):
    inputs, labels = rows
    server = start_server("--threads", "2", "--checkpoint-interval-seconds", "0.05")
    found = {}
    with Client(server.address) as client:
        client.upload("classes", inputs, labels)
        client.upload("labels", inputs[:LABELS], targets=(inputs[:LABELS, :1] > np.zeros((1, LABELS))).astype(np.uint8))
        for name, settings in SPECS.items():
            with Peak(server.process.pid) as peak:
                job = client.wait(client.train(training_spec(**PLAIN | settings)))
            found[name] = (peak.bytes, job.memory_bytes, peak.process_count)
    for name, (taken, said, _) in found.items():
        print(f"{name:25} takes {taken / 1e6:6.1f} MB, was said to need {said / 1e6:6.1f}")
    for name, (taken, said, _) in found.items():
        assert 20e6 < taken < said < 1.5 * taken + CONSTANT_BYTES, name
    assert found["more shards than threads"][2] == 1
    assert found["two processes"][2] in (1, 2)  # on a busy machine it may be over before the other has come
