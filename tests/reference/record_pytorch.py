"""Trains the same problem in PyTorch: the same weights at the start, the same batches, the same settings.

``python -m tests.reference.record_pytorch`` writes what it finds, with its provenance, for machines without PyTorch.
"""

import json
import platform
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import torch
from mlpd.core.network.network import initial_parameters, views
from mlpd.core.optimization.optimizers import AdaGrad, Adam, RmsProp, Sgd
from mlpd.core.random import permutation

from .trajectories import BATCH_SIZE, CASES, EPOCHS, ROWS, SEED, SIZES, STEPS, problem, spec_of

RECORD = Path(__file__).with_name("pytorch_losses.json")


def network(case: str) -> torch.nn.Sequential:
    """Return the network with our initial weights; ours are (inputs, width), PyTorch's (width, inputs)."""
    spec = spec_of(case)
    layers = spec.model.layers()
    start = views(initial_parameters(layers, "he_normal", SEED, "float64"), [layer.shapes for layer in layers])
    affine = [torch.nn.Linear(inputs, width, dtype=torch.float64) for inputs, width in pairwise(SIZES)]
    with torch.no_grad():
        for linear, (weight, bias) in zip(affine, [own for own in start if own], strict=True):
            linear.weight.copy_(torch.from_numpy(weight.T.copy()))
            linear.bias.copy_(torch.from_numpy(bias.copy()))
    return torch.nn.Sequential(affine[0], torch.nn.ReLU(), affine[1], torch.nn.Tanh(), affine[2])


def optimizer_of(case: str, model: torch.nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer of a case; decay applies to weights only, as ours does."""
    kind, rate, decay = CASES[case]
    weights = [parameter for parameter in model.parameters() if parameter.ndim == 2]
    biases = [parameter for parameter in model.parameters() if parameter.ndim == 1]
    groups = [{"params": weights, "weight_decay": decay}, {"params": biases, "weight_decay": 0.0}]
    match kind:
        case Sgd(momentum, nesterov):
            return torch.optim.SGD(groups, rate, momentum=momentum, nesterov=nesterov)
        case Adam(beta1, beta2, epsilon):
            return torch.optim.AdamW(groups, rate, betas=(beta1, beta2), eps=epsilon)
        case RmsProp(decay_of_squares, epsilon, momentum):
            return torch.optim.RMSprop(groups, rate, alpha=decay_of_squares, eps=epsilon, momentum=momentum)
        case AdaGrad(epsilon):
            return torch.optim.Adagrad(groups, rate, eps=epsilon)
    raise ValueError(f"{case} has no counterpart")


def their_losses(case: str) -> list[float]:
    """Return the mean loss of every mini-batch, before its step."""
    data, model = problem(), network(case)
    optimizer = optimizer_of(case, model)
    inputs, labels = torch.from_numpy(data.inputs), torch.from_numpy(data.targets)
    losses = []
    for epoch in range(EPOCHS):
        order = torch.from_numpy(permutation(SEED, epoch, ROWS))
        for batch in order.split(BATCH_SIZE):
            loss = torch.nn.functional.cross_entropy(model(inputs[batch]), labels[batch])
            losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return losses


def main() -> None:
    """Write the record."""
    record = {
        "provenance": {
            "pytorch": torch.__version__,
            "python": platform.python_version(),
            "date": datetime.now(UTC).date().isoformat(),
            "command": "python -m tests.reference.record_pytorch",
            "problem": f"{'-'.join(map(str, SIZES))}, relu then tanh, softmax cross-entropy, {ROWS} rows in batches of "
            f"{BATCH_SIZE}, {STEPS} steps, float64, seed {SEED}; see trajectories.py",
        },
        "losses": {case: [float(f"{loss:.9g}") for loss in their_losses(case)] for case in CASES},
    }
    RECORD.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
