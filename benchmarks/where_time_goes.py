"""Where the time of a step goes, as bars in ``docs/step.svg``: ``python benchmarks/where_time_goes.py``.

Looks at the process that works on the first shard: how long it is in matrix products (with the update, where plain SGD
makes it part of one), reads the next rows, updates parameters, and waits for the other. Activations, losses and Python
are the rest.
"""

import functools
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib as mpl
from cases import CASES
from matplotlib import pyplot as plt
from mlpd.core.batches import Reader
from mlpd.core.helpers import Worker
from mlpd.core.layers import Linear
from mlpd.core.optimizers import OptimizerState
from running import machine
from systems import mlpd

_EPOCHS = 5
_PARTS: dict[str, list[tuple[type, str]]] = {
    "products": [(Linear, "forward"), (Linear, "backward")],
    "optimizer": [(OptimizerState, "update")],
    "reading rows": [(Reader, "read")],
    "waiting": [(Worker, "meet")],
}
_REST = "activations, loss, Python"
_NAMES = ("mnist 32 sgd", "mnist 128 sgd", "mnist 1024 sgd", "mnist full batch sgd", "mnist 128 adam",
          "tabular 50-256-128-2 128 adam")  # fmt: skip
_COLORS = ("#1f4e79", "#c55a11", "#7f9f3f", "#a6a6a6", "#e0c060")


def watch(kind: type, method: str, part: str, seconds: dict[str, float]) -> None:
    """Add the time of every call of a method to ``seconds``."""
    original = getattr(kind, method)

    @functools.wraps(original)
    def timed(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        try:
            return original(*args, **kwargs)
        finally:
            seconds[part] += time.perf_counter() - started

    setattr(kind, method, timed)


def main() -> None:
    """Measure, print and draw."""
    print(machine())
    seconds: dict[str, float] = defaultdict(float)
    for part, methods in _PARTS.items():
        for kind, method in methods:
            watch(kind, method, part, seconds)
    shares = []
    for name in _NAMES:
        epoch, _ = mlpd(CASES[name])
        epoch()
        seconds.clear()
        started = time.perf_counter()
        for _ in range(_EPOCHS):
            epoch()
        total = time.perf_counter() - started
        step = 1e6 * total / _EPOCHS / CASES[name].step_count
        own = {part: seconds[part] / total for part in _PARTS}
        own[_REST] = 1 - sum(own.values())
        shares.append(own)
        print(f"{name}: {step:.0f} us a step; " + ", ".join(f"{part} {share:.0%}" for part, share in own.items()))
    draw(shares)


def draw(shares: list[dict[str, float]]) -> None:
    """Draw a bar for each case, in units of its products."""
    mpl.rcParams["svg.hashsalt"] = "mlpd"
    figure, axes = plt.subplots(figsize=(8, 3.2), layout="constrained")
    left = [0.0] * len(shares)
    for part, color in zip([*_PARTS, _REST], _COLORS, strict=True):
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
