"""What models score that train with default settings alone, ours and scikit-learn's, on the same rows, with times.

Usage: python benchmarks/default_models.py [reported|others]

Needs the dependency group tables-benchmark. Everything runs on one core, so that times can be compared.
"""

import os
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields
from statistics import mean, median
from typing import Any

import sklearn
from default_tables import OTHERS, REPORTED, Table
from mlpd.client import Client, training_spec
from mlpd.client.embedded import embedded_server
from mlpd.client.suggestions import DataSummary, suggested_settings
from numpy.typing import NDArray
from running import machine
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor, make_column_selector
from sklearn.impute import SimpleImputer
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from threadpoolctl import threadpool_limits

# The tables of each report, and its seeds, of splits and of networks.
REPORTS = {"reported": (REPORTED, range(5)), "others": (OTHERS, range(100, 102))}


@dataclass(frozen=True)
class Split:
    """Three quarters of a table's rows to train on, the rest to be scored on; classes in proportion."""

    name: str
    seed: int
    has_classes: bool
    train: Any
    test: Any
    train_answers: NDArray[Any]
    test_answers: NDArray[Any]

    @classmethod
    def of(cls, name: str, table: Table, seed: int) -> "Split":
        """Return the split of a table that ``seed`` draws."""
        classes = table.answers if table.has_classes else None
        parts = train_test_split(table.frame, table.answers, test_size=0.25, random_state=seed, stratify=classes)
        return cls(name.replace(" ", "-"), seed, table.has_classes, *parts)

    def score(self, found: NDArray[Any]) -> float:
        """Return the accuracy of classes or the R2 of numbers, in points of 100."""
        return 100 * float((accuracy_score if self.has_classes else r2_score)(self.test_answers, found))


@dataclass(frozen=True)
class Outcome:
    """Means over seeds: points of 100 and seconds of training; ``scaled`` where scikit-learn's targets were, too."""

    ours: float
    theirs: float
    scaled: float
    our_seconds: float
    their_seconds: float

    @property
    def lead(self) -> float:
        """Points that ours is ahead of scikit-learn's."""
        return round(self.ours - self.theirs, 6)


def encoder(*, scale: bool) -> ColumnTransformer:
    """Return what makes numbers of a frame: medians for what is missing, a column a category."""
    numbers = make_pipeline(SimpleImputer(strategy="median"), *([StandardScaler()] if scale else []))
    texts = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return ColumnTransformer(
        [
            ("numbers", numbers, make_column_selector(dtype_include=float)),
            ("texts", texts, make_column_selector(dtype_include=object)),
        ]
    )


def theirs(split: Split, *, scale_targets: bool = False) -> tuple[float, float]:
    """Return the score and the training seconds of scikit-learn's network."""
    started = time.perf_counter()
    network = (MLPClassifier if split.has_classes else MLPRegressor)(random_state=split.seed)
    if scale_targets:
        network = TransformedTargetRegressor(network, transformer=StandardScaler())
    pipeline = make_pipeline(encoder(scale=True), network).fit(split.train, split.train_answers)
    seconds = time.perf_counter() - started
    return split.score(pipeline.predict(split.test)), seconds


def ours(client: Client, split: Split) -> tuple[float, float]:
    """Return the score and the training seconds of our network, on a server; the upload counts."""
    started = time.perf_counter()
    name = f"{split.name}-{split.seed}"
    labels, targets = (split.train_answers, None) if split.has_classes else (None, split.train_answers)
    stored = client.upload(name, split.train, labels, targets=targets)
    classes = stored.class_row_counts
    task = "multiclass" if classes else "regression"  # as mlpd train has it
    settings = suggested_settings(DataSummary(stored.row_count, stored.encoded_size, task, classes), seed=split.seed)
    job = client.wait(client.train(training_spec(train_dataset=name, **settings)))
    seconds = time.perf_counter() - started
    found = client.predict(job.model_version, split.test)
    return split.score(found.classes if classes else found.values[:, 0]), seconds


def outcome_of(client: Client, name: str, load: Callable[[], Table], seeds: range) -> Outcome:
    """Return how both do on a table."""
    table, runs = load(), []
    for seed in seeds:
        split = Split.of(name, table, seed)
        our_score, our_seconds = ours(client, split)
        score, seconds = theirs(split)
        scaled = score if split.has_classes else theirs(split, scale_targets=True)[0]
        runs.append((our_score, score, scaled, our_seconds, seconds))
    return Outcome(*(mean(run[place] for run in runs) for place in range(len(fields(Outcome)))))


def show(name: str, one: Outcome) -> None:
    """Print a line of the table."""
    scaled = "" if one.scaled == one.theirs else f"{one.scaled:.1f}"
    seconds = f"{one.our_seconds:7.2f} {one.their_seconds:6.2f}"
    print(f"{name:16} {one.ours:6.1f} {one.theirs:13.1f} {one.lead:+7.1f} {scaled:>15} {seconds}", flush=True)


def judge(outcomes: list[Outcome]) -> None:
    """Print the verdict."""
    for rival, leads in (
        ("as its users have it", [one.lead for one in outcomes]),
        ("with scaled targets", [round(one.ours - one.scaled, 6) for one in outcomes]),
    ):
        level = sum(lead >= 0 for lead in leads)
        holds = "holds" if 4 * level >= 3 * len(leads) and min(leads) >= -2 else "does not hold"
        print(
            f"scikit-learn {rival}: level or ahead on {level} of {len(leads)}, {median(leads):+.1f} in the median and "
            f"{min(leads):+.1f} at worst; that this is so on three of four, and never below -2, {holds}"
        )


def main() -> None:
    """Measure and print."""
    tables, seeds = REPORTS[sys.argv[1] if len(sys.argv) > 1 else "reported"]
    warnings.simplefilter("ignore")  # scikit-learn's, of 200 epochs that were not enough
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with threadpool_limits(1), embedded_server() as address, Client(address) as client:
        print(f"{machine()}, scikit-learn {sklearn.__version__}")
        print(
            f"seeds {seeds[0]} to {seeds[-1]}; accuracy of classes, R2 of numbers, points of 100; seconds of training"
        )
        print(
            f"{'table':16} {'mlpd':>6} {'scikit-learn':>13} {'lead':>7} {'scaled targets':>15} {'mlpd s':>7} {'s':>6}"
        )
        outcomes = {}
        for name, load in tables.items():
            outcomes[name] = outcome_of(client, name, load, seeds)
            show(name, outcomes[name])
        judge(list(outcomes.values()))


if __name__ == "__main__":
    main()
