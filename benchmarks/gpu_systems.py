"""Ours and others on a GPU, one in a process of its own: ``python benchmarks/gpu_systems.py NAME``.

Each line of JSON on stdin is answered by one on stdout. With a case in it, this is built and trained for an epoch or
two; without, it is trained for an epoch, whose time is the answer.

All begin with the same weights, take the rows of the first epoch in the same order, keep them in the GPU's memory and
compute in float32; rows are shuffled for every epoch unless they are one batch. The loss after the first epoch tells
whether all did the same work.
"""

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from cases import Case
from data import data_of
from gpu_children import failure
from gpu_peers import Layers, Start, Trainer, jax_trainer, torch_trainer
from mlpd.core.cuda.compiler import CudaCompiler
from mlpd.core.cuda.runner import CudaRunner
from mlpd.core.data.datasets import Dataset
from mlpd.core.devices.arrays import HostArray, open_device
from mlpd.core.execution.opening import open_runner
from mlpd.core.network.network import initial_parameters, shapes_of, views
from mlpd.core.plans.runner import Runner
from mlpd.core.random import permutation
from mlpd.core.spec.training import TrainingSpec
from mlpd.core.steps.examples import Examples
from mlpd.core.training.state import TrainingState
from systems import spec_of

_LOSS_ROWS = 256  # of which the loss is told
_WARM_UP_SECONDS = 0.5

KERNELS = "MLPD_GPU_KERNELS"  # the variable that names a directory for compiled code


def runner_of(state: TrainingState, launching: str) -> Runner:
    """Return the runner of a run on the GPU: "plain", call by call, or of a fused plan, "fused" or "graph"."""
    if launching == "plain":
        return open_runner("plain", state.blocks, state.device, 1)
    kernels = os.environ.get(KERNELS)
    how = "eager" if launching == "fused" else launching
    return CudaRunner(state.blocks, state.device, CudaCompiler(Path(kernels) if kernels else None), how)


def mlpd_trainer(case: Case, launching: str) -> Trainer:
    """Return a trainer of ours; the epoch's loss is read when it is waited for."""
    inputs, labels = rows_of(case)
    device = open_device(case.device)
    spec = _spec(case, inputs, "plain" if launching == "plain" else "compiled")
    state = TrainingState.initial(device, spec, Examples.of(spec, Dataset(inputs, labels), None))
    runner = runner_of(state, launching)

    def layers() -> Layers:
        return _layers(spec, state.checkpoint().vectors.current.parameters)

    version = f"{device.xp.__name__} {device.xp.__version__}, float32"
    return Trainer(lambda: state.make_steps(runner, case.step_count), lambda: state.report(0), layers, version)


def _spec(case: Case, inputs: HostArray, runner: str) -> TrainingSpec:
    spec: TrainingSpec = replace(spec_of(case, inputs), runner=runner, split="units", block_count=1)
    return spec


def _layers(spec: TrainingSpec, parameters: HostArray) -> Layers:
    """Return weights and biases, layer by layer, of a flat vector."""
    return [(own[0], own[1]) for own in views(parameters, shapes_of(spec.model.layers())) if own]


def rows_of(case: Case) -> tuple[Any, Any]:
    """Return the inputs of a case as they are stored, and labels."""
    inputs, labels = data_of(case)
    return inputs[: case.row_count], labels[: case.row_count]


def start_of(case: Case) -> Start:
    """Return what others are given so that they do what ours does."""
    inputs, labels = rows_of(case)
    spec = _spec(case, inputs, "plain")
    parameters = initial_parameters(spec.model.layers(), spec.model.initializer, spec.seed, "float32")
    floats = inputs.astype(np.float32) * np.float32(spec.model.input_scale)
    return Start(floats, labels.astype(np.int64), _layers(spec, parameters), permutation(spec.seed, 0, len(inputs)))


SYSTEMS: dict[str, Callable[[Case], Trainer]] = {
    "mlpd plain": lambda case: mlpd_trainer(case, "plain"),
    "mlpd fused": lambda case: mlpd_trainer(case, "fused"),
    "mlpd graph": lambda case: mlpd_trainer(case, "graph"),
    "torch eager": lambda case: torch_trainer(case, start_of(case), "eager"),
    "torch compiled": lambda case: torch_trainer(case, start_of(case), "compiled"),
    "torch graph": lambda case: torch_trainer(case, start_of(case), "graph"),
    "jax": lambda case: jax_trainer(case, start_of(case), "default"),
    "jax highest": lambda case: jax_trainer(case, start_of(case), "highest"),
}


# What a system can't do without.
MODULES = {name: name.split()[0].replace("mlpd", "cupy") for name in SYSTEMS}


def loss_of(case: Case, layers: Layers) -> float:
    """Return the mean cross-entropy of the first rows, computed by NumPy."""
    inputs, labels = (array[:_LOSS_ROWS] for array in rows_of(case))
    x = inputs * (1 / 255 if inputs.dtype == np.uint8 else 1.0)
    for number, (weight, bias) in enumerate(layers, 1):
        x = x @ weight.astype(np.float64) + bias
        if number < len(layers):
            x = np.maximum(x, 0)
    x -= x.max(axis=1, keepdims=True)
    chosen = x[np.arange(len(x)), labels.astype(np.int64)]
    return float(np.mean(np.log(np.exp(x).sum(axis=1)) - chosen))


def _built(build: Callable[[Case], Trainer], case: Case) -> tuple[Trainer, dict[str, Any]]:
    """Return a warm trainer, and what is to be told of it: seconds to the end of the first epoch, and the loss then."""
    started = time.perf_counter()
    trainer = build(case)
    trainer.start()
    trainer.wait()
    told = {"setup_seconds": time.perf_counter() - started, "version": trainer.version}
    told["loss"] = loss_of(case, trainer.layers())
    if _timed(trainer)["seconds"] < _WARM_UP_SECONDS:
        _timed(trainer)
    return trainer, told


def _timed(trainer: Trainer) -> dict[str, Any]:
    """Train for an epoch and return its seconds, and those until the host had handed it over."""
    started = time.perf_counter()
    trainer.start()
    handed_over = time.perf_counter()
    trainer.wait()
    return {"seconds": time.perf_counter() - started, "host_seconds": handed_over - started}


def answer(build: Callable[[Case], Trainer], into: TextIO) -> None:
    """Say that it is ready, then answer the requests on stdin; an error ends it, for it may have broken the device."""
    trainer: Trainer | None = None
    print(json.dumps({"ready": True}), file=into, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "case" in request:
                trainer = None
                gc.collect()
                trainer, told = _built(build, Case.from_fields(request["case"]))
            else:
                assert trainer
                told = _timed(trainer)
        except Exception:  # noqa: BLE001  # of any library
            told = {"error": failure()}
        print(json.dumps(told), file=into, flush=True)
        if "error" in told:
            return


def main() -> None:
    """Keep stdout for answers: what libraries print goes to stderr."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    into = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import_module(MODULES[sys.argv[1]])
    answer(SYSTEMS[sys.argv[1]], into)


if __name__ == "__main__":
    main()
