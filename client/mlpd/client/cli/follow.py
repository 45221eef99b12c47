"""Shows a job's events as they come, on a terminal or in a log."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from mlpd.client.cli.output import console, plain, state_of
from mlpd.v1.trainer_service_pb2 import AttemptStarted, MessageLogged, MetricsRecorded, ProgressEvent, TrainingJob
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.progress_bar import ProgressBar
from rich.text import Text

# A run of many epochs prints about so many lines; the bar shows the rest.
_LINES = 25
_BEGINS_AGAIN = "environment_changed"


@dataclass
class Summary:
    """What a run's reports came to."""

    train_losses: list[float] = field(default_factory=list)
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    warnings: list[str] = field(default_factory=list)

    @property
    def loss_always_fell(self) -> bool:
        """Whether each report's loss is below the one before."""
        pairs = zip(self.train_losses, self.train_losses[1:], strict=False)
        return len(self.train_losses) > 1 and all(later < earlier for earlier, later in pairs)


def collect(events: Iterable[ProgressEvent]) -> Summary:
    """Follow a job to its end in silence."""
    summary = Summary()
    for event in events:
        _take(summary, event)
    return summary


def show(events: Iterable[ProgressEvent]) -> Summary:
    """Follow a job to its end with a bar and a line for each report."""
    summary = Summary()
    columns = (TextColumn("{task.description}"), _Bar(None), _Share(), _TimeLeft())
    with Progress(*columns, console=console, transient=True, expand=True) as progress:
        bar = progress.add_task("queued", total=None)
        for event in events:
            _take(summary, event)
            match event.WhichOneof("payload"):
                case "metrics_recorded":
                    metrics = event.metrics_recorded
                    now = metrics.progress
                    progress.update(
                        bar,
                        description=f"epoch {now.epoch}/{now.epoch_count}",
                        total=now.step_count,
                        completed=now.step,
                        pace=Pace.of(metrics, time.monotonic()),
                    )
                    every = -(-now.epoch_count // _LINES)
                    if now.epoch % every == 0 or now.epoch in (1, now.epoch_count):
                        progress.console.print(_line(metrics))
                case "state_changed":
                    progress.update(bar, description=state_of(TrainingJob(state=event.state_changed.to_state)))
                case "attempt_started" if event.attempt_started.reason != "first":
                    progress.console.print(_start(event.attempt_started))
                case "message_logged":
                    word = MessageLogged.Severity.Name(event.message_logged.severity).removeprefix("SEVERITY_")
                    text = f"{word.lower()}: {plain(event.message_logged.message)}"
                    progress.console.print(text, style="yellow", markup=False)
    return summary


@dataclass(frozen=True)
class Pace:
    """Where a run stood at its last report, at the time ``since``, and how fast it goes by the server's own estimate.

    That knows of queueing and restarts. ``next_step`` is the report's next one, which a run has not reached before it.
    """

    step: int
    next_step: int
    step_count: int
    seconds_left: float
    since: float

    @classmethod
    def of(cls, metrics: MetricsRecorded, now: float) -> "Pace":
        """Return the pace that a report tells at the time ``now``; the next is expected an epoch later."""
        own = metrics.progress
        seconds = own.remaining_duration.ToTimedelta().total_seconds()
        steps = -(-own.step_count // max(own.epoch_count, 1))
        return cls(own.step, min(own.step + steps, own.step_count), own.step_count, seconds, now)

    def step_at(self, now: float) -> float:
        """Return the step that the run should have reached, short of its next report."""
        left = self.step_count - self.step
        if not left or self.seconds_left <= 0:
            return self.step
        return min(self.step + left * (now - self.since) / self.seconds_left, max(self.next_step - 1, self.step))


class _Bar(BarColumn):
    """A bar that moves between reports, too."""

    def render(self, task: Task) -> ProgressBar:
        bar = super().render(task)
        if pace := task.fields.get("pace"):
            bar.completed = pace.step_at(time.monotonic())
        return bar


class _Share(ProgressColumn):
    """How much of the steps the bar shows as done."""

    def render(self, task: Task) -> Text:
        pace = task.fields.get("pace")
        share = pace.step_at(time.monotonic()) / max(pace.step_count, 1) if pace else 0.0
        return Text(f"{share:4.0%}")


class _TimeLeft(ProgressColumn):
    """How long the run should take still."""

    def render(self, task: Task) -> Text:
        if not (pace := task.fields.get("pace")):
            return Text("")
        seconds = round(max(pace.seconds_left - (time.monotonic() - pace.since), 0))
        return Text(f"{seconds // 60}:{seconds % 60:02d} left")


def _take(summary: Summary, event: ProgressEvent) -> None:
    if event.attempt_started.reason == _BEGINS_AGAIN:
        summary.train_losses.clear()
        summary.validation_loss = summary.validation_accuracy = None
    elif event.message_logged.severity == MessageLogged.SEVERITY_WARNING:
        summary.warnings.append(event.message_logged.message)
    elif event.HasField("metrics_recorded"):
        metrics = event.metrics_recorded
        if metrics.split == MetricsRecorded.SPLIT_TRAIN:
            summary.train_losses.append(metrics.loss)
        elif metrics.split == MetricsRecorded.SPLIT_VALIDATION:
            summary.validation_loss = metrics.loss
            summary.validation_accuracy = metrics.accuracy if metrics.HasField("accuracy") else None


def _start(start: AttemptStarted) -> str:
    why = start.reason.replace("_", " ")
    if start.reason == _BEGINS_AGAIN:
        return f"begins again: {why}"
    return f"goes on at step {start.resume_step} ({why})"


def _line(metrics: MetricsRecorded) -> str:
    now = metrics.progress
    split = MetricsRecorded.Split.Name(metrics.split).removeprefix("SPLIT_").lower()
    accuracy = f"accuracy {metrics.accuracy:7.2%}  " if metrics.HasField("accuracy") else ""
    return (
        f"epoch {now.epoch:>{len(str(now.epoch_count))}}/{now.epoch_count}  {split:<10}  loss {metrics.loss:.4f}  "
        f"{accuracy}{now.rows_per_second:>9,.0f} rows/s"
    )
