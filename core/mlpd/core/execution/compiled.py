"""Runs plans in compiled code: tables of calls, made once, and threads that work through them."""

import ctypes
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from mlpd.core.codegen.emitter import write_kernel
from mlpd.core.codegen.kernels import Call
from mlpd.core.codegen.schedule import CELL_BYTES, write_loop
from mlpd.core.execution.fusion import fuse
from mlpd.core.execution.verification import verified_compiler
from mlpd.core.plans.plan import Plan, Variant, Work
from mlpd.core.plans.recording import Numbers, Scalar
from mlpd.core.plans.runner import PlannedCall, Program
from numpy.typing import NDArray

Segment = tuple[int, int]  # the address of a table of calls, and their number
# Those of a task, each with its row of scalars: 0 is the row of the stage, 1 the next.
_Segments = list[tuple[int, int, int]]

_WHOLE = frozenset(("step", "first", "first_row", "after"))  # scalars that are integers


class _Tables:
    """Makes tables of integers for compiled code, and keeps them alive."""

    def __init__(self) -> None:
        self._kept: list[Any] = []

    def table(self, numbers: Sequence[int]) -> int:
        """Return the address of a new table of ``numbers``, 64 bits each."""
        table = np.array([number & 2**64 - 1 for number in numbers], np.uint64)
        self._kept.append(table)
        return table.ctypes.data


class CompiledRunner:
    """Runs plans in compiled code on up to ``thread_count`` threads, the caller's included; they change no results.

    Object code is kept in ``directory``; None = in no file. Raises `RunnerUnavailable`.
    """

    def __init__(self, program: Program, thread_count: int, directory: Path | None) -> None:
        self._program, self._compiler = program, verified_compiler(directory)
        loop = self._compiler.function("loop", write_loop)
        self._loop = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(loop)
        self._tables = _Tables()
        self._columns: dict[Scalar, int] = {}
        self._plans: dict[Variant, tuple[Plan, list[Segment]]] = {}
        self._wanted: dict[Variant, set[str]] = {}  # names of scalars
        self._stages: dict[tuple[Variant | None, Variant | None], tuple[int, int]] = {}
        # Threads share the count of tasks done and, for each place in a round, the last round in which it is claimed.
        self._cells = np.zeros((program.task_limit + 1) * CELL_BYTES // 8, np.int64)
        self._yield = ctypes.cast(ctypes.CDLL(None).sched_yield, ctypes.c_void_p).value or 0
        self._thread_count = max(1, min(thread_count, program.task_limit))
        self._done: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._help, args=(number,), name=f"compute-{number}", daemon=True)
            for number in range(1, self._thread_count)
        ]
        self._inboxes: list[queue.SimpleQueue[int]] = [queue.SimpleQueue() for _ in self._threads]
        for thread in self._threads:
            thread.start()

    def _help(self, number: int) -> None:
        inbox = self._inboxes[number - 1]
        while chunk := inbox.get():
            self._loop(chunk, number)
            self._done.put(None)

    def calls(self, plan: Plan) -> list[list[PlannedCall]]:
        """Return the kernels of each task, to be run one by one."""
        return [
            [PlannedCall(call.name, call.bytes, call.operations, partial(self._bound, call)) for call in calls]
            for calls in fuse(list(plan.tasks()), self._program.kept)
        ]

    def _bound(self, call: Call, numbers: Numbers) -> Callable[[], None]:
        """Return a function that makes one call, with ``numbers``, on the thread that calls it."""
        address, arguments = self._entry(call)
        rows = self._rows({name: np.array([number]) for name, number in numbers.items()}, 1)
        kernel = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(address)
        return lambda: kernel(arguments, rows[1:].ctypes.data)

    def prepare(self, work: Work) -> Callable[[], None]:
        """Return a function that runs ``work`` in order and waits for it."""
        table = self._stage_table(work)
        rows = self._rows(work.numbers, len(work))
        plans = [self._plan(variant)[0] for variant in work.variants]
        if missing := set().union(*(self._wanted[variant] for variant in work.variants)) - work.numbers.keys():
            raise KeyError(f"numbers must have {', '.join(sorted(missing))}, which the plan wants")
        most_tasks = max(len(plan.prepare) + max(map(len, plan.phases)) for plan in plans)  # in a round
        thread_count = min(self._thread_count, most_tasks)
        chunk = np.array(
            [
                *(len(table), table.ctypes.data, rows.ctypes.data, rows.strides[0]),
                *(self._cells.ctypes.data, self._cells.ctypes.data + CELL_BYTES, thread_count, self._yield),
            ],
            np.int64,
        )
        inboxes, address = self._inboxes[: thread_count - 1], chunk.ctypes.data

        def run() -> None:
            self._chunk = table, rows, chunk  # kept alive: other threads may still read them if this one is interrupted
            self._cells.fill(0)
            for inbox in inboxes:
                inbox.put(address)
            try:
                self._loop(address, 0)
            finally:  # after Ctrl-C, too: the next chunk must find no thread in this one
                for _ in inboxes:
                    self._done.get()

        return run

    def _rows(self, numbers: Mapping[str, NDArray[Any]], count: int) -> NDArray[np.int64]:
        """Return scalars (count + 1, columns), as integers or the bits of floats; row 0 is unused."""
        rows = np.zeros((count + 1, max(len(self._columns), 1)), np.int64)
        floats = rows.view(np.float64)
        for scalar, column in self._columns.items():
            if scalar.name not in numbers:
                continue
            if scalar.name in _WHOLE:
                rows[1:, column] = numbers[scalar.name]
            else:
                floats[1:, column] = scalar.factor * numbers[scalar.name]
        return rows

    def close(self) -> None:
        """End the threads."""
        for inbox in self._inboxes:
            inbox.put(0)
        for thread in self._threads:
            thread.join()

    def load(self, variant: Variant) -> None:
        """Compile the kernels of micro-batches like ``variant``, unless that is done."""
        self._plan(variant)

    def _plan(self, variant: Variant) -> tuple[Plan, list[Segment]]:
        """Return a plan and one segment of calls for each of its tasks."""
        if variant not in self._plans:
            plan = self._program.record(variant)
            calls = fuse(list(plan.tasks()), self._program.kept)
            self._plans[variant] = plan, [self._segment(own) for own in calls]
            arguments = (argument for own in calls for call in own for argument in call.arguments)
            self._wanted[variant] = {argument.name for argument in arguments if isinstance(argument, Scalar)}
        return self._plans[variant]

    def _segment(self, calls: Sequence[Call]) -> Segment:
        return self._tables.table([number for call in calls for number in self._entry(call)]), len(calls)

    def _entry(self, call: Call) -> tuple[int, int]:
        """Return the addresses of a call's kernel and of its arguments."""
        arguments = self._tables.table([*map(self._encoded, call.arguments)])
        return self._compiler.function(call.kernel, partial(write_kernel, kernel=call.kernel)), arguments

    def _encoded(self, argument: Any) -> int:
        """Return an argument as an integer: for a float its bits, for a scalar its column."""
        if isinstance(argument, Scalar):
            assert argument.factor == 1 or argument.name not in _WHOLE, argument
            return self._columns.setdefault(argument, len(self._columns))
        if isinstance(argument, float):
            return int(np.float64(argument).view(np.int64))
        return int(argument)

    def _stage_table(self, work: Work) -> NDArray[np.int64]:
        """Return stages (micro-batches + 1, 2), each the address and number of its rounds.

        One comes before the first micro-batch, one between each two, one after the last.
        """
        which, kinds = work.which, len(work.variants)
        pairs = which[:-1] * kinds + which[1:]
        known, places = np.unique(pairs, return_inverse=True)
        variants = work.variants
        stages = [self._stage(variants[pair // kinds], variants[pair % kinds]) for pair in known.tolist()]
        first, last = self._stage(None, variants[which[0]]), self._stage(variants[which[-1]], None)
        between = np.array(stages, np.int64).reshape(-1, 2)[places]
        return np.concatenate([[first], between, [last]]).astype(np.int64)

    def _stage(self, before: Variant | None, after: Variant | None) -> tuple[int, int]:
        """Return the address and number of the rounds that end ``before`` and begin ``after``; None = no micro-batch.

        Scalars of ``before`` are in the row of the stage, those of ``after`` in the next.
        """
        key = before, after
        if key not in self._stages:
            self._stages[key] = self._rounds(before, after)
        return self._stages[key]

    def _rounds(self, before: Variant | None, after: Variant | None) -> tuple[int, int]:
        rounds: list[list[_Segments]] = []
        prepare, first = self._opening(after)
        if before is None:
            rounds += [prepare, first]
        else:
            plan, segments = self._plan(before)
            rounds += [[[(*segment, 0)] for segment in phase] for phase in _phases(plan, segments)[plan.free_phase :]]
            rounds[0] += prepare
            if first:
                rounds[-1] = [[*task, *following] for task, following in zip(rounds[-1], first, strict=True)]
        tables = [self._round_table(tasks) for tasks in rounds]
        filled = [number for table in tables if table[1] for number in table]
        return self._tables.table(filled), len(filled) // 2

    def _round_table(self, tasks: Sequence[_Segments]) -> tuple[int, int]:
        """Return the address and number of those tasks of a round that have calls."""
        entries: list[int] = []
        for task in tasks:
            filled = [segment for segment in task if segment[1]]
            if filled:
                entries += [self._tables.table([part for segment in filled for part in segment]), len(filled)]
        return self._tables.table(entries), len(entries) // 2

    def _opening(self, variant: Variant | None) -> tuple[list[_Segments], list[_Segments]]:
        """Return the tasks that load rows and, if the plan joins, those of phase 0, with the next row of scalars."""
        if variant is None:
            return [], []
        plan, segments = self._plan(variant)
        prepare: list[_Segments] = [[(*segment, 1)] for segment in segments[: len(plan.prepare)]]
        joined = _phases(plan, segments)[: plan.free_phase]
        return prepare, [[(*segment, 1)] for phase in joined for segment in phase]


def _phases(plan: Plan, segments: Sequence[Segment]) -> list[list[Segment]]:
    start, phases = len(plan.prepare), list[list[Segment]]()
    for phase in plan.phases:
        phases.append(list(segments[start : start + len(phase)]))
        start += len(phase)
    return phases
