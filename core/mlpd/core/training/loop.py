"""Training as a generator of events; closing it stops the run and leaves the state as it is."""

import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from mlpd.core.devices.blas import one_product_thread, product_threads
from mlpd.core.execution.opening import open_runner
from mlpd.core.plans.runner import Program, Runner
from mlpd.core.training.events import Event, MetricsRecorded, StepEnded, StoppedEarly
from mlpd.core.training.state import TrainingState

CHUNK_SECONDS = 0.04  # that compiled steps take before the run can be saved or stopped


def train(
    state: TrainingState,
    thread_count: int | None = None,
    kernels: Path | None = None,
    chunk_seconds: float = CHUNK_SECONDS,
) -> Generator[Event, None, None]:
    """Train ``state`` to the end of its spec; yield `StepEnded` after each chunk of steps, and reports just before it.

    If early stopping or a time limit ends the run, `StoppedEarly` follows; the last event is the report of test rows,
    if there are any. A chunk is one step or, in a compiled run, as many as take about ``chunk_seconds``. Compiled runs
    have ``thread_count`` threads, None = as many as NumPy's products have, and keep their code in the directory
    ``kernels``, None = in no file. No results depend on any of these.

    The order of rows depends on (seed, epoch) alone. A run resumed from a checkpoint taken at any `StepEnded` repeats
    the rest bit for bit, unless a time limit ends it. Raises `Diverged`, and `RunnerUnavailable` before the first step.
    """
    spec = state.spec
    steps_per_epoch = spec.steps_per_epoch(state.examples.row_count)
    time_spent = _Stopwatch(state.elapsed_seconds)
    # A chunk of other runners is one step.
    pace, count = _Pace(chunk_seconds if spec.runner == "compiled" else 0.0), spec.epoch_count * steps_per_epoch
    threads = thread_count or product_threads()  # asked before products are limited to one thread
    with ExitStack() as stack:
        if spec.runner == "compiled":
            stack.enter_context(one_product_thread())  # for warping images

        def opened(program: Program) -> Runner:
            return stack.enter_context(closing(open_runner(spec.runner, program, state.device, threads, kernels)))

        runner = opened(state.blocks)
        scorer = opened(state.validation) if state.validation else None
        tester = opened(state.testing) if state.testing else None
        stack.enter_context(state.blocks.feed.open(state.step))
        while state.step < count:
            if reason := state.reason_to_stop():
                yield StoppedEarly(state.step, reason)
                break
            to_report, to_epoch = (
                interval - state.step % interval for interval in (spec.metrics_interval_steps, steps_per_epoch)
            )
            with pace.over(min(to_report, to_epoch)) as step_count:
                state.make_steps(runner, step_count)
            yield from _due_reports(state, scorer)
            if spec.time_limit_seconds:
                state.elapsed_seconds = time_spent()
            yield StepEnded(state.step, state.step // steps_per_epoch)
        if tester:
            yield state.test(tester, state.step // steps_per_epoch)


def _due_reports(state: TrainingState, scorer: Runner | None) -> Iterator[MetricsRecorded]:
    """Yield the reports that are due now: of training rows, and at the end of an epoch of validation rows."""
    spec = state.spec
    epochs_done, index = divmod(state.step, spec.steps_per_epoch(state.examples.row_count))
    ends_epoch = index == 0
    if ends_epoch or state.step % spec.metrics_interval_steps == 0:
        yield state.report(epochs_done)
    due = epochs_done % spec.validation.interval_epochs == 0 or epochs_done == spec.epoch_count
    if ends_epoch and due and scorer:
        scores = state.validate(scorer, epochs_done)
        yield scores
        state.note_validation(scores)


class _Pace:
    """Chooses how many steps to make at a time, so that they take about ``seconds``: from the time of those before."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._fitting = seconds, 1

    @contextmanager
    def over(self, limit: int) -> Iterator[int]:
        """Yield how many steps to make in the ``with`` block, at most ``limit``, and time the block."""
        count, start = min(limit, self._fitting), time.monotonic()
        yield count
        seconds_each = max(time.monotonic() - start, 1e-9) / count
        self._fitting = max(1, min(int(self._seconds / seconds_each), 2 * count))


class _Stopwatch:
    def __init__(self, elapsed_seconds: float) -> None:
        self._start = time.monotonic() - elapsed_seconds

    def __call__(self) -> float:
        return time.monotonic() - self._start
