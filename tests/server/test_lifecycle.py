"""The job's state machine, as pure functions."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlpd.core.network.architecture import ModelSpec
from mlpd.core.optimization.optimizers import Sgd
from mlpd.core.spec.training import OptimizerSpec, ScheduleSpec, TrainingSpec
from mlpd.server.errors import ErrorKind, PreconditionFailed
from mlpd.server.executors.attempt import Attempt
from mlpd.server.jobs import lifecycle
from mlpd.server.records import (
    AttemptStarted,
    CheckpointSaved,
    DatasetRecord,
    Decision,
    Failed,
    Failure,
    Finished,
    Frame,
    Job,
    JobState,
    JobStatus,
    MessageLogged,
    MetricsRecorded,
    Progress,
    StateChanged,
    Stopped,
    StopReason,
    decode_frame,
    encode_frame,
)

SPEC = TrainingSpec(
    ModelSpec.plain((2, 2)),
    "datasets/a",
    "0",
    1,
    1,
    OptimizerSpec(Sgd()),
    ScheduleSpec(0.1),
    0,
    "cpu",
    1,
)
QUEUED = JobStatus(JobState.QUEUED, Progress(0, 9, 0, 3))
JOB = Job("a", None, "", "a", "log", SPEC, SPEC.digest, memory_bytes=9, create_time=1, status=QUEUED)
# What the job trains on.
DATASET = DatasetRecord(
    id="a",
    sha256=SPEC.train_sha256,
    size_bytes=9,
    row_count=9,
    input_size=2,
    encoded_size=2,
    dtype="float32",
    class_row_counts=(5, 4),
    target_dtype="int64",
    target_size=0,
    target_range=(0.0, 1.0),
    whole_targets=True,
    weighted=False,
    input_range=(0.0, 1.0),
    whole_inputs=True,
    create_time=1,
)
RUNNING = replace(QUEUED, state=JobState.RUNNING, attempt=1)
NOW = 5
SAVED = CheckpointSaved(3, "0", 1)
FRAMES: list[Frame] = [
    AttemptStarted(0, "first", "cpu", "numpy, 2 threads"),
    MetricsRecorded("train", Progress(3, 9, 1, 3, 10.5, 2.25), 0.1, 1 / 3, 1e-3),
    SAVED,
    MessageLogged("WARNING", "line\nbreak \N{SNOWMAN}"),
    Finished("a", "b", 6),
    Failed(Failure(ErrorKind.DATA_LOSS, "R", "m")),
    Stopped(StopReason.DRAIN),
]


@pytest.mark.parametrize("frame", FRAMES)
def test_a_frame_survives_the_pipe(frame):
    line = encode_frame(frame)
    assert line.count(b"\n") == 1
    assert decode_frame(line.rstrip(b"\n")) == frame


def test_success_publishes():
    decision = lifecycle.report(RUNNING, NOW, 1, [*FRAMES[:3], Finished("file", "parameters", 6)])
    assert decision.status.state is JobState.SUCCEEDED
    assert decision.published == Finished("file", "parameters", 6)
    assert decision.payloads[-1] == StateChanged(JobState.RUNNING, JobState.SUCCEEDED)
    assert decision.status.progress.step == 3
    assert decision.status.checkpoints == (SAVED,)


@pytest.mark.parametrize("state", [JobState.RUNNING, JobState.CANCELLING])
@pytest.mark.parametrize("reason", StopReason)
def test_a_stopped_worker_ends_what_is_cancelled_and_leaves_the_rest_to_the_next_server(state, reason):
    ends = JobState.QUEUED if (state, reason) == (JobState.RUNNING, StopReason.DRAIN) else JobState.CANCELLED
    assert lifecycle.report(replace(RUNNING, state=state), NOW, 1, [Stopped(reason)]).status.state is ends


def test_a_late_report_of_an_earlier_attempt_changes_nothing():
    later = replace(RUNNING, attempt=2)
    for decision in (
        lifecycle.report(later, NOW, 1, FRAMES),
        lifecycle.lose(later, NOW, 1, "died"),
        lifecycle.fail(later, NOW, 1, Failure(ErrorKind.INTERNAL, "", "")),
    ):
        assert decision == Decision(later)


def test_a_worker_lost_three_times_without_progress_fails_the_job():
    status = RUNNING
    for attempt in (1, 2):
        status = lifecycle.lose(status, NOW, attempt, "was killed by SIGKILL").status
        assert status.state is JobState.QUEUED
        status = lifecycle.start(status, NOW).status
    status = lifecycle.lose(status, NOW, 3, "was killed by SIGKILL").status
    assert status.failure
    assert (status.state, status.failure.reason) == (JobState.FAILED, "CRASH_LOOP")


def test_a_new_checkpoint_forgives_earlier_crashes():
    status = replace(RUNNING, crash_count=2)
    assert lifecycle.report(status, NOW, 1, [SAVED]).status.crash_count == 0


def test_only_the_newest_checkpoints_are_kept():
    status = lifecycle.report(RUNNING, NOW, 1, [CheckpointSaved(step, "", 1) for step in (1, 2, 3)]).status
    assert [saved.step for saved in status.checkpoints] == [3, 2]


def test_a_job_is_timed_by_its_first_start_and_its_end():
    first = lifecycle.start(QUEUED, 5).status
    again = lifecycle.start(lifecycle.recover(first, 6).status, 7).status
    ended = lifecycle.lose(replace(again, crash_count=2), 8, 2, "died").status
    assert [(job.start_time, job.end_time) for job in (first, again, ended)] == [(5, 0), (5, 0), (5, 8)]


@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.FAILED])
def test_an_ended_job_can_not_be_cancelled(state):
    with pytest.raises(PreconditionFailed):
        lifecycle.cancel(replace(QUEUED, state=state), NOW, "a")


def test_a_restart_requeues_what_ran_and_ends_what_was_being_cancelled():
    assert lifecycle.recover(RUNNING, NOW).status.state is JobState.QUEUED
    assert lifecycle.recover(replace(RUNNING, state=JobState.CANCELLING), NOW).status.state is JobState.CANCELLED


ACTIONS = {
    "start": lambda status: lifecycle.start(status, NOW),
    "refuse": lambda status: lifecycle.refuse(status, NOW, Failure(ErrorKind.DATA_LOSS, "R", "m")),
    "cancel": lambda status: lifecycle.cancel(status, NOW, "a"),
    "recover": lambda status: lifecycle.recover(status, NOW),
    "finish": lambda status: lifecycle.report(status, NOW, status.attempt, [Finished("", "", 6)]),
    "drain": lambda status: lifecycle.report(status, NOW, status.attempt, [Stopped(StopReason.DRAIN)]),
    "fail": lambda status: lifecycle.report(
        status, NOW, status.attempt, [Failed(Failure(ErrorKind.DATA_LOSS, "R", "m"))]
    ),
    "lose": lambda status: lifecycle.lose(status, NOW, status.attempt, "died"),
}


@given(st.lists(st.sampled_from(sorted(ACTIONS))))
def test_a_job_ends_at_most_once_and_every_transition_is_told(actions):
    status, ends = QUEUED, 0
    for action in actions:
        before = status
        try:
            decision = ACTIONS[action](status)
        except PreconditionFailed:
            continue
        status = decision.status
        changes = [payload for payload in decision.payloads if isinstance(payload, StateChanged)]
        assert [(change.from_state, change.to_state) for change in changes] == (
            [] if status.state is before.state else [(before.state, status.state)]
        )
        ends += sum(change.to_state.terminal for change in changes)
        assert before.state.terminal <= (status.state is before.state)
    assert ends <= 1


def test_a_run_that_begins_again_in_another_environment_forgets_what_the_earlier_one_came_to():
    before = replace(
        RUNNING, attempt=2, environment="2 threads", checkpoints=(SAVED,), progress=Progress(3, 9, 1, 3, 5, 6)
    )
    again = lifecycle.report(before, NOW, 2, [AttemptStarted(0, "environment_changed", "cpu", "1 thread")]).status
    assert (again.run, again.environment, again.checkpoints) == (before.run + 1, "1 thread", ())
    assert again.progress == Progress(0, 9, 0, 3)
    goes_on = lifecycle.report(before, NOW, 2, [AttemptStarted(3, "server_restart", "cpu", "2 threads")]).status
    assert goes_on == replace(before, device_description="cpu")


def test_an_attempt_survives_its_line(tmp_path):
    places = (tmp_path / "x", None, None, None, tmp_path, tmp_path, tmp_path / "kernels")
    attempt = Attempt("a", SPEC, "first", "numpy", *places, (SAVED,), 0.5, 2)
    assert attempt.to_line().count(b"\n") == 1
    assert Attempt.from_line(attempt.to_line()) == attempt
