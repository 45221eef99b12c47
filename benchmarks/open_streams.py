"""Unary calls while many progress streams are open on a running job, and with none.

Usage: python benchmarks/open_streams.py [STREAMS]
"""

import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import grpc
from mlpd.client import Client, training_spec
from mlpd.client.embedded import embedded_server
from mlpd.v1 import trainer_service_pb2 as pb
from mlpd.v1.trainer_service_pb2_grpc import TrainerServiceStub
from running import machine, spread

CALLS = 300
STREAMS_PER_CHANNEL = 50


def seconds_of(call: Callable[[], object]) -> list[float]:
    """Return the seconds of each of a row of unary calls."""
    seconds = []
    for _ in range(CALLS):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return seconds


def main() -> None:
    """Measure and print."""
    streams = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    print(machine())
    with embedded_server() as address, Client(address) as client:
        get_dataset = partial(client.dataset, "mnist-train")
        print(f"idle server, no stream:                {spread(seconds_of(get_dataset))}")
        # A job that reports 90 times a second or so, and outlasts the measurement.
        spec = training_spec("default", epoch_count=1000, metrics_interval_steps=5)
        job = client.train(spec)
        get_job = partial(client.job, job)
        next(event for event in client.progress(job) if event.WhichOneof("payload") == "metrics_recorded")
        print(f"job running, no stream:                {spread(seconds_of(get_job))}")
        channels = [
            grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
            for _ in range(-(-streams // STREAMS_PER_CHANNEL))
        ]
        calls = [
            TrainerServiceStub(channels[number % len(channels)]).StreamProgress(pb.StreamProgressRequest(name=job.name))
            for number in range(streams)
        ]
        with ThreadPoolExecutor(streams) as readers:
            firsts = list(readers.map(next, calls))
            counts = [readers.submit(_count, call) for call in calls]
            seconds = seconds_of(get_job)
            client.cancel(job)
            received = [count.result() for count in counts]
        print(f"job running, {len(firsts)} streams open:         {spread(seconds)}")
        print(f"each stream got {min(received) + 1} to {max(received) + 1} events")
        for channel in channels:
            channel.close()


def _count(call: Iterator[pb.StreamProgressResponse]) -> int:
    return sum(item.HasField("event") for item in call)


if __name__ == "__main__":
    main()
