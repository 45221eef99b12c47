"""Compiles every kernel of the reference runs for real GPUs, without one: what each takes, and whether any spills.

Usage: python benchmarks/cuda_kernels.py [ARCHITECTURE ...], by default 80 90 100. Needs the package nvidia-cuda-nvrtc.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
from cases import CASES, Case
from cuda_compilers import compile_source
from mlpd.core.cuda.fusion import fuse
from mlpd.core.cuda.launches import KERNEL, launches_of, source_of
from mlpd.core.cuda.packing import pack
from mlpd.core.data.datasets import Dataset
from mlpd.core.devices.arrays import Cpu
from mlpd.core.plans.plan import Variant
from mlpd.core.spec.training import TrainingSpec
from mlpd.core.steps.batches import cut
from mlpd.core.steps.examples import Examples
from mlpd.core.steps.program import Blocks
from systems import spec_of

ARCHITECTURES = 80, 90, 100


class Recorded(Cpu):
    """Host memory in place of a GPU's: enough to record what a GPU would do."""

    block_size = 2**62
    is_compiled = True


def sources_of(spec: TrainingSpec, dataset: Dataset) -> Iterator[str]:
    """Yield the code of each launch of a run's first epoch, some of it twice."""
    blocks = Blocks(Recorded(), spec, Examples.of(spec, dataset, None))
    batches = cut(spec, len(dataset), 0, spec.steps_per_epoch(len(dataset)))
    kinds = [
        Variant(batch.rows, place % 2, batch.start == 0, batch.start + batch.rows == batch.step_rows, flushes=False)
        for place, batch in enumerate(batches)
    ]
    calls = {}
    for kind in dict.fromkeys(kinds):
        plan = blocks.record(kind)
        groups, _ = fuse(list(plan.tasks()), blocks.kept, Cpu().empty)
        packed = [[pack(group) for group in task] for task in groups]
        count = len(plan.prepare)
        calls[kind] = [[call for task in part for call in task] for part in (packed[:count], packed[count:])]
    for before, after in dict.fromkeys(pairwise([None, *kinds, None])):
        for launch in launches_of(calls[before][1] if before else [], calls[after][0] if after else []):
            yield source_of(launch)


def run_of(case: Case) -> tuple[TrainingSpec, Dataset]:
    """Return the spec of a case on a GPU, and rows of zeros for it."""
    inputs = np.zeros((case.row_count, case.layer_sizes[0]), np.uint8)
    spec = replace(spec_of(case, inputs), device="cuda", runner="compiled", split="units", block_count=1)
    return spec, Dataset(inputs, np.zeros(case.row_count, np.int64))


def main() -> None:
    """Print a line for each kernel and architecture; end with status 1 if one spills."""
    architectures = [int(number) for number in sys.argv[1:]] or list(ARCHITECTURES)
    seen: set[str] = set()
    spills = count = 0
    seconds = 0.0
    for case in (case for case in CASES.values() if case.device == "cuda"):
        for source in sources_of(*run_of(case)):
            if source in seen:
                continue
            seen.add(source)
            for architecture in architectures:
                own = compile_source(source, architecture)[1][KERNEL]
                print(
                    f"{case.name:32s} sm_{architecture:<4d} {own.registers:4d} registers {own.spilled_bytes:4d} bytes "
                    f"spilled {own.cubin_bytes:7d} bytes of code {own.seconds:5.2f} s",
                    flush=True,
                )
                spills += own.spilled_bytes > 0
                count, seconds = count + 1, seconds + own.seconds
    print(f"{len(seen)} kernels, {count} times compiled in {seconds:.1f} s; {spills} spill")
    sys.exit(spills > 0)


if __name__ == "__main__":
    main()
