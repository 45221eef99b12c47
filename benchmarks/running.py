"""What the benchmarks share: the machine in a line, and a server of their own."""

import os
import platform
import statistics
from collections.abc import Sequence

import numpy as np
from threadpoolctl import threadpool_info


def machine() -> str:
    """Return versions, BLAS and threads, for the head of every report."""
    pools = [
        f"{p['internal_api']} {p['version']} {p.get('architecture', '')} x{p['num_threads']}" for p in threadpool_info()
    ]
    cores = len(os.sched_getaffinity(0))
    return f"Python {platform.python_version()}, numpy {np.__version__}, {'; '.join(pools)}, {cores} cores"


def spread(seconds: Sequence[float]) -> str:
    """Return median and minimum in milliseconds."""
    return f"median {1000 * statistics.median(seconds):.2f} ms, minimum {1000 * min(seconds):.2f} ms"
