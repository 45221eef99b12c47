"""What is made of a job's events."""

from mlpd.client.cli.follow import Pace, collect, show
from mlpd.v1.trainer_service_pb2 import AttemptStarted, MetricsRecorded, Progress, ProgressEvent


def metrics(loss, split=MetricsRecorded.SPLIT_TRAIN):
    now = Progress(step=1, step_count=2, epoch=1, epoch_count=2)
    return ProgressEvent(metrics_recorded=MetricsRecorded(split=split, loss=loss, accuracy=0.5, progress=now))


def started(reason, resume_step=0):
    return ProgressEvent(attempt_started=AttemptStarted(reason=reason, resume_step=resume_step))


VALIDATION = MetricsRecorded.SPLIT_VALIDATION


def test_losses_from_before_a_run_began_again_no_longer_count(capsys):
    events = [started("first"), metrics(1.0), metrics(0.25), metrics(0.5, VALIDATION)]
    events += [started("environment_changed"), metrics(1.5), metrics(0.75)]
    for follow in (collect, show):
        summary = follow(events)
        assert summary.train_losses == [1.5, 0.75]
        assert summary.loss_always_fell
        assert (summary.validation_loss, summary.validation_accuracy) == (None, None)
    assert "begins again: environment changed" in capsys.readouterr().out


def test_losses_from_before_a_run_went_on_still_count(capsys):
    events = [started("first"), metrics(1.0), started("server_restart", 7), metrics(0.25)]
    assert show(events).train_losses == [1.0, 0.25]
    assert "goes on at step 7 (server restart)" in capsys.readouterr().out


def test_between_reports_the_bar_moves_by_the_server_s_estimate_but_not_past_the_next():
    report = MetricsRecorded(progress=Progress(step=100, step_count=400, epoch=1, epoch_count=4))
    report.progress.remaining_duration.FromSeconds(30)
    pace = Pace.of(report, now=1000.0)
    assert [pace.step_at(1000.0 + seconds) for seconds in (0, 1, 5, 9.5, 60)] == [100, 110, 150, 195, 199]
    report.progress.remaining_duration.FromSeconds(0)
    assert Pace.of(report, now=0.0).step_at(9.0) == 100
    ended = Pace.of(MetricsRecorded(progress=Progress(step=400, step_count=400, epoch=4, epoch_count=4)), 0.0)
    assert ended.step_at(5.0) == 400
