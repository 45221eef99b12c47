"""Unary calls of one client beside requests of another that are made to cost the server much.

Usage: python benchmarks/abuse.py
"""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf.internal.encoder import _VarintBytes as varint  # type: ignore[attr-defined]
from mlpd.client import Client, training_spec
from mlpd.client.embedded import embedded_server
from mlpd.v1 import trainer_service_pb2 as pb
from mlpd.v1 import types_pb2 as types
from mlpd.v1.trainer_service_pb2_grpc import TrainerServiceStub
from running import machine

MEGABYTE = 2**20
CALLERS = 2
_PREFIX = "/mlpd.v1.TrainerService/"


def nested(content: bytes, *numbers: int) -> bytes:
    """Return ``content`` as the field with the last of ``numbers``, in that before, and so on."""
    for number in reversed(numbers):
        content = varint(number << 3 | 2) + varint(len(content)) + content
    return content


def train_bodies(size: int) -> dict[str, bytes]:
    """Return requests to Train of about ``size`` bytes that start nothing."""
    sound = pb.TrainRequest(spec=training_spec("default"), validate_only=True).SerializeToString()
    return {
        "layer_sizes": sound + nested(b"\x02" * size, 1, 1, 1),
        "activations": sound + nested(b"\x22\x00" * (size // 2), 1, 1),
        "schedule segments": sound + nested(b"\x0a\x00" * (size // 2), 1, 7, 8),
        "class_weights": sound + nested(bytes(size), 1, 14, 4),
        "unknown fields": sound + nested(b"\xf8\x7f\x01" * (size // 3), 1),
        "one field again and again": sound + b"\x20\x01" * (size // 2),
        "a long task": sound + nested(b"x" * size, 1, 13),
    }


def predict_bodies(model: str, size: int) -> dict[str, bytes]:
    """Return requests to Predict of about ``size`` bytes."""
    bad = types.Tensor(data_type=types.DATA_TYPE_FP32, shape=[size // (784 * 4), 784])
    bad.data = np.full((size // (784 * 4), 784), np.nan, "<f4").tobytes()
    return {
        "shape": pb.PredictRequest(model=model).SerializeToString() + nested(b"\x00" * size, 2, 2),
        "not one finite input": pb.PredictRequest(model=model, inputs=bad).SerializeToString(),
    }


def beside(address: str, method: str, body: bytes) -> str:
    """Send ``body`` from `CALLERS` clients at once; tell what came of it and how long others waited meanwhile."""
    done, seconds = threading.Event(), []

    def attack(_: int) -> str:
        with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            try:
                call: Any = channel.unary_unary(_PREFIX + method)
                call(body)
            except grpc.RpcError as error:
                return str(error.code().name)
            return "OK"

    def watch() -> None:
        with grpc.insecure_channel(address) as channel:
            stub = TrainerServiceStub(channel)
            while not done.is_set():
                started = time.perf_counter()
                stub.GetServerInfo(pb.GetServerInfoRequest())
                seconds.append(time.perf_counter() - started)

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(CALLERS) as callers:
        codes = set(callers.map(attack, range(CALLERS)))
    done.set()
    watcher.join()
    return f"{', '.join(sorted(codes)):20}, GetServerInfo at most {1000 * max(seconds):7.1f} ms"


def peak_megabytes() -> int:
    """Return the most memory that the server, this process's child, has had."""
    (child,) = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    line = next(line for line in Path(f"/proc/{child}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) // 1024


def main() -> None:
    """Measure and print."""
    print(machine())
    print(f"{CALLERS} callers at a time, of validate_only requests and predictions")
    with embedded_server() as address, Client(address) as client:
        job = client.wait(client.train(training_spec("default", epoch_count=1)))
        for size in (4 * MEGABYTE, 30 * MEGABYTE):
            bodies = {("Train", name): body for name, body in train_bodies(size).items()}
            bodies |= {("Predict", name): body for name, body in predict_bodies(job.model_version, size).items()}
            for (method, name), body in bodies.items():
                print(
                    f"{method:7} {size // MEGABYTE:2} MB of {name:26}: {beside(address, method, body)}, "
                    f"the server's peak {peak_megabytes():5} MB",
                    flush=True,
                )


if __name__ == "__main__":
    main()
