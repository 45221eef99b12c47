"""What training needs of memory: little beside its data, and of these only what is mapped."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from mlpd.client import Client, training_spec

from .processes import children_of, worker_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

LARGEST_BYTES = 350e6
ROWS, INPUTS, ALLOWED_BYTES = 250_000, 1000, 200_000_000  # less than a byte a value
FROM_A_MAP = f"""
import resource, sys
from pathlib import Path
from mlpd.core.devices.arrays import Cpu
from mlpd.core.network.architecture import ModelSpec
from mlpd.core.data.datasets import open_dataset
from mlpd.core.steps.examples import Examples
from mlpd.core.optimization.optimizers import Sgd
from mlpd.core.spec.training import OptimizerSpec, ScheduleSpec, TrainingSpec
from mlpd.core.training.loop import train
from mlpd.core.training.state import TrainingState
data = open_dataset(Path(sys.argv[1]))
model = ModelSpec.plain(({INPUTS}, 16, 3), standardize_inputs=True)
blocks = {{"runner": "compiled", "split": "units", "block_count": 2}}
spec = TrainingSpec(model, "", "", 128, 1, OptimizerSpec(Sgd()), ScheduleSpec(0.1), 0, "cpu", 1000, **blocks)
limit = resource.getrlimit(resource.RLIMIT_DATA)[1]
resource.setrlimit(resource.RLIMIT_DATA, ({ALLOWED_BYTES}, limit))
for _ in train(TrainingState.initial(Cpu(), spec, Examples.of(spec, data, None))):
    pass
print("trained")
data.inputs.astype("uint8")
"""


def peak_bytes(pid):
    """Return the largest resident size that a process has had."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_training_on_mnist_stays_small(start_server, optimizer):
    server = start_server("--threads", "2")
    with Client(server.address) as client:
        spec = training_spec(
            layer_sizes=[784, 532, 10],
            train_dataset="mnist-train",
            batch_size=128,
            epoch_count=1000,
            optimizer=optimizer,
            learning_rate=0.001,
            runner="compiled",
            split="units",
            block_count=2,
            metrics_interval_steps=50,
        )
        job = client.train(spec)
        events = client.progress(job)
        reports = (event for event in events if event.HasField("metrics_recorded"))
        next(reports)
        next(reports)
        worker = worker_of(server)
        peak, children = peak_bytes(worker), children_of(worker)
        client.cancel(job)
    assert children == []
    assert peak < LARGEST_BYTES


def test_a_data_set_larger_than_memory_is_trained_on_from_its_file(tmp_path):
    path = tmp_path / "large.safetensors"
    sizes = {"inputs": ("U8", [ROWS, INPUTS], ROWS * INPUTS), "labels": ("U8", [ROWS], ROWS)}
    header, end = {}, 0
    for name, (dtype, shape, size) in sizes.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)  # a hole: zeros that take no room
    command = [sys.executable, "-c", FROM_A_MAP, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "trained\n", done.stderr
    assert "MemoryError" in done.stderr  # a copy of the data does not fit
