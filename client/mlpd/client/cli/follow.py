"""Shows a job's events as they come, on a terminal or in a log."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from mlpd.client.cli.output import console, plain, state_of
from mlpd.v1.trainer_service_pb2 import AttemptStarted, MessageLogged, MetricsRecorded, ProgressEvent, TrainingJob
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
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
    columns = (TextColumn("{task.description}"), BarColumn(None), TextColumn("{task.percentage:>3.0f}%"), _TimeLeft())
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
                        seconds_left=now.remaining_duration.seconds,
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


class _TimeLeft(ProgressColumn):
    """The server's own estimate, which knows of queueing and restarts."""

    def render(self, task: Task) -> Text:
        seconds = task.fields.get("seconds_left")
        return Text("" if seconds is None else f"{seconds // 60}:{seconds % 60:02d} left")


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
