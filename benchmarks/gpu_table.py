"""Epochs on a GPU by each system, in turn, each in a process of its own, within a budget of time."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from importlib.util import find_spec
from statistics import median
from typing import Any, Self

from cases import CASES, Case
from gpu_children import Child, ChildEnded
from gpu_systems import MODULES

RATIOS = {"graph / torch graph": "torch graph", "graph / jax": "jax", "graph / jax highest": "jax highest"}
_COMPILED = "torch compiled"
_BUILT = sorted(MODULES, key=lambda name: name == _COMPILED)  # in this order, so that it can't take the others' time
# By importance: what the budget does not suffice for is left out from the end.
_NAMES = (
    *("cuda mnist 128 sgd", "cuda mnist 128 adam", "cuda mnist 32 sgd", "cuda mnist 1024 sgd", "cuda mnist 60000 sgd"),
    "cuda 1024-4096-4096-10 512 sgd",
    *("cuda mnist 32 adam", "cuda mnist 1024 adam", "cuda mnist 60000 adam"),
)
_COMPILED_FIRST = _NAMES[:3]  # it takes long; others only if time is left
_LOAD_SECONDS, _BUILD_SECONDS, _EPOCH_SECONDS = 60.0, 60.0, 20.0  # that an answer may take
_ROUNDS, _ROUNDS_OF_LONG, _LONG_SECONDS = 5, 2, 1.0
_OUT_OF_TIME = "left out: the budget was used up"

Save = Callable[[dict[str, Any]], None]


def cases(*, quick: bool) -> list[Case]:
    """Return what is trained, the most important first; ``quick`` cases are a few, and tiny."""
    chosen = [CASES[name] for name in _NAMES]
    return [_tiny(chosen[i]) for i in (0, 1, 4, 5)] if quick else chosen


def _tiny(case: Case) -> Case:
    inputs, *hidden, outputs = case.layer_sizes
    whole = case.batch_size >= case.row_count
    sizes = (inputs if inputs == 784 else 16, *(8 for _ in hidden), outputs)
    return replace(case, layer_sizes=sizes, row_count=100, batch_size=100 if whole else 32)


class Column:
    """A system; its process is started when it is wanted, and anew after one that failed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._child: Child | None = Child("gpu_systems", name)  # now, so that all load their libraries side by side
        self._ready = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """End the process."""
        if self._child:
            self._child.end()
        self._child, self._ready = None, False

    def ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Return the answer; what goes wrong is its "error"."""
        self._child = self._child or Child("gpu_systems", self.name)
        try:
            if not self._ready:
                self._ready = bool(self._child.answer(_LOAD_SECONDS))
            answer = self._child.ask(request, seconds)
        except (TimeoutError, ChildEnded) as error:
            answer = {"error": str(error)}
        if "error" in answer:
            self.end()
        return answer


class Table:
    """The figures of all cases, as JSON, which ``save`` is given whenever there are more."""

    def __init__(self, seconds: float, save: Save) -> None:
        self._until, self._save = time.monotonic() + seconds, save
        self.result: dict[str, Any] = {"budget_seconds": seconds, "absent": {}, "cases": []}

    def measure(self, chosen: Sequence[Case]) -> None:
        """Measure cases in their order until the budget is used up."""
        self.result["absent"] = {
            name: f"{module} is not installed" for name, module in MODULES.items() if not find_spec(module)
        }
        for name, why in self.result["absent"].items():
            print(f"  {name} is left out: {why}", flush=True)
        self.result["cases"] = [_record(case) for case in chosen]
        with ExitStack() as stack:
            names = sorted(MODULES.keys() - self.result["absent"].keys(), key=_BUILT.index)
            columns = [stack.enter_context(Column(name)) for name in names]
            late = [column for column in columns if column.name == _COMPILED]
            for case, record in zip(chosen, self.result["cases"], strict=True):
                first = case.name in _COMPILED_FIRST
                self._add(case, [column for column in columns if column not in late or first], record)
            for case, record in zip(chosen, self.result["cases"], strict=True):
                self._add(case, [column for column in late if column.name not in record["columns"]], record)

    def _add(self, case: Case, columns: Sequence[Column], record: dict[str, Any]) -> None:
        """Measure columns of a case, if time is left."""
        if not columns or not self._left(1.0):
            return
        print(f"  {case.name}: ", end="", flush=True)
        self._measure(case, columns, record)
        record["ratios"] = _ratios(record["columns"])
        medians = {name: own.get("median_ms") for name, own in record["columns"].items()}
        print(
            "; ".join(f"{name} -" if ms is None else f"{name} {ms:.2f} ms" for name, ms in medians.items()), flush=True
        )
        self._save(self.result)

    def _left(self, limit: float) -> float:
        """Return the seconds that may go by, at most ``limit``; 0 at the end of the budget."""
        return max(0.0, min(limit, self._until - time.monotonic()))

    def _measure(self, case: Case, columns: Sequence[Column], record: dict[str, Any]) -> None:
        """Build the case in each column, then train an epoch in each in turn, round by round."""
        told: dict[str, dict[str, Any]] = {}
        epochs: dict[str, list[dict[str, Any]]] = {}
        for column in columns:
            seconds = self._left(_BUILD_SECONDS)
            answer = column.ask({"case": case.to_fields()}, seconds) if seconds else {"error": _OUT_OF_TIME}
            told[column.name], epochs[column.name] = answer, []
        for number in range(_ROUNDS):
            for column in columns:
                own, seconds = epochs[column.name], self._left(_EPOCH_SECONDS)
                is_long = bool(own) and own[0]["seconds"] > _LONG_SECONDS
                if "error" in told[column.name] or (is_long and number >= _ROUNDS_OF_LONG) or (own and not seconds):
                    continue
                answer = column.ask({}, max(seconds, 1.0))
                if "error" in answer:
                    told[column.name] |= answer
                else:
                    own.append(answer)
        for name, own in epochs.items():
            record["columns"][name] = told[name] | _figures(own, case)


def _record(case: Case) -> dict[str, Any]:
    return {"case": case.name, **case.to_fields(), "steps": case.step_count, "columns": {}, "ratios": {}}


def _figures(epochs: list[dict[str, Any]], case: Case) -> dict[str, Any]:
    """Return milliseconds an epoch: each, the median and the minimum, those of the host; and microseconds a step."""
    if not epochs:
        return {}
    own = [1e3 * epoch["seconds"] for epoch in epochs]
    return {
        "ms": own,
        "median_ms": median(own),
        "minimum_ms": min(own),
        "rounds": len(own),
        "host_ms": 1e3 * median(epoch["host_seconds"] for epoch in epochs),
        "us_per_step": 1e3 * median(own) / case.step_count,
    }


def _ratios(columns: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Return the ratios of the median of ours to that of others, for those that both have."""
    medians = {name: own["median_ms"] for name, own in columns.items() if "median_ms" in own}
    ours = medians.get("mlpd graph")
    return {name: ours / medians[other] for name, other in RATIOS.items() if ours and other in medians}
