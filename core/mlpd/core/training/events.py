"""What a run tells of itself while it goes on: frozen events."""

from dataclasses import dataclass


@dataclass(frozen=True)
class StepEnded:
    """Steps are complete: the state may be saved, or the run stopped, until the next event is asked for."""

    step: int
    epoch: int


@dataclass(frozen=True)
class MetricsRecorded:
    """Mean loss and accuracy: of the training rows since the last report, or of all validation rows.

    ``accuracy`` is None where no output is right or wrong. ``step`` and ``epoch`` are counts of what is done.
    """

    split: str
    step: int
    step_count: int
    epoch: int
    epoch_count: int
    loss: float
    accuracy: float | None
    learning_rate: float


@dataclass(frozen=True)
class StoppedEarly:
    """The run ends before its last epoch; ``reason`` is a sentence."""

    step: int
    reason: str


Event = StepEnded | MetricsRecorded | StoppedEarly
