"""What training through the service costs beside `core` alone in a process: seconds an epoch, in turn, in one run.

Usage: python benchmarks/service_overhead.py [ROUNDS]
"""

import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from statistics import median

from mlpd.client import Client, training_spec
from mlpd.client.embedded import embedded_server
from mlpd.server.jobs.defaults import resolved_spec
from mlpd.v1.trainer_service_pb2 import MetricsRecorded
from running import machine

EPOCHS = 10
SPEC = training_spec(
    layer_sizes=[784, 532, 10],
    train_dataset="mnist-train",
    batch_size=128,
    epoch_count=EPOCHS,
    optimizer="sgd",
    learning_rate=0.03,
    seed=0,
)
ALONE = """
import sys, time
from pathlib import Path
from mlpd.core.training import events
from mlpd.core.training.loop import train
from mlpd.core.training.state import Diverged, TrainingState
from mlpd.core.devices.arrays import Cpu
from mlpd.core.data.datasets import open_dataset
from mlpd.core.steps.examples import Examples
from mlpd.core.spec.training import TrainingSpec
data, spec = open_dataset(Path(sys.argv[1])), TrainingSpec.from_json(sys.argv[2])
state = TrainingState.initial(Cpu(), spec, Examples.of(spec, data, None))
for event in train(state):
    if isinstance(event, events.MetricsRecorded):
        print(time.monotonic(), flush=True)
"""


def alone(dataset: Path, spec: str) -> list[float]:
    """Return seconds of each epoch but the first, by core in a process of its own."""
    command = [sys.executable, "-c", ALONE, str(dataset), spec]
    times = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return [float(later) - float(earlier) for earlier, later in pairwise(times)]


def served(client: Client) -> list[float]:
    """Return seconds of each epoch but the first, as the event log dates them."""
    job = client.train(SPEC)
    times = [
        event.event_time.ToNanoseconds() / 1e9
        for event in client.progress(job)
        if event.WhichOneof("payload") == "metrics_recorded"
        and event.metrics_recorded.split == MetricsRecorded.SPLIT_TRAIN
    ]
    return [later - earlier for earlier, later in pairwise(times)]


def main() -> None:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    print(machine())
    with tempfile.TemporaryDirectory() as folder, embedded_server(Path(folder)) as address, Client(address) as client:
        dataset = Path(folder) / "datasets" / f"{client.dataset('mnist-train').sha256}.safetensors"
        spec = _core_spec(client)
        core_seconds, service_seconds = [], []
        for number in range(rounds):
            core_seconds.append(alone(dataset, spec))
            service_seconds.append(served(client))
            print(
                f"round {number + 1}: "
                f"core {median(core_seconds[-1]):.4f} s, service {median(service_seconds[-1]):.4f} s"
            )
    core, service = ([s for one in runs for s in one] for runs in (core_seconds, service_seconds))
    print(f"784-532-10, batch 128, SGD, {len(core)} epochs each:")
    print(f"  core     median {median(core):.4f} s, minimum {min(core):.4f} s an epoch")
    print(f"  service  median {median(service):.4f} s, minimum {min(service):.4f} s an epoch")
    print(f"  ratio of medians {median(service) / median(core):.3f}, of minima {min(service) / min(core):.3f}")


def _core_spec(client: Client) -> str:
    return resolved_spec(client.resolve(SPEC)).to_json()


if __name__ == "__main__":
    main()
