"""Writes the digests of small runs to standard output, as they are in recorded_runs.json.

Run it as `python -m tests.core.recorded_runs`. The digests of runs that were recorded in another environment are kept.
"""

import hashlib
import json
import tempfile
from pathlib import Path

from .family import FAMILY, finish, vectors

PATH = Path(__file__).with_suffix(".json")
NAMES = (
    *("adamw", "sgd", "momentum", "rmsprop with momentum", "adagrad", "lion", "clipped and averaged"),
    *("batch norm", "layer norm", "dropout", "augmented", "stopped early", "float64", "mixed up", "huber"),
)
CASES = {name: FAMILY[name] for name in NAMES}
# What NumPy computes in these, images and means, is its own on each processor.
COMPILED = {name: case.compiled("rows" if name == "layer norm" else "units", 2) for name, case in CASES.items()}
COMPILED["batch norm"] = CASES["batch norm"].compiled("units", 3)
COMPILED["sgd, blocks of rows"] = CASES["sgd"].compiled("rows", 3)
PORTABLE = {name: case for name, case in COMPILED.items() if name != "augmented"}

# Runs on one block, which a GPU computes too; NumPy makes images and means on the host, not everywhere alike.
ONE_BLOCK = {
    name: case.compiled("units", 1)
    for name, case in FAMILY.items()
    if not case.spec.augmentation and not case.spec.model.standardize_inputs
}


def digest_after(case, device=None, **choices):
    """Return the environment of a run, and the SHA-256 of all that it ends with."""
    state = case.start(device)
    finish(state, **choices)
    digest = hashlib.sha256()
    for vector in vectors(state).values():
        digest.update(vector)
    return state.environment, digest.hexdigest()


def recorded():
    """Return the digests by environment and run; those of compiled runs by "compiled"."""
    return json.loads(PATH.read_text())


def main() -> None:
    found = recorded() if PATH.exists() else {}
    for name, case in CASES.items():
        environment, digest = digest_after(case)
        found.setdefault(environment, {})[name] = digest
    with tempfile.TemporaryDirectory() as kernels:
        for name, case in PORTABLE.items():
            found.setdefault("compiled", {})[name] = digest_after(case, kernels=Path(kernels))[1]
        for name, case in ONE_BLOCK.items():
            found.setdefault("one block", {})[name] = digest_after(case, kernels=Path(kernels))[1]
    print(json.dumps(found, indent=1, sort_keys=True))


if __name__ == "__main__":
    main()
