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
from mlpd.core.execution.arithmetic import verified_compiler
from mlpd.core.execution.fusion import fuse
from mlpd.core.execution.plan import Plan, Variant, Work
from mlpd.core.execution.recording import Numbers, Scalar
from mlpd.core.execution.runner import PlannedCall, Program
from numpy.typing import NDArray

Segment = tuple[int, int]  # where a table of calls is, and how many
# Of a task; each with the row of scalars that it takes: 0 is its stage's, 1 the next.
_Segments = list[tuple[int, int, int]]

_WHOLE = frozenset(("step", "first", "first_row"))  # scalars that are whole numbers


class _Tables:
    """Tables of whole numbers for compiled code, kept alive."""

    def __init__(self) -> None:
        self._kept: list[Any] = []

    def table(self, numbers: Sequence[int]) -> int:
        """Return the address of a table of ``numbers``."""
        table = np.array([number & 2**64 - 1 for number in numbers], np.uint64)
        self._kept.append(table)
        return table.ctypes.data


class CompiledRunner:
    """Runs plans in compiled code by ``thread_count`` threads, this one among them, which change no results."""

    def __init__(self, program: Program, thread_count: int, directory: Path | None) -> None:
        self._program, self._compiler = program, verified_compiler(directory)
        loop = self._compiler.function("loop", write_loop)
        self._loop = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(loop)
        self._tables = _Tables()
        self._columns: dict[Scalar, int] = {}
        self._plans: dict[Variant, tuple[Plan, list[Segment]]] = {}
        self._wanted: dict[Variant, set[str]] = {}  # names of scalars
        self._stages: dict[tuple[Variant | None, Variant | None], tuple[int, int]] = {}
        # What threads share: how many tasks are done and, for each place in a round, which rounds it is claimed in.
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
        """Return each task's kernels."""
        return [
            [PlannedCall(call.name, call.bytes, call.operations, partial(self._bound, call)) for call in calls]
            for calls in fuse(list(plan.tasks()), self._program.kept)
        ]

    def _bound(self, call: Call, numbers: Numbers) -> Callable[[], None]:
        """Return what makes one call, on the thread that calls it."""
        address, arguments = self._entry(call)
        rows = self._rows({name: np.array([number]) for name, number in numbers.items()}, 1)
        kernel = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(address)
        return lambda: kernel(arguments, rows[1:].ctypes.data)

    def prepare(self, work: Work) -> Callable[[], None]:
        """Return what runs micro-batches one after the other."""
        table = self._stage_table(work)
        rows = self._rows(work.numbers, len(work))
        plans = [self._plan(variant)[0] for variant in work.variants]
        if missing := set().union(*(self._wanted[variant] for variant in work.variants)) - work.numbers.keys():
            raise KeyError(f"numbers must have {', '.join(sorted(missing))}, which the plan wants")
        most_tasks = max(len(plan.prepare) + max(map(len, plan.phases)) for plan in plans)  # that a round may have
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
            self._chunk = table, rows, chunk  # which a thread may still look at when this one is interrupted
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
        """Return the scalars of ``count`` micro-batches, a row each, after a row that nobody looks at."""
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
        """Compile what micro-batches of this kind call, unless it is there."""
        self._plan(variant)

    def _plan(self, variant: Variant) -> tuple[Plan, list[Segment]]:
        """Return a plan and, task by task, its calls: where they are, and how many."""
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
        """Return where a call's kernel is, and where its arguments."""
        arguments = self._tables.table([*map(self._encoded, call.arguments)])
        return self._compiler.function(call.kernel, partial(write_kernel, kernel=call.kernel)), arguments

    def _encoded(self, argument: Any) -> int:
        """Return an argument as a whole number: a float's bits, a scalar's place in its row."""
        if isinstance(argument, Scalar):
            assert argument.factor == 1 or argument.name not in _WHOLE, argument
            return self._columns.setdefault(argument, len(self._columns))
        if isinstance(argument, float):
            return int(np.float64(argument).view(np.int64))
        return int(argument)

    def _stage_table(self, work: Work) -> NDArray[np.int64]:
        """Return the stages (count + 1, 2): what comes before the first micro-batch, between two, after the last."""
        which, kinds = work.which, len(work.variants)
        pairs = which[:-1] * kinds + which[1:]
        known, places = np.unique(pairs, return_inverse=True)
        variants = work.variants
        stages = [self._stage(variants[pair // kinds], variants[pair % kinds]) for pair in known.tolist()]
        first, last = self._stage(None, variants[which[0]]), self._stage(variants[which[-1]], None)
        between = np.array(stages, np.int64).reshape(-1, 2)[places]
        return np.concatenate([[first], between, [last]]).astype(np.int64)

    def _stage(self, before: Variant | None, after: Variant | None) -> tuple[int, int]:
        """Return the rounds of what is left of ``before``, and of what comes before the rest of ``after``.

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
        """Return where the tasks of a round are that have anything to do, and how many."""
        entries: list[int] = []
        for task in tasks:
            filled = [segment for segment in task if segment[1]]
            if filled:
                entries += [self._tables.table([part for segment in filled for part in segment]), len(filled)]
        return self._tables.table(entries), len(entries) // 2

    def _opening(self, variant: Variant | None) -> tuple[list[_Segments], list[_Segments]]:
        """Return what brings the rows and, where phases join, the first phase, as tasks of the next row's scalars."""
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
