"""How long a job takes to begin: from the answer to Train to its first event and to its first step's report.

Once on a server that has been at rest, once right after the job before has ended.

Usage: python benchmarks/cold_start.py [ROUNDS]
"""

import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from mlpd.client import Client, training_spec
from mlpd.client.embedded import embedded_server
from running import machine, save_records, spread

SPEC = training_spec(
    layer_sizes=[784, 532, 10],
    train_dataset="mnist-train",
    batch_size=128,
    epoch_count=100,
    optimizer="sgd",
    learning_rate=0.03,
    metrics_interval_steps=1,
)

_REST_SECONDS = 4.0  # in which a server has a worker at hand again


def begin(client: Client) -> tuple[float, float]:
    """Return seconds from the answer to Train to the first event, and to the report of the first step."""
    job = client.train(SPEC)
    answered = time.perf_counter()
    first = 0.0
    for event in client.progress(job):
        first = first or time.perf_counter() - answered
        if event.HasField("metrics_recorded"):
            break
    stepped = time.perf_counter() - answered
    client.cancel(job)
    for _ in client.progress(job):
        pass
    return first, stepped


def main() -> None:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    print(machine())
    times: dict[str, list[tuple[float, float]]] = {"after a rest": [], "at once": []}
    with tempfile.TemporaryDirectory() as folder, embedded_server(Path(folder)) as address, Client(address) as client:
        for _ in range(rounds):
            time.sleep(_REST_SECONDS)
            for own in times.values():
                own.append(begin(client))
    records = []
    for when, pairs in times.items():
        for what, seconds in zip(("first event", "first step"), zip(*pairs, strict=True), strict=True):
            print(f"Train answered {when} to {what}: {spread(seconds)}, largest {1000 * max(seconds):.0f} ms")
            fields = {"median_seconds": median(seconds), "minimum_seconds": min(seconds)}
            records.append({"case": f"cold start {when} to {what}", "system": "mlpd", **fields})
    save_records(records)


if __name__ == "__main__":
    main()
