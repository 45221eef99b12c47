"""The events that a run yields, as frozen values."""

from dataclasses import dataclass


@dataclass(frozen=True)
class StepEnded:
    """``step`` steps and ``epoch`` epochs are complete.

    Until the next event is asked for, the state may be saved or the run stopped.
    """

    step: int
    epoch: int


@dataclass(frozen=True)
class MetricsRecorded:
    """Mean loss and accuracy: of the training rows since the last report, or of all validation rows.

    ``split`` is "train" or "validation". ``accuracy``, a share, is None for a task that counts no hits. ``step`` and
    ``epoch`` count what is complete; ``learning_rate`` is that of the last step.
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
    """The run ends before its last step; ``reason`` says why."""

    step: int
    reason: str


Event = StepEnded | MetricsRecorded | StoppedEarly
