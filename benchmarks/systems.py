"""One system in a process of its own: ``python benchmarks/systems.py NAME`` trains an epoch for each case it reads.

Every system is used as its users would, on float32, with its own choice of threads; rows are shuffled for every epoch.
The first epoch of a case, with compiling and allocating, is not counted.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from cases import Case
from data import Epoch, data_of, floats_of
from predictors import PREDICTORS


def products(case: Case) -> tuple[Epoch, str]:
    """Return the matrix products of an epoch, and nothing else."""
    from mlpd.core.devices.arrays import open_device

    device = open_device(case.device)
    matmul, random = device.xp.matmul, np.random.default_rng(0)
    # On a CPU a larger batch makes the same products piece by piece.
    rows = case.batch_size if case.device == "cuda" else min(case.batch_size, 512)
    layers = []
    for inputs, width in pairwise(case.layer_sizes):
        shapes = ((rows, inputs), (inputs, width), (rows, width), (inputs, width), (rows, inputs))
        layers.append([device.from_host(random.normal(size=shape).astype(np.float32)) for shape in shapes])

    def epoch() -> None:
        for _ in range(case.row_count // rows):
            for x, weight, y, _, _ in layers:
                matmul(x, weight, out=y)
            for i, (x, weight, y, gradient, dx) in enumerate(reversed(layers), 1):
                matmul(x.T, y, out=gradient)
                if i < len(layers):
                    matmul(y, weight.T, out=dx)
        device.to_host(layers[0][3][:1])  # waits for a GPU

    return epoch, _library(device)


def _library(device: Any) -> str:
    return f"{device.xp.__name__} {device.xp.__version__}"


def spec_of(case: Case, inputs: Any) -> Any:
    """Return the spec of our run of a case."""
    from mlpd.core.network.architecture import ModelSpec
    from mlpd.core.optimization.optimizers import OPTIMIZERS
    from mlpd.core.spec.split import best_blocks
    from mlpd.core.spec.training import OptimizerSpec, ScheduleSpec, TrainingSpec

    scale = 1 / 255 if inputs.dtype == np.uint8 else 1.0
    spec = TrainingSpec(
        model=ModelSpec.plain(case.layer_sizes, input_scale=scale),
        train_dataset="",
        train_sha256="",
        batch_size=case.batch_size,
        epoch_count=1_000_000,
        optimizer=OptimizerSpec(OPTIMIZERS[case.optimizer]()),
        schedule=ScheduleSpec(case.learning_rate),
        seed=0,
        device=case.device,
        metrics_interval_steps=10**9,
        runner="compiled" if case.device == "cpu" else "plain",
    )
    split, block_count = best_blocks(spec)
    return replace(spec, split=split, block_count=block_count)


def mlpd(case: Case) -> tuple[Epoch, str]:
    """Return an epoch of ours."""
    from mlpd.core.data.datasets import Dataset
    from mlpd.core.devices.arrays import open_device
    from mlpd.core.steps.examples import Examples
    from mlpd.core.training.events import MetricsRecorded
    from mlpd.core.training.loop import train
    from mlpd.core.training.state import TrainingState

    inputs, labels = data_of(case)
    spec, device = spec_of(case, inputs), open_device(case.device)
    events = train(TrainingState.initial(device, spec, Examples.of(spec, Dataset(inputs, labels), None)))
    reports = (event for event in events if isinstance(event, MetricsRecorded))
    return lambda: next(reports), f"{_library(device)}, {spec.runner}, {spec.block_count} blocks of {spec.split}"


def pytorch(case: Case, *, compiled: bool = False) -> tuple[Epoch, str]:
    """Return an epoch of PyTorch, eager or compiled."""
    import torch

    inputs, labels = (torch.from_numpy(array).to(case.device) for array in floats_of(case))
    layers: list[torch.nn.Module] = []
    for size, width in pairwise(case.layer_sizes):
        layers += [torch.nn.Linear(size, width), torch.nn.ReLU()]
    model: Any = torch.nn.Sequential(*layers[:-1]).to(case.device)
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[case.optimizer]
    optimizer = kind(model.parameters(), lr=case.learning_rate)
    model = torch.compile(model) if compiled else model

    def epoch() -> None:
        for rows in torch.randperm(case.row_count, device=case.device).split(case.batch_size):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs[rows]), labels[rows]).backward()
            optimizer.step()
        if case.device == "cuda":
            torch.cuda.synchronize()

    return epoch, f"torch {torch.__version__}, {torch.get_num_threads()} threads"


def jax(case: Case) -> tuple[Epoch, str]:
    """Return an epoch of JAX: one compiled scan over all its batches; rows that don't fill a batch are left out."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_default_device", jax.devices(case.device)[0])
    jax.config.update("jax_default_matmul_precision", "highest")  # float32 on a GPU, too, as all others here
    inputs, labels = (jnp.asarray(array) for array in floats_of(case))
    steps = case.row_count // case.batch_size
    keys = jax.random.split(jax.random.key(0), len(case.layer_sizes))
    parameters = [
        (jax.random.normal(key, (size, width)) * (2 / size) ** 0.5, jnp.zeros(width))
        for key, (size, width) in zip(keys, pairwise(case.layer_sizes), strict=False)
    ]

    def loss(parameters: Any, x: Any, y: Any) -> Any:
        for weight, bias in parameters[:-1]:
            x = jax.nn.relu(x @ weight + bias)
        logits = x @ parameters[-1][0] + parameters[-1][1]
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1).mean()

    def step(state: Any, rows: Any) -> Any:
        parameters, mean, square, count = state
        gradients = jax.grad(loss)(parameters, inputs[rows], labels[rows])
        if case.optimizer == "sgd":
            moved = jax.tree.map(lambda p, g: p - case.learning_rate * g, parameters, gradients)
            return (moved, mean, square, count), None
        count = count + 1
        mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mean, gradients)
        square = jax.tree.map(lambda s, g: 0.999 * s + 0.001 * g * g, square, gradients)

        def move(p: Any, m: Any, s: Any) -> Any:
            return p - case.learning_rate * (m / (1 - 0.9**count)) / (jnp.sqrt(s / (1 - 0.999**count)) + 1e-8)

        return (jax.tree.map(move, parameters, mean, square), mean, square, count), None

    @jax.jit  # type: ignore[untyped-decorator]
    def whole(state: Any, key: Any) -> Any:
        order = jax.random.permutation(key, case.row_count)[: steps * case.batch_size]
        return jax.lax.scan(step, state, order.reshape(steps, case.batch_size))[0]

    zeros = jax.tree.map(jnp.zeros_like, parameters)
    now = {"state": (parameters, zeros, zeros, jnp.zeros(())), "key": jax.random.key(1)}

    def epoch() -> None:
        now["key"], key = jax.random.split(now["key"])
        now["state"] = jax.block_until_ready(whole(now["state"], key))

    return epoch, f"jax {jax.__version__}"


def keras(case: Case) -> tuple[Epoch, str]:
    """Return an epoch of Keras on JAX."""
    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    inputs, labels = floats_of(case)
    widths = case.layer_sizes[1:-1]
    layers = [keras.layers.Dense(width, activation="relu") for width in widths]
    model = keras.Sequential([keras.Input((case.layer_sizes[0],)), *layers, keras.layers.Dense(case.layer_sizes[-1])])
    kind = {"sgd": keras.optimizers.SGD, "adam": keras.optimizers.Adam}[case.optimizer]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(kind(case.learning_rate), loss)
    return lambda: model.fit(inputs, labels, case.batch_size, verbose=0), f"keras {keras.__version__} on jax"


def scikit_learn(case: Case) -> tuple[Epoch, str]:
    """Return an epoch of scikit-learn."""
    import warnings

    import sklearn
    from sklearn.neural_network import MLPClassifier

    warnings.simplefilter("ignore")
    inputs, labels = floats_of(case)
    network = MLPClassifier(
        case.layer_sizes[1:-1],
        solver=case.optimizer,
        alpha=0,
        batch_size=case.batch_size,
        learning_rate_init=case.learning_rate,
        max_iter=1,
        momentum=0,
        warm_start=True,
    )
    return lambda: network.fit(inputs, labels), f"scikit-learn {sklearn.__version__}"


SYSTEMS: dict[str, Callable[[Case], tuple[Epoch, str]]] = {
    "products": products,
    "mlpd": mlpd,
    "pytorch": pytorch,
    "pytorch compiled": lambda case: pytorch(case, compiled=True),
    "jax": jax,
    "keras": keras,
    "scikit-learn": scikit_learn,
}


def main() -> None:
    """Answer every case on stdin with a line of JSON."""
    trains, predicts = SYSTEMS[sys.argv[1]], PREDICTORS[sys.argv[1]]
    name, epoch, version = "", None, ""
    for line in sys.stdin:
        case = Case.from_fields(json.loads(line))
        if case.name != name:
            epoch, version = (trains if case.optimizer else predicts)(case)
            name = case.name
            epoch()
        assert epoch
        started = time.perf_counter()
        epoch()
        seconds = time.perf_counter() - started
        answer = {"seconds": seconds, "peak_bytes": sum(map(_peak_bytes, _processes())), "version": version}
        print(json.dumps(answer), flush=True)


def _processes() -> list[int]:
    """Return this process and its children."""
    own = os.getpid()
    return [own, *map(int, Path(f"/proc/{own}/task/{own}/children").read_text().split())]


def _peak_bytes(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


if __name__ == "__main__":
    main()
