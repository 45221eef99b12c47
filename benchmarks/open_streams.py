"""Unary calls while many progress streams are open: read to the end on a running job, or not read at all on a long log.

Usage: python benchmarks/open_streams.py [STREAMS] [SILENT_STREAMS]
"""

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import grpc
import numpy as np
from mlpd.client import Client, training_spec
from mlpd.client.embedded import embedded_server
from mlpd.v1 import trainer_service_pb2 as pb
from mlpd.v1.trainer_service_pb2_grpc import TrainerServiceStub
from running import machine, seconds_of, spread

CALLS = 300
STREAMS_PER_CHANNEL = 50


def main() -> None:
    """Measure and print."""
    streams, silent_streams = (int(sys.argv[i]) if len(sys.argv) > i else usual for i, usual in ((1, 200), (2, 1000)))
    print(machine())
    with embedded_server() as address, Client(address) as client:
        get_dataset = partial(client.dataset, "mnist-train")
        print(f"idle server, no stream:                {spread(seconds_of(get_dataset, CALLS))}")
        # A job that reports 90 times a second or so, and outlasts the measurement.
        spec = training_spec("default", epoch_count=1000, metrics_interval_steps=5)
        job = client.train(spec)
        get_job = partial(client.job, job)
        next(event for event in client.progress(job) if event.WhichOneof("payload") == "metrics_recorded")
        print(f"job running, no stream:                {spread(seconds_of(get_job, CALLS))}")
        channels = channels_for(address, streams)
        calls = streams_on(channels, job.name, streams)
        with ThreadPoolExecutor(streams) as readers:
            firsts = list(readers.map(next, calls))
            counts = [readers.submit(_count, call) for call in calls]
            seconds = seconds_of(get_job, CALLS)
            client.cancel(job)
            received = [count.result() for count in counts]
        print(f"job running, {len(firsts)} streams open:         {spread(seconds)}")
        print(f"each stream got {min(received) + 1} to {max(received) + 1} events")
        for channel in channels:
            channel.close()
        measure_silent(address, client, silent_streams)


def channels_for(address: str, streams: int) -> list[grpc.Channel]:
    """Return connections for so many streams."""
    return [
        grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
        for _ in range(-(-streams // STREAMS_PER_CHANNEL))
    ]


def streams_on(channels: list[grpc.Channel], job: str, streams: int) -> list[Iterator[pb.StreamProgressResponse]]:
    """Open streams on the log of a job, from its beginning."""
    request = pb.StreamProgressRequest(name=job)
    return [TrainerServiceStub(channels[i % len(channels)]).StreamProgress(request) for i in range(streams)]


def measure_silent(address: str, client: Client, streams: int) -> None:
    """Open streams that nobody reads on a log of some thousand events, and measure from then on."""
    rows = np.arange(1200.0, dtype=np.float32).reshape(600, 2) / 1200
    client.upload("points", rows, np.arange(600) % 2)
    spec = training_spec(
        train_dataset="points", layer_sizes=[2, 2], batch_size=1, epoch_count=20, metrics_interval_steps=1,
        optimizer="sgd", learning_rate=0.01,
    )  # fmt: skip
    job = client.wait(client.train(spec))
    get_info = partial(TrainerServiceStub(channels_for(address, 1)[0]).GetServerInfo, pb.GetServerInfoRequest())
    print(f"a log of {job.last_sequence} events, no stream:    {spread(seconds_of(get_info, CALLS))}")
    before = resident_bytes()
    channels = channels_for(address, streams)
    calls = streams_on(channels, job.name, streams)
    print(f"{len(calls)} streams opened that nobody reads: {spread(seconds_of(get_info, CALLS))}")
    print(f"a moment later:                       {spread(seconds_of(get_info, CALLS))}")
    print(f"memory of the server a stream:        {(resident_bytes() - before) / streams / 1024:.0f} KiB")
    for channel in channels:
        channel.close()


def resident_bytes() -> int:
    """Return the memory of the server, this process's child."""
    (child,) = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return int(Path(f"/proc/{child}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _count(call: Iterator[pb.StreamProgressResponse]) -> int:
    return sum(item.HasField("event") for item in call)


if __name__ == "__main__":
    main()
