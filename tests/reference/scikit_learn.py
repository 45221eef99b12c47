"""Our networks beside scikit-learn's: its own data sets, the same split, architecture, optimizer, rate, batches, epochs.

``python -m tests.reference.scikit_learn`` prints the scores of five seeds each.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import sklearn
from mlpd.core.data.datasets import Dataset
from mlpd.core.devices.arrays import Cpu
from mlpd.core.models.predictor import Predictor
from mlpd.core.network.architecture import ModelSpec
from mlpd.core.network.tasks import TASKS
from mlpd.core.optimization.optimizers import Adam
from mlpd.core.spec.training import LossSpec, OptimizerSpec, ScheduleSpec, TrainingSpec
from mlpd.core.steps.examples import Examples
from mlpd.core.training.loop import train
from mlpd.core.training.state import TrainingState
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import StandardScaler

SEEDS = range(5)


@dataclass(frozen=True)
class Comparison:
    """A problem and how to learn it; ``standardize`` is done by each side in its own way."""

    task: str
    x: Any
    y: Any
    hidden: int
    rate: float
    epochs: int
    standardize: bool = False
    scale: float = 1.0
    batch_size: int = 32


def comparisons() -> dict[str, Comparison]:
    """Return the problems, by the names of their data sets."""
    digits, digit = load_digits(return_X_y=True)
    patients, progression = load_diabetes(return_X_y=True)
    cells, benign = load_breast_cancer(return_X_y=True)
    attributes = [digit % 2 == 0, digit > 4, np.isin(digit, (2, 3, 5, 7)), np.isin(digit, (0, 6, 8, 9))]
    return {
        "diabetes, regression": Comparison("regression", patients, progression, 32, 0.01, 100, True),
        "breast cancer, binary": Comparison("binary", cells, benign, 16, 0.003, 30, True),
        "digits: even, above 4, prime, round; multi-label": Comparison(
            "multilabel", digits, np.stack(attributes, axis=1).astype(np.uint8), 32, 0.003, 30, scale=1 / 16
        ),
        "digits, multiclass": Comparison("multiclass", digits, digit, 32, 0.003, 20, scale=1 / 16),
    }


def our_score(problem: Comparison, seed: int) -> float:
    """Train and return R2 or accuracy on the rows that were left out."""
    x, test_x, y, test_y = _split(problem)
    targets = y.astype(float)[:, None] if problem.task == "regression" else y
    outputs = {"multiclass": 10, "binary": 1, "regression": 1}.get(problem.task, test_y.shape[-1])
    spec = TrainingSpec(
        model=ModelSpec.plain(
            (x.shape[1], problem.hidden, outputs),
            initializer="glorot_uniform",
            input_scale=problem.scale,
            standardize_inputs=problem.standardize,
        ),
        train_dataset="",
        train_sha256="",
        task=problem.task,
        loss=LossSpec(TASKS[problem.task].losses[0]()),
        batch_size=problem.batch_size,
        epoch_count=problem.epochs,
        optimizer=OptimizerSpec(Adam()),
        schedule=ScheduleSpec(problem.rate),
        seed=seed,
        device="cpu",
        metrics_interval_steps=10**6,
    )
    state = TrainingState.initial(Cpu(), spec, Examples.of(spec, Dataset(x, targets), None))
    for _ in train(state):
        pass
    model = state.trained().model
    outputs_of_test = Predictor(Cpu(), model, 512).outputs(test_x)
    if problem.task == "regression":
        return float(r2_score(test_y, outputs_of_test[:, 0]))
    return float(accuracy_score(test_y, TASKS[problem.task].classes(outputs_of_test)))


def their_score(problem: Comparison, seed: int) -> float:
    """Train scikit-learn's network and return its score."""
    x, test_x, y, test_y = _split(problem)
    if problem.standardize:
        scaler = StandardScaler().fit(x)
        x, test_x = scaler.transform(x), scaler.transform(test_x)
    kind = MLPRegressor if problem.task == "regression" else MLPClassifier
    network = kind(
        hidden_layer_sizes=(problem.hidden,),
        alpha=0.0,
        batch_size=problem.batch_size,
        learning_rate_init=problem.rate,
        max_iter=problem.epochs,
        n_iter_no_change=problem.epochs,
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        network.fit(x * problem.scale, y)
    return float(network.score(test_x * problem.scale, test_y))


def in_noise(ours: list[float], theirs: list[float]) -> bool:
    """Whether the means differ by less than three standard errors of their difference."""
    error = np.sqrt((np.var(ours, ddof=1) + np.var(theirs, ddof=1)) / len(ours))
    return bool(abs(np.mean(ours) - np.mean(theirs)) < 3 * error + 1e-12)


def _split(problem: Comparison) -> Any:
    return train_test_split(problem.x, problem.y, test_size=0.25, random_state=0)


def main() -> None:
    """Print the table."""
    print(f"numpy {np.__version__}, scikit-learn {sklearn.__version__}; means and deviations of {len(SEEDS)} seeds")
    for name, problem in comparisons().items():
        ours, theirs = ([score(problem, seed) for seed in SEEDS] for score in (our_score, their_score))
        numbers = (f"{np.mean(scores):.4f} +- {np.std(scores, ddof=1):.4f}" for scores in (ours, theirs))
        print(f"{name:<50} ours {next(numbers)}  theirs {next(numbers)}  within noise: {in_noise(ours, theirs)}")


if __name__ == "__main__":
    main()
