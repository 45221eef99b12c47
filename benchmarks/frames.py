"""What taking in a worker's reports costs: microseconds an event, from frames to the disk, by the size of a batch.

Usage: python benchmarks/frames.py
"""

import asyncio
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median

from mlpd.core.network.architecture import ModelSpec
from mlpd.core.optimization.optimizers import Adam
from mlpd.core.spec.training import LossSpec, OptimizerSpec, ScheduleSpec, TrainingSpec
from mlpd.server.jobs import lifecycle
from mlpd.server.records import (
    AttemptStarted,
    DatasetRecord,
    Frame,
    Job,
    JobState,
    JobStatus,
    MetricsRecorded,
    Progress,
)
from mlpd.server.storage import schema
from mlpd.server.storage.database import Database
from mlpd.server.storage.store import Store
from running import machine

BATCHES = {1: 512, 16: 256, 256: 16}  # events in each, and how many of them
STEPS = 10**6


def spec_of(class_weights: int) -> TrainingSpec:
    """Return the spec of a usual run, with so many weights of classes."""
    return TrainingSpec(
        ModelSpec.plain((784, 512, 256, 10)),
        "datasets/mnist-train",
        "0" * 64,
        batch_size=128,
        epoch_count=10,
        optimizer=OptimizerSpec(Adam()),
        schedule=ScheduleSpec(1e-3),
        seed=0,
        device="cpu",
        metrics_interval_steps=10,
        loss=LossSpec(class_weights=(1.5,) * class_weights),
    )


def metrics(step: int) -> MetricsRecorded:
    """Return what a worker reports of a step."""
    return MetricsRecorded("train", Progress(step, STEPS, 1, 10, 12345.678, 98.7), 1 / step, 0.5, 1e-3)


def _dataset(sha256: str) -> DatasetRecord:
    return DatasetRecord(
        id="a",
        sha256=sha256,
        size_bytes=9,
        row_count=9,
        input_size=2,
        encoded_size=2,
        dtype="float32",
        class_row_counts=(5, 4),
        target_dtype="int64",
        target_size=0,
        target_range=(0.0, 1.0),
        whole_targets=True,
        weighted=False,
        input_range=(0.0, 1.0),
        whole_inputs=True,
        create_time=1,
    )


async def measure(path: Path, name: str, spec: TrainingSpec) -> None:
    """Report batches of every size to a job of ``spec`` in a database of its own."""
    database = Database(path, schema.metadata, schema.VERSION)
    store = Store(database, lambda _job_id, _events: None)
    status = JobStatus(JobState.QUEUED, Progress(0, STEPS, 0, 10))
    job = Job("a", None, "", "a", "log", spec, spec.digest, memory_bytes=0, create_time=0, status=status)
    await store.create_dataset(_dataset(spec.train_sha256))
    await store.create_job(job, 1)
    await store.change_job(job.id, lifecycle.start)

    async def report(frames: list[Frame]) -> None:
        await store.change_job(job.id, partial(lifecycle.report, attempt=1, frames=frames))

    await report([AttemptStarted(0, "first", "cpu", "numpy")])
    step = 0
    for size, count in BATCHES.items():
        microseconds = []
        for _ in range(count):
            frames: list[Frame] = [metrics(step + 1 + place) for place in range(size)]
            step += size
            started = time.perf_counter()
            await report(frames)
            microseconds.append(1e6 * (time.perf_counter() - started) / size)
        figures = f"median {median(microseconds):.1f} us, minimum {min(microseconds):.1f} us an event"
        print(f"{name}, batches of {size}: {figures}")
    database.close()


def main() -> None:
    """Measure and print."""
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        for name, class_weights in (("a usual spec", 0), ("a spec with 65,536 class weights", 65_536)):
            asyncio.run(measure(Path(folder) / f"{class_weights}.sqlite3", name, spec_of(class_weights)))


if __name__ == "__main__":
    main()
