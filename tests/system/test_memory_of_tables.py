"""The memory that a job on tables is said to need: rows that are encoded, also to be scored, and inputs moved."""

import sys
from typing import Any

import grpc
import numpy as np
import pytest
from mlpd.client import Client, training_spec

from ..server.conftest import Stubs
from ..server.test_tables import columns, upload
from .test_memory_estimate import CONSTANT_BYTES, PLAIN, Peak

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

COLUMNS, CATEGORIES = 10, 60
NAMES = [f"c{place}" for place in range(CATEGORIES)]
TABLE = [{"name": f"k{place}", "kind": "category", "categories": NAMES} for place in range(COLUMNS)]
OTHER_ORDER = [own | {"categories": NAMES[::-1]} for own in reversed(TABLE)]
SPECS: dict[str, dict[str, Any]] = {
    "a table": {"layer_sizes": [0, 16, 3], "train_dataset": "table"},
    "tables to score": {
        "layer_sizes": [0, 16, 3],
        "train_dataset": "table",
        "validation_dataset": "scored",
        "test_dataset": "other-order",
    },
    "columns far from zero": {"layer_sizes": [0, 16, 3], "train_dataset": "far", "standardize": True},
    "without names": {"layer_sizes": [0, 16, 3], "train_dataset": "far-nameless", "standardize": True},
    "columns near zero": {"layer_sizes": [0, 16, 3], "train_dataset": "near", "standardize": True},
    "targets": {
        "layer_sizes": [0, 16, 0],
        "train_dataset": "targets",
        "validation_dataset": "targets-too",
        "standardize_targets": True,
    },
}


def store(stubs):
    """Store tables of whose rows copies are made, and one of whose rows none is."""
    seed = 11
    print(f"seed {seed}")
    random = np.random.default_rng(seed)
    for name, count, table in (
        ("table", 2_000, TABLE),
        ("scored", 20_000, TABLE),
        ("other-order", 15_000, OTHER_ORDER),
    ):
        rows = random.integers(0, CATEGORIES, (count, COLUMNS)).astype(np.float32)
        upload(stubs, name, rows, columns(*table), labels=random.integers(0, 3, count))
    values = random.normal(size=(8_000, 1000))
    numbers = columns(*({"name": f"n{place}", "kind": "number"} for place in range(values.shape[1])))
    for name, move, metadata in (("near", 0, numbers), ("far", 1e8, numbers), ("far-nameless", 1e8, {})):
        upload(stubs, name, values + move, metadata, labels=random.integers(0, 3, len(values)))
    for name, count in (("targets", 4_000), ("targets-too", 6_000)):
        targets = random.normal(size=(count, 1000)).astype(np.float32)
        upload(stubs, name, values[:count, :10].astype(np.float32), {}, targets=targets)


def test_a_job_takes_what_it_was_said_to_need_of_tables_and_not_much_less(start_server):
    server = start_server("--threads", "1", "--checkpoint-interval-seconds", "0.05")
    found = {}
    with grpc.insecure_channel(server.address) as channel, Client(server.address) as client:
        store(Stubs(channel))
        for name, settings in SPECS.items():
            with Peak(server.process.pid) as peak:
                job = client.wait(client.train(training_spec(**PLAIN | settings)))
            print(f"{name:25} takes {peak.bytes / 1e6:6.1f} MB, was said to need {job.memory_bytes / 1e6:6.1f}")
            found[name] = (peak.bytes, job.memory_bytes)
    for name, (taken, said) in found.items():
        assert 20e6 < taken < said < 1.5 * taken + CONSTANT_BYTES, name
