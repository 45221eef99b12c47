"""What a step of a run consists of, kernel by kernel, from its plan: `mlpd explain`."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mlpd.core.data.datasets import Dataset
from mlpd.core.devices.arrays import ByColumns, Cpu, HostArray
from mlpd.core.execution.opening import open_runner
from mlpd.core.network.scaling import Scaling
from mlpd.core.network.tasks import TASKS
from mlpd.core.plans.plan import Plan, Variant, Work
from mlpd.core.plans.recording import Numbers
from mlpd.core.plans.runner import PlannedCall
from mlpd.core.spec.training import TrainingSpec
from mlpd.core.steps.batches import cut
from mlpd.core.steps.examples import Examples
from mlpd.core.steps.program import Blocks, work_of

_TURNS = 5  # of each measurement; the fastest counts


@dataclass(frozen=True)
class Line:
    """A kernel of a phase: its ``call_count`` calls there, and the bytes, operations and seconds of one call."""

    phase: str
    name: str
    call_count: int
    bytes: int
    operations: int
    seconds: float


@dataclass(frozen=True)
class Explanation:
    """The kernels of a step's last micro-batch, and the totals of a step on ``thread_count`` threads of this machine.

    Kernels read and write ``bytes`` and make ``operations`` floating-point operations in a whole step.
    """

    lines: Sequence[Line]
    bytes: int
    operations: int
    thread_count: int
    step_seconds: float


def explain(
    spec: TrainingSpec, row_count: int, dtype: str, thread_count: int, kernels: Path | None = None
) -> Explanation:
    """Record a step of a run on ``row_count`` rows with inputs of type ``dtype``, and time its kernels one by one.

    The time of a step supposes that each of ``thread_count`` threads has a processor of its own. A run on a GPU is not
    explained. Raises `RunnerUnavailable`.
    """
    device = ByColumns() if spec.runner == "compiled" else Cpu()
    blocks = Blocks(device, spec, noise(spec, row_count, dtype))
    batches = cut(spec, spec.train_row_count(row_count), 0, 1)
    work = work_of(spec, batches, [spec.schedule.learning_rate], 1, np.zeros(len(batches.rows), np.int64))
    threads = thread_count if spec.runner == "compiled" else 1  # NumPy's products have taken theirs
    lines: list[Line] = []
    size = operations = 0
    step_seconds = 0.0
    blocks.feed.begin(0)
    with closing(open_runner(spec.runner, blocks, device, 1, kernels)) as runner:
        for variant, count, numbers in _kinds(work):
            plan = blocks.record(variant)
            tasks = [[(call, _seconds(call, numbers)) for call in task] for task in runner.calls(plan)]
            every = [call for task in tasks for call, _ in task]
            size += count * sum(call.bytes for call in every)
            operations += count * sum(call.operations for call in every)
            step_seconds += count * _critical_seconds(plan, tasks, threads)
            if variant.is_last:
                lines = list(_lines(plan, tasks))
    return Explanation(lines, size, operations, threads, step_seconds)


def _kinds(work: Work) -> Iterator[tuple[Variant, int, Numbers]]:
    """Yield each variant of a step's micro-batches, how many are of it, and the scalars of one."""
    for number, variant in enumerate(work.variants):
        places = np.flatnonzero(work.which == number)
        yield variant, len(places), {name: column[places[0]].item() for name, column in work.numbers.items()}


_Timed = list[tuple[PlannedCall, float]]


def noise(spec: TrainingSpec, row_count: int, dtype: str) -> Examples:
    """Return examples to record and time plans with; all inputs are views of one row, which takes little memory."""
    sizes = spec.model.layer_sizes
    rows = spec.train_row_count(row_count)
    inputs = np.broadcast_to(np.ones((1, sizes[0]), dtype), (rows, sizes[0]))
    wide = () if TASKS[spec.task].has_classes else (sizes[-1],)
    targets: HostArray = np.zeros((rows, *wide), np.float32 if wide else np.uint8)
    standardizes = spec.model.standardize_inputs
    scaling = Scaling(np.zeros(sizes[0]), np.ones(sizes[0])) if standardizes else Scaling(None, spec.model.input_scale)
    weights = np.ones((rows, 1), spec.model.dtype) if spec.loss.class_weights else None
    return Examples(row_count, Dataset(inputs, targets), None, scaling, weights)


@np.errstate(all="ignore")  # as in a step
def _seconds(call: PlannedCall, numbers: Numbers) -> float:
    """Return the seconds of a call, with its overhead but not the clock's: half of what three take more than one."""
    run = call.bind(numbers)
    once, thrice = [], []
    for _ in range(_TURNS):
        start = time.perf_counter()
        run()
        middle = time.perf_counter()
        run()
        run()
        run()
        once.append(middle - start)
        thrice.append(time.perf_counter() - middle)
    return max(min(thrice) - min(once), 0.0) / 2


def _phases(plan: Plan, tasks: Sequence[_Timed]) -> list[tuple[str, Sequence[_Timed]]]:
    """Return the name and the tasks of each phase; loading the rows is the first."""
    start = len(plan.prepare)
    phases = [("rows", tasks[:start])]
    for number, phase in enumerate(plan.phases, 1):
        phases.append((f"phase {number}", tasks[start : start + len(phase)]))
        start += len(phase)
    return phases


def _critical_seconds(plan: Plan, tasks: Sequence[_Timed], threads: int) -> float:
    """Return the seconds of a micro-batch if ``threads`` threads take the longest tasks of each phase first."""
    total = 0.0
    for _, own in _phases(plan, tasks):
        ends = [0.0] * threads
        for seconds in sorted((sum(each for _, each in task) for task in own), reverse=True):
            ends[ends.index(min(ends))] += seconds
        total += max(ends)
    return total


def _lines(plan: Plan, tasks: Sequence[_Timed]) -> Iterator[Line]:
    """Yield one line for all calls of a phase that are alike, with the seconds of the fastest."""
    for phase, own in _phases(plan, tasks):
        alike: dict[tuple[str, int, int], list[float]] = {}
        for call, seconds in (timed for task in own for timed in task):
            alike.setdefault((call.name, call.bytes, call.operations), []).append(seconds)
        for (name, size, operations), seconds_each in alike.items():
            yield Line(phase, name, len(seconds_each), size, operations, min(seconds_each))
