"""Small runs in one of four ways: ``python benchmarks/gpu_digests.py WAY [COUNT]`` prints a line of JSON for each.

A digest is that of all vectors of the state at the end of a run.
"""

import hashlib
import json
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from gpu_children import failure
from gpu_systems import runner_of
from mlpd.core.devices.arrays import open_device
from mlpd.core.execution.opening import missing_for, open_runner

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.core.family import FAMILY

NAMES = (
    *("adamw", "momentum", "rmsprop with momentum", "lion", "clipped and averaged", "batch norm", "layer norm"),
    *("dropout", "float64", "huber", "weighted rows", "accumulated"),
)
CPU = "cpu compiled"  # in one block, where it can be compiled
WAYS = ("plain", "fused", "graph", CPU)


def digest_of(name: str, way: str) -> str:
    """Return the first 16 hex digits of the SHA-256 of what a run ends with."""
    run: Any = FAMILY[name]
    run = run.unvalidated()
    device = open_device("cpu" if way == CPU else "cuda")
    if way == CPU:
        run = run.compiled("units", 1)
    else:
        run = run.but(device="cuda", runner="plain" if way == "plain" else "compiled")
    state = run.start(device)
    steps = run.spec.steps_per_epoch(state.examples.row_count)
    opened = open_runner("compiled", state.blocks, device, 1) if way == CPU else runner_of(state, way)
    with closing(opened) as runner:
        for _ in range(run.spec.epoch_count):
            state.make_steps(runner, steps)
    digest = hashlib.sha256()
    for own, vector in sorted(state.checkpoint().vectors.named().items()):
        digest.update(own.encode())
        digest.update(vector.tobytes())
    return digest.hexdigest()[:16]


def main() -> None:
    """Print the digest of each run, or why there is none."""
    way = sys.argv[1]
    if way == CPU and missing_for("compiled"):
        return
    for name in NAMES[: int(sys.argv[2]) if len(sys.argv) > 2 else None]:
        told = {"run": name, "digest": None, "error": ""}
        try:
            told["digest"] = digest_of(name, way)
        except Exception:  # noqa: BLE001  # the others may still work
            told["error"] = failure()
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
