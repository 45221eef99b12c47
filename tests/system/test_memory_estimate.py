"""The memory that a job is said to need, held to what the kernel says its process had at most."""

import re
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from mlpd.client import Client, training_spec

from .processes import children_of, workers_among

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

INPUTS, LABELS, FEW = 100, 2000, 2000
PLAIN: dict[str, Any] = {
    "train_dataset": "few",
    "batch_size": 500,
    "epoch_count": 2,
    "optimizer": "adam",
    "learning_rate": 1e-4,
    "seed": 0,
    "device": "cpu",
    "runner": "plain",
}
ON_ONE_THREAD: dict[str, dict[str, Any]] = {
    "small": {"layer_sizes": [INPUTS, 16, 3]},
    "many parameters": {
        "layer_sizes": [INPUTS, 3000, 1000, 3],
        "average_decay": 0.9,
        "validation_fraction": 0.2,
        "early_stopping_patience": 5,
    },
    "a large batch": {
        "layer_sizes": [INPUTS, 512, 512, 3],
        "train_dataset": "many",
        "batch_size": 8000,
        "normalization": "batch",
    },
    "float64": {"layer_sizes": [INPUTS, 2000, 3], "data_type": "float64", "standardize": True, "dropout": 0.5},
    "wide targets": {"layer_sizes": [INPUTS, 64, LABELS], "train_dataset": "labels", "validation_fraction": 0.2},
}
COMPILED = {"runner": "compiled"}
ON_TWO_THREADS: dict[str, dict[str, Any]] = {
    "blocks of units": {"layer_sizes": [INPUTS, 1000, 1000, 3], "split": "units", "block_count": 4} | COMPILED,
    "blocks of rows": {"layer_sizes": [INPUTS, 1000, 1000, 3], "split": "rows", "block_count": 8} | COMPILED,
    "many blocks": {"layer_sizes": [INPUTS, 64, 3], "split": "units", "block_count": 32} | COMPILED,
    "all layers": {"layer_sizes": [INPUTS, 512, 512, 3], "normalization": "batch", "dropout": 0.5} | COMPILED,
    "one batch": {"layer_sizes": [INPUTS, 512, 3], "train_dataset": "many", "batch_size": 8000} | COMPILED,
}
SPECS = {1: ON_ONE_THREAD, 2: ON_TWO_THREADS}
# What a process has in any case, but for libraries: mapped files, which don't count here and are part of the estimate.
CONSTANT_BYTES = 95_000_000


class Peak(threading.Thread):
    """Watches the worker that a server at rest has at hand for the next job, by the kernel's own record of peaks."""

    _watched: ClassVar[set[int]] = set()  # workers of jobs before, which may not have ended yet

    def __init__(self, server_pid):
        super().__init__(daemon=True)
        self._ended = threading.Event()
        while not (found := set(workers_among(children_of(server_pid))) - self._watched):
            time.sleep(0.01)
        (self._worker,) = found
        self._watched.add(self._worker)
        self._sizes = [0, 0]

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self.join()

    @property
    def bytes(self):
        """What the worker had at most, but for mapped files."""
        peak, files = self._sizes
        return peak - files

    def run(self):
        while not self._ended.wait(0.01):
            with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                self._sizes = list(map(max, self._sizes, sizes_of(self._worker)))


def sizes_of(pid):
    """Return how much a process has had at most, and what of it are mapped files now."""
    text = Path(f"/proc/{pid}/status").read_text()
    found = {name: 1024 * int(size) for name, size in re.findall(r"(\w+):\s+(\d+) kB", text)}
    return [found.get(name, 0) for name in ("VmHWM", "RssFile")]


@pytest.fixture(scope="module")
def rows():
    seed = 5
    print(f"seed {seed}")
    random = np.random.default_rng(seed)
    return random.normal(size=(8_000, INPUTS)).astype(np.float32), random.integers(0, 3, 8_000)


@pytest.mark.parametrize("thread_count", [1, 2])
def test_a_job_takes_what_it_was_said_to_need_and_not_much_less(start_server, rows, thread_count):
    inputs, labels = rows
    server = start_server("--threads", str(thread_count), "--checkpoint-interval-seconds", "0.05")
    found = {}
    with Client(server.address) as client:
        client.upload("many", inputs, labels)
        client.upload("few", inputs[:FEW], labels[:FEW])
        client.upload("labels", inputs[:FEW], targets=(inputs[:FEW, :1] > np.zeros((1, LABELS))).astype(np.uint8))
        for name, settings in SPECS[thread_count].items():
            with Peak(server.process.pid) as peak:
                job = client.wait(client.train(training_spec(**PLAIN | settings)))
            print(f"{name:25} takes {peak.bytes / 1e6:6.1f} MB, was said to need {job.memory_bytes / 1e6:6.1f}")
            found[name] = (peak.bytes, job.memory_bytes)
    for name, (taken, said) in found.items():
        assert 20e6 < taken < said < 1.5 * taken + CONSTANT_BYTES, name
