"""What is made of a job's events."""

from mlpd.client.cli.follow import collect, show
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
