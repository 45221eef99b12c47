"""What a long queue costs: calls beside it, and the time from one job's end to the next one's start.

Usage: python benchmarks/long_queue.py [JOBS]
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from statistics import median
from typing import Any

import grpc
import numpy as np
from mlpd.client import Client, training_spec
from mlpd.client.embedded import embedded_server
from mlpd.v1 import trainer_service_pb2 as pb
from mlpd.v1.trainer_service_pb2_grpc import TrainerServiceStub
from running import machine, save_records, seconds_of, spread

CALLERS = 16
FEW_JOBS = 1000
PAGE_JOBS = 1000
STARTS = 20
SETTINGS: dict[str, Any] = {
    "layer_sizes": [2, 8, 2],
    "train_dataset": "points",
    "batch_size": 10,
    "optimizer": "sgd",
    "learning_rate": 0.1,
}


def queue(client: Client, count: int) -> None:
    """Queue ``count`` jobs, several at a time."""
    spec = training_spec(**SETTINGS, epoch_count=1)
    with ThreadPoolExecutor(CALLERS) as callers:
        for answer in [callers.submit(client.train, spec) for _ in range(count)]:
            answer.result()


def pauses(client: Client, jobs: list[pb.TrainingJob]) -> list[float]:
    """Return the seconds from the end of each of ``jobs`` to the start of the next."""
    for _ in client.progress(jobs[-1]):
        pass
    ended = [client.job(job) for job in jobs]
    starts = [job.start_time.ToNanoseconds() for job in ended[1:]]
    ends = [job.end_time.ToNanoseconds() for job in ended[:-1]]
    return [(start - end) / 1e9 for start, end in zip(starts, ends, strict=True)]


def main() -> None:
    """Measure and print."""
    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else 9950
    print(machine())
    with (
        embedded_server() as address,
        Client(address) as client,
        grpc.insecure_channel(address, [("grpc.max_receive_message_length", -1)]) as channel,
    ):
        trainer = TrainerServiceStub(channel)
        points = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
        client.upload("points", points, (points[:, 0] > 0).astype(np.int64))
        # It outlasts the filling of the queue, and reports little.
        blocking = client.train(
            training_spec(**SETTINGS | {"batch_size": 1}, epoch_count=10**6, metrics_interval_steps=10**6)
        )
        following = [client.train(training_spec(**SETTINGS, epoch_count=1)) for _ in range(STARTS)]
        train = partial(client.train, training_spec(**SETTINGS, epoch_count=1))
        records = []

        def report(case: str, seconds: list[float]) -> None:
            print(f"{case + ':':54}{spread(seconds)}, largest {1000 * max(seconds):.1f} ms")
            fields = {"median_seconds": median(seconds), "largest_seconds": max(seconds)}
            records.append({"case": f"queue: {case}", "system": "mlpd", **fields})

        for waiting in (FEW_JOBS, jobs):
            queue(client, waiting - trainer.GetServerInfo(pb.GetServerInfoRequest()).queued_job_count)
            report(f"Train at {waiting:,} queued", seconds_of(train, 30))
            page = partial(trainer.ListTrainingJobs, pb.ListTrainingJobsRequest(page_size=PAGE_JOBS))
            report(f"ListTrainingJobs({PAGE_JOBS}) at {waiting:,} queued", seconds_of(page, 5))
            info = partial(trainer.GetServerInfo, pb.GetServerInfoRequest())
            report(f"GetServerInfo at {waiting:,} queued", seconds_of(info, 100))
        client.cancel(blocking)
        report(f"end of a job to start of the next at {jobs:,} queued", pauses(client, [blocking, *following]))
    save_records(records)


if __name__ == "__main__":
    main()
