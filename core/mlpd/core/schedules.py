"""Learning rates as plain functions of the number of steps taken so far."""

from collections.abc import Callable
from math import cos, pi

Schedule = Callable[[int], float]


def constant(rate: float) -> Schedule:
    """Return the schedule that is ``rate`` at every step."""
    return lambda _step: rate


def warmup_cosine(peak: float, warmup_steps: int, step_count: int) -> Schedule:
    """Rise linearly to ``peak`` over ``warmup_steps``, then fall along half a cosine, to reach 0 at ``step_count``.

    Loshchilov & Hutter 2017 (arXiv:1608.03983), equation 5 without restarts, after a linear warm-up.
    """

    def rate(step: int) -> float:
        if step < warmup_steps:
            return peak * (step + 1) / warmup_steps
        return peak * (1 + cos(pi * (step - warmup_steps) / (step_count - warmup_steps))) / 2

    return rate
