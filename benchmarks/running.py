"""What the benchmarks share: the machine in a line, and a server of their own."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from threadpoolctl import threadpool_info


def machine() -> str:
    """Return versions, BLAS and threads, for the head of every report."""
    pools = [
        f"{p['internal_api']} {p['version']} {p.get('architecture', '')} x{p['num_threads']}" for p in threadpool_info()
    ]
    cores = len(os.sched_getaffinity(0))
    return f"Python {platform.python_version()}, numpy {np.__version__}, {'; '.join(pools)}, {cores} cores"


class Steal:
    """How much of the machine's processor time others took while a block ran."""

    share = 0.0

    def __enter__(self) -> Self:
        self._before = self._ticks()
        return self

    def __exit__(self, *_: object) -> None:
        stolen, every = (now - then for now, then in zip(self._ticks(), self._before, strict=True))
        self.share = stolen / max(every, 1)

    @staticmethod
    def _ticks() -> tuple[int, int]:
        """Return the ticks that were stolen, and all."""
        ticks = [int(number) for number in Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]]
        return ticks[7], sum(ticks)


def seconds_of(call: Callable[[], object], count: int) -> list[float]:
    """Return the seconds of each of ``count`` calls in a row."""
    seconds = []
    for _ in range(count):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return seconds


def save_records(records: list[dict[str, Any]]) -> None:
    """Put records into ``build/bench.json``, in the place of older ones of the same case and system."""
    file = Path(__file__).resolve().parent.parent / "build" / "bench.json"
    file.parent.mkdir(exist_ok=True)
    earlier = json.loads(file.read_text()) if file.exists() else []
    kept = {(record["case"], record["system"]): record for record in [*earlier, *records]}
    file.write_text(json.dumps(list(kept.values()), indent=1) + "\n")


def spread(seconds: Sequence[float]) -> str:
    """Return median and minimum in milliseconds."""
    return f"median {1000 * statistics.median(seconds):.2f} ms, minimum {1000 * min(seconds):.2f} ms"
