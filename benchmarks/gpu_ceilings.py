"""What a GPU can do at most: ``python benchmarks/gpu_ceilings.py [quick]`` prints a line of JSON for each ceiling."""

import json
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import cupy
from gpu_children import failure

REPEATS = 9  # of which the median counts
_CHAINS, _UNROLLED, _THREADS = 8, 16, 256
# Each thread has so many independent chains that an operation need not wait for the one before it.
_SOURCE = f"""
extern "C" __global__ void nothing() {{}}

extern "C" __global__ void multiply_add(float* out, int count, float a, float b) {{
    float x[{_CHAINS}];
    #pragma unroll
    for (int k = 0; k < {_CHAINS}; k++) x[k] = threadIdx.x + k;
    for (int i = 0; i < count; i++) {{
        #pragma unroll
        for (int j = 0; j < {_UNROLLED}; j++) {{
            #pragma unroll
            for (int k = 0; k < {_CHAINS}; k++) x[k] = __fmaf_rn(x[k], a, b);
        }}
    }}
    float sum = 0.0f;
    #pragma unroll
    for (int k = 0; k < {_CHAINS}; k++) sum += x[k];
    if (sum == 0.5f) out[0] = sum;  // never, but the compiler does not know
}}

extern "C" __global__ void barriers(unsigned* arrived, int count) {{
    for (unsigned goal = gridDim.x; count > 0; count--, goal += gridDim.x) {{
        __syncthreads();
        if (threadIdx.x == 0) {{
            __threadfence();
            atomicAdd(arrived, 1);
            while (*(volatile unsigned*)arrived < goal) {{}}
            __threadfence();
        }}
        __syncthreads();
    }}
}}
"""


class Ceilings:
    """Measures on the current device, in a stream of its own, by CUDA events."""

    def __init__(self, *, quick: bool) -> None:
        self._quick = quick
        self._stream = cupy.cuda.Stream(non_blocking=True)
        module = cupy.RawModule(code=_SOURCE)
        self._nothing, self._multiply_add = module.get_function("nothing"), module.get_function("multiply_add")
        together = cupy.RawModule(code=_SOURCE, enable_cooperative_groups=True)  # all blocks run at the same time
        self._barriers = together.get_function("barriers")

    def copy(self) -> dict[str, float]:
        """Copy within the device's memory: GB/s, each byte counted when it is read and when it is written."""
        size = 2**20 if self._quick else 2**31
        source, target = cupy.zeros(size, cupy.uint8), cupy.zeros(size, cupy.uint8)
        runtime = cupy.cuda.runtime

        def run() -> None:
            kind = runtime.memcpyDeviceToDevice
            runtime.memcpyAsync(target.data.ptr, source.data.ptr, size, kind, self._stream.ptr)

        return _rates(self._seconds(run), 2 * size / 1e9, "gb_per_second")

    def multiply_adds(self) -> dict[str, float]:
        """Multiply and add in float32 registers: TFLOP/s, two operations each."""
        blocks = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)["multiProcessorCount"] * 8
        blocks, count = (2, 2) if self._quick else (blocks, 4096)
        out = cupy.zeros(1, cupy.float32)
        arguments = (out, cupy.int32(count), cupy.float32(0.5), cupy.float32(1.0))

        def run() -> None:
            self._multiply_add((blocks,), (_THREADS,), arguments)

        operations = 2 * blocks * _THREADS * count * _CHAINS * _UNROLLED
        return _rates(self._seconds(run), operations / 1e12, "tflop_per_second")

    def launches(self) -> dict[str, float]:
        """Launch empty kernels back to back from Python: microseconds each, of the device and of the host."""
        count = 20 if self._quick else 2000
        host = []

        def run() -> None:
            started = time.perf_counter()
            for _ in range(count):
                self._nothing((1,), (32,), ())
            host.append(time.perf_counter() - started)

        seconds = self._seconds(run)
        return {"us_per_launch": 1e6 * median(seconds) / count, "host_us_per_launch": 1e6 * median(host) / count}

    def graph_nodes(self) -> dict[str, float]:
        """Launch a captured graph of empty kernels in a row: microseconds a node, and for the host a graph."""
        count = 20 if self._quick else 1000
        with self._stream:
            self._stream.begin_capture()
            for _ in range(count):
                self._nothing((1,), (32,), ())
            graph = self._stream.end_capture()
        host = []

        def run() -> None:
            started = time.perf_counter()
            graph.launch(self._stream)
            host.append(time.perf_counter() - started)

        seconds = self._seconds(run)
        return {"us_per_node": 1e6 * median(seconds) / count, "host_us_per_graph": 1e6 * median(host)}

    def grid_barriers(self) -> dict[str, float]:
        """Let a block on each processor wait for all others, again and again: microseconds a barrier.

        A step as one kernel would have a barrier wherever a graph has the next kernel.
        """
        count = 3 if self._quick else 1000
        # Where blocks run one after another, one alone need not wait.
        blocks = 1 if self._quick else cupy.cuda.runtime.getDeviceProperties(0)["multiProcessorCount"]
        arrived = cupy.zeros(1, cupy.uint32)

        def run() -> None:
            arrived.fill(0)
            self._barriers((blocks,), (_THREADS,), (arrived, cupy.int32(count)))

        return {"us_per_barrier": 1e6 * median(self._seconds(run)) / count}

    def _seconds(self, run: Callable[[], None]) -> list[float]:
        """Return the device's seconds for each of some calls of ``run`` in the stream, the first not counted."""
        seconds = []
        with self._stream:
            for _ in range(1 + REPEATS):
                start, end = cupy.cuda.Event(), cupy.cuda.Event()
                start.record(self._stream)
                run()
                end.record(self._stream)
                end.synchronize()
                seconds.append(cupy.cuda.get_elapsed_time(start, end) / 1e3)
        return seconds[1:]


def _rates(seconds: list[float], amount: float, unit: str) -> dict[str, float]:
    return {unit: amount / median(seconds), f"best_{unit}": amount / min(seconds)}


def main() -> None:
    """Print what each measurement found, or why it failed."""
    ceilings = Ceilings(quick="quick" in sys.argv)
    measures = ceilings.copy, ceilings.multiply_adds, ceilings.launches, ceilings.graph_nodes, ceilings.grid_barriers
    for measure in measures:
        try:
            found: dict[str, Any] = measure()
        except Exception:  # noqa: BLE001  # the others may still work
            found = {"error": failure()}
        print(json.dumps({measure.__name__: found}), flush=True)


if __name__ == "__main__":
    main()
