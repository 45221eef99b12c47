"""Networks drawn at random: compiled in blocks they learn what they learn call by call, on any number of threads."""

from dataclasses import replace

import numpy as np
import pytest
from mlpd.core.network.activations import ACTIVATIONS
from mlpd.core.network.architecture import NORMALIZATIONS, ModelSpec
from mlpd.core.network.losses import Huber, Poisson
from mlpd.core.network.tasks import TASKS
from mlpd.core.optimization.optimizers import AdaGrad, Adam, Lion, RmsProp, Sgd
from mlpd.core.spec.rules import find_violations
from mlpd.core.spec.split import SPLITS, largest_block_count
from mlpd.core.spec.training import LossSpec, OptimizerSpec, ScheduleSpec, TrainingSpec
from mlpd.core.training.events import MetricsRecorded

from ..conftest import SOAK, needs_compiler
from .family import Run, finish, noise

NETWORKS = 30 * SOAK
STEPS = 20
ROWS, INPUTS, OUTPUTS = 53, 11, 3
OPTIMIZERS = [
    *(Sgd(), Sgd(0.9), Sgd(0.9, nesterov=True), Adam(), Adam(0.5, 0.9)),
    *(RmsProp(0.9), RmsProp(0.9, momentum=0.5), AdaGrad(), Lion()),
]
LOSSES = [(task, loss) for task, kind in TASKS.items() for loss in kind.losses]


def draw(seed: int) -> Run:
    """Return a run of a network of up to four hidden layers, with each of what a spec can say now and then."""
    random = np.random.default_rng(seed)

    def some(*choices):
        return choices[int(random.integers(len(choices)))]

    task, loss = some(*LOSSES)
    # The least of hidden layers that are normalised row by row is two units.
    hidden = [int(random.integers(2, 14)) for _ in range(int(random.integers(5)))]
    outputs = 1 if task == "binary" else OUTPUTS
    model = ModelSpec(
        layer_sizes=(INPUTS, *hidden, outputs),
        activations=tuple(some(*sorted(ACTIVATIONS)) for _ in hidden),
        dropout_rates=tuple(some(0.0, 0.0, 0.3) for _ in hidden),
        input_dropout_rate=some(0.0, 0.0, 0.2),
        normalization=some(*sorted(NORMALIZATIONS)),
        input_scale=1 / 255,
        dtype="float64",
    )
    if some(False, False, True):
        model = replace(model, input_scale=1.0, standardize_inputs=True)
    class_weights = tuple(random.uniform(0.1, 2.0, max(outputs, 2)).tolist()) if TASKS[task].has_classes else ()
    spec = TrainingSpec(
        model=model,
        train_dataset="datasets/noise",
        train_sha256="",
        batch_size=max(some(1, 2, 7, 16, 20, ROWS), 2 if model.normalizes_batches else 1),
        accumulation_steps=some(1, 1, 2, 3),
        epoch_count=1,
        optimizer=OptimizerSpec(some(*OPTIMIZERS), some(0.0, 0.1), some(0.0, 0.0, 0.5), some(0.0, 0.0, 0.9)),
        schedule=ScheduleSpec(0.01),
        seed=seed,
        device="cpu",
        metrics_interval_steps=some(1, 3, 100),
        task=task,
        loss=LossSpec(
            loss(some(0.3, 1.0)) if loss is Huber else loss(),
            0.0 if task == "regression" else some(0.0, 0.1),
            some((), class_weights),
            some(0.0, 0.0, 0.3),
        ),
        split=some(*SPLITS),
    )
    if model.normalizes_batches and isinstance(
        spec.optimizer.kind, Lion
    ):  # a sign of rounding errors, in pairs of rows
        spec = replace(spec, batch_size=max(spec.batch_size, 7))
    spec = replace(spec, epoch_count=-(-STEPS // spec.steps_per_epoch(ROWS)))
    data = noise(
        "counts" if loss is Poisson else task,
        ROWS,
        weighted=some(False, False, True),
        dtype=some("uint8", "float32", "float64", "int64", "float16"),
        inputs=INPUTS,
        seed=seed,
    )
    return Run(spec, data)


def compiled(case: Run, most: int) -> Run:
    case = case.compiled(case.spec.split, 1)
    cut: Run = case.but(block_count=min(most, largest_block_count(case.spec, case.spec.split)))
    return cut


def distance(found, expected):
    """Return how far vectors are from others, in parts of the largest number in each."""
    assert found.keys() == expected.keys()
    return max(
        float(np.abs(found[name] - vector).max() / max(np.abs(vector).max(), 1e-300))
        for name, vector in expected.items()
    )


def departure(case: Run, vectors) -> float:
    """Return how far from ``vectors`` runs end whose weights begin a rounding error beside them, at most.

    Where a gradient is noise, its sign may be either, and so may a step that is divided by its size.
    """
    farthest = 0.0
    for seed in range(3):
        random, state = np.random.default_rng(seed), case.start()
        before = state.blocks.read()
        parameters = before.current.parameters
        beside = parameters * (1 + np.finfo(parameters.dtype).eps * random.integers(-1, 2, len(parameters)))
        current = before.current._replace(parameters=beside)
        average = before.average and before.average._replace(parameters=beside)
        state.blocks.write(replace(before, current=current, average=average))
        finish(state)
        farthest = max(farthest, distance(state.checkpoint().vectors.named(), vectors))
    print(f"departs by {farthest:.1e}")
    return farthest


@needs_compiler
@pytest.mark.parametrize("seed", range(NETWORKS))
def test_a_compiled_network_learns_what_the_plain_one_does_on_any_number_of_threads(seed, kernels):
    print("seed", seed)
    plain = draw(seed).but(split="units")
    case = compiled(draw(seed), 1 + seed % 5)
    print(case.spec)
    assert not find_violations(case.spec, None, None)
    state = plain.start()
    expected = finish(state)
    vectors = state.checkpoint().vectors.named()
    outcomes = []
    for thread_count in (1, (2, 3, 5)[seed % 3]):
        state = case.start()
        events = finish(state, thread_count=thread_count, kernels=kernels)
        outcomes.append((events, state.checkpoint()))
    (events, checkpoint), (same_events, same) = outcomes
    apart = distance(checkpoint.vectors.named(), vectors)
    departs = apart > 1e-11
    if departs:
        assert apart <= 10 * departure(plain, vectors)
    assert [type(event) for event in events] == [type(event) for event in expected]
    for event, other in zip(events, expected, strict=True):
        if isinstance(event, MetricsRecorded) and not departs:
            assert event.loss == pytest.approx(other.loss, rel=1e-11)
            assert replace(event, loss=0.0) == replace(other, loss=0.0)
    assert same_events == events
    assert same.counters == checkpoint.counters
    assert {name: vector.tobytes() for name, vector in same.vectors.named().items()} == {
        name: vector.tobytes() for name, vector in checkpoint.vectors.named().items()
    }
