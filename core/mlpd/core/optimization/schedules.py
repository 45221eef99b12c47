"""Schedules: the share of the peak learning rate at each step of a run, as values that can be joined."""

from dataclasses import dataclass
from itertools import pairwise
from math import cos, pi
from typing import ClassVar

from mlpd.core.declaration import FRACTION, POSITIVE, SHARE, SOME_SHARE, Count, Kind, part, setting


@dataclass(frozen=True)
class Schedule(Kind):
    """A function of the steps taken so far and of all there will be."""

    def share(self, step: int, step_count: int) -> float:
        """Return the share of the peak rate at ``step`` (from 0) of ``step_count``."""
        raise NotImplementedError


@dataclass(frozen=True)
class Constant(Schedule):
    """1 at every step."""

    name, number = "constant", 2

    def share(self, step: int, step_count: int) -> float:
        """Return 1."""
        return 1.0


@dataclass(frozen=True)
class Steps(Schedule):
    """``factor`` ** (how many times ``interval_steps`` have passed)."""

    name, number = "steps", 4
    interval_steps: int = setting(1, "Steps between drops", Count(1), number=1, required=True)
    factor: float = setting(0.1, "What a drop multiplies the rate by", SOME_SHARE, number=2)

    def share(self, step: int, step_count: int) -> float:
        return float(self.factor ** (step // self.interval_steps))


@dataclass(frozen=True)
class Exponential(Schedule):
    """A smooth fall to ``final_share`` at the last step."""

    name, number = "exponential", 5
    final_share: float = setting(0.01, "Share of the peak rate at the end", SOME_SHARE, number=1)

    def share(self, step: int, step_count: int) -> float:
        return float(self.final_share ** (step / max(step_count - 1, 1)))


@dataclass(frozen=True)
class Polynomial(Schedule):
    """From ``initial_share`` to ``final_share`` along ``(1 - progress) ** power``; a straight line with power 1."""

    name, number = "polynomial", 6
    power: float = setting(1.0, "Exponent; 1 for a straight line", POSITIVE, number=1)
    initial_share: float = setting(1.0, "Share of the peak rate at the start", SHARE, number=2)
    final_share: float = setting(0.0, "Share of the peak rate at the end", SHARE, number=3)

    def share(self, step: int, step_count: int) -> float:
        """Return the share at ``step``; the final share would come at ``step_count``."""
        left = 1 - step / step_count
        return self.final_share + (self.initial_share - self.final_share) * float(left**self.power)


@dataclass(frozen=True)
class WarmupCosine(Schedule):
    """Rise linearly over ``warmup_steps``, then fall along half a cosine, to reach ``final_share`` at the end.

    Loshchilov & Hutter 2017 (arXiv:1608.03983), equation 5 without restarts, after a linear warm-up.
    """

    name, number = "warmup_cosine", 3
    called: ClassVar = {"cosine": {}}
    warmup_steps: int = setting(0, "Steps of the rise", Count(0), number=1)
    final_share: float = setting(0.0, "Share of the peak rate at the end", SHARE, number=2)

    def share(self, step: int, step_count: int) -> float:
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / (step_count - self.warmup_steps)
        return _cosine(1.0, self.final_share, progress)


@dataclass(frozen=True)
class OneCycle(Schedule):
    """Half a cosine up from ``initial_share`` over ``rise`` of the run, half a cosine down to ``final_share``.

    Smith & Topin 2018 (arXiv:1708.07120), with cosines for their straight lines.
    """

    name, number = "one_cycle", 7
    rise: float = setting(0.3, "Share of the run that the rise takes", FRACTION, number=1)
    initial_share: float = setting(0.04, "Share of the peak rate at the start", SHARE, number=2)
    final_share: float = setting(0.0001, "Share of the peak rate at the end", SHARE, number=3)

    def share(self, step: int, step_count: int) -> float:
        top = self.rise * step_count
        if step < top:
            return _cosine(self.initial_share, 1.0, step / top)
        return _cosine(1.0, self.final_share, (step - top) / (step_count - top))


@dataclass(frozen=True)
class Segment:
    """A schedule over its own ``step_count`` steps."""

    schedule: Schedule = part(Constant(), "Its form; without a learning_rate and not joined itself", number=1)
    step_count: int = setting(0, "Steps it takes; the last segment has what is left", number=2)


@dataclass(frozen=True)
class Joined(Schedule):
    """Schedules one after the other; the last has what steps are left."""

    name, number = "joined", 8
    segments: tuple[Segment, ...] = part((), "In order", number=1)

    def share(self, step: int, step_count: int) -> float:
        starts = [0]
        for segment in self.segments[:-1]:
            starts.append(starts[-1] + segment.step_count)
        starts.append(max(step_count, starts[-1] + 1))
        for segment, (start, end) in zip(self.segments, pairwise(starts), strict=True):
            if step < end:
                return segment.schedule.share(step - start, end - start)
        raise ValueError(f"step must be below {step_count}, got {step}")


SCHEDULES: dict[str, type[Schedule]] = {kind.name: kind for kind in Schedule.__subclasses__()}


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + cos(pi * progress)) / 2
