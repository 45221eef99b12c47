"""Where the time of a step goes, as bars in ``docs/step.svg``: ``python benchmarks/where_time_goes.py``.

A step's kernels are timed one by one, from its plan; what an epoch takes beyond them is waiting, and Python.
"""

import os
import time
from pathlib import Path

import matplotlib as mpl
from cases import CASES, Case
from data import data_of
from matplotlib import pyplot as plt
from mlpd.core.planning.explanation import Line, explain
from mlpd.core.spec.split import micro_batch_rows
from running import machine
from systems import mlpd, spec_of

_EPOCHS = 5
_NAMES = ("mnist 32 sgd", "mnist 128 sgd", "mnist 1024 sgd", "mnist 128 adam", "tabular 50-256-128-2 128 adam")
_PARTS = ("products", "bringing rows", "other kernels", "waiting, Python")
_COLORS = ("#1f4e79", "#7f9f3f", "#c55a11", "#a6a6a6")


def main() -> None:
    """Measure, print and draw."""
    print(machine())
    shares = []
    for name in _NAMES:
        case = CASES[name]
        step_seconds = _step_seconds(case)
        own = _shares(case, step_seconds)
        shares.append(own)
        told = ", ".join(f"{part} {share:.0%}" for part, share in own.items())
        print(f"{name}: {1e6 * step_seconds:.0f} us a step; {told}")
    draw(shares)


def _step_seconds(case: Case) -> float:
    epoch, _ = mlpd(case)
    epoch()
    started = time.perf_counter()
    for _ in range(_EPOCHS):
        epoch()
    return (time.perf_counter() - started) / _EPOCHS / case.step_count


def _shares(case: Case, step_seconds: float) -> dict[str, float]:
    inputs, _ = data_of(case)
    threads = len(os.sched_getaffinity(0))
    spec = spec_of(case, inputs)
    found = explain(spec, case.row_count, inputs.dtype.name, threads)
    micro_batches = -(-case.batch_size // micro_batch_rows(spec))
    seconds = dict.fromkeys(_PARTS[:-1], 0.0)
    for line in found.lines:
        seconds[_part(line)] += micro_batches * line.call_count * line.seconds / threads
    own = {part: spent / step_seconds for part, spent in seconds.items()}
    return own | {_PARTS[-1]: max(1 - sum(own.values()), 0.0)}


def _part(line: Line) -> str:
    return "bringing rows" if line.phase == "rows" else "products" if line.name == "product" else "other kernels"


def draw(shares: list[dict[str, float]]) -> None:
    """Draw a bar for each case, in units of its products."""
    mpl.rcParams["svg.hashsalt"] = "mlpd"
    figure, axes = plt.subplots(figsize=(8, 3.2), layout="constrained")
    left = [0.0] * len(shares)
    for part, color in zip(_PARTS, _COLORS, strict=True):
        widths = [own[part] / own["products"] for own in shares]
        axes.barh(_NAMES, widths, left=left, label=part, color=color)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("time of a step / time of its products")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=len(_COLORS), frameon=False, fontsize="small")
    figure.savefig(Path(__file__).resolve().parent.parent / "docs" / "step.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
