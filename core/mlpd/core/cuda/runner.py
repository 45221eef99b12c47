"""Runs plans on a CUDA device: few launches a step and, where the same work comes again, one graph for all of it."""

import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from mlpd.core.arithmetic.numbers import BITS
from mlpd.core.cuda.calls import Call, Typed
from mlpd.core.cuda.compiler import CudaCompiler
from mlpd.core.cuda.fusion import fuse
from mlpd.core.cuda.launches import KERNEL, Launch, Part, launches_of, source_of, struct_of
from mlpd.core.cuda.packing import pack
from mlpd.core.cuda.products import THREADS
from mlpd.core.devices.arrays import Array, Device
from mlpd.core.plans.plan import Plan, Variant, Work
from mlpd.core.plans.recording import Numbers
from mlpd.core.plans.runner import PlannedCall, Program
from numpy.typing import NDArray

_log = logging.getLogger(__name__)

_COLUMNS = 64  # scalars that a micro-batch can have
_ROW_BYTES = 8 * _COLUMNS
_GRAPHS_KEPT = 8
_SEEN = object()  # in place of a graph: the work came once
_LONGEST = 2048  # micro-batches that are launched as one: a graph takes memory for every kernel
_CHUNKS_AHEAD = 2  # that the device may still have to do while the next is handed over


@dataclass(frozen=True)
class _Kernel:
    """A launch that is compiled."""

    function: Any
    blocks: int
    numbers: Any
    shared_bytes: int

    def launch(self, scalars: int, _: "_Scalars") -> None:
        """Launch it with the address of a micro-batch's row of scalars; the next one's follows."""
        arguments = self.numbers, scalars, scalars + _ROW_BYTES
        self.function((self.blocks,), (THREADS,), arguments, self.shared_bytes)


@dataclass(frozen=True)
class _PlainCall:
    """A call of the array library, for the micro-batch that runs (0) or for the next (1)."""

    call: Callable[[Numbers], object]
    row: int

    def launch(self, _: int, scalars: "_Scalars") -> None:
        """Make it."""
        self.call(scalars.of(self.row))


class _Scalars(NamedTuple):
    """Columns of scalars, and which stage takes them: it ends micro-batch ``stage`` - 1 and loads number ``stage``."""

    columns: Mapping[str, NDArray[Any]]
    stage: int

    def of(self, row: int) -> Numbers:
        return {name: column[self.stage - 1 + row] for name, column in self.columns.items()}


_Stage = Sequence[_Kernel | _PlainCall]


class CudaRunner:
    """Runs plans on ``device``; the bits are those of the plan's formulas, however it is launched.

    ``launching`` is "graph", one launch for work that comes again, or "eager", every kernel by the host. For one
    thread. Raises `RunnerUnavailable` when code can't be compiled.
    """

    def __init__(self, program: Program, device: Device, compiler: CudaCompiler, launching: str = "graph") -> None:
        self._program, self._device, self._xp = program, device, device.xp
        self._compiler = compiler
        self._captures = launching == "graph"
        self._columns: dict[Typed, int] = {}
        self._plans: dict[Variant, tuple[list[Call], list[Call]]] = {}
        self._wanted: dict[Variant, set[str]] = {}  # names of scalars
        self._stages: dict[tuple[Variant | None, Variant | None], _Stage] = {}
        self._scratch: list[Array] = []
        self._table = self._xp.zeros((0, _COLUMNS), np.int64)
        self._sent: bytes = b""
        self._graphs: OrderedDict[Any, Any] = OrderedDict()  # by their work
        self._busy: deque[Any] = deque()

    def calls(self, plan: Plan) -> list[list[PlannedCall]]:
        """Return the calls of each task, to be run one by one."""
        groups, scratch = fuse(list(plan.tasks()), self._program.kept, self._device.empty)
        self._scratch += scratch
        return [[self._planned(pack(group)) for group in own] for own in groups]

    def _planned(self, call: Call) -> PlannedCall:
        if call.plain:
            made = call.plain.call(self._device)
            return PlannedCall(call.plain.name, call.bytes, call.operations, lambda numbers: lambda: made(numbers))

        def bind(numbers: Numbers) -> Callable[[], object]:
            kernel = self._kernel([Part(call, 0)])
            row = self._xp.asarray(self._rows({name: np.array([n]) for name, n in numbers.items()}, 1)[1:])
            return lambda: kernel.launch(row.data.ptr, _Scalars({}, 0))

        return PlannedCall(call.code.name, call.bytes, call.operations, bind)

    def prepare(self, work: Work) -> Callable[[], None]:
        """Return a function that runs ``work`` in order; the device may still be busy when it returns.

        Long work is cut into parts that are alike, so that one graph does for all of them, and its memory is bounded.
        """
        starts = range(0, len(work), _LONGEST)
        parts = [self._prepare_part(work.part(start, start + _LONGEST)) for start in starts]

        def run() -> None:
            for part in parts:
                part()

        return run

    def _prepare_part(self, work: Work) -> Callable[[], None]:
        variants = [work.variants[number] for number in work.which.tolist()]
        stages = [self._stage(*pair) for pair in zip([None, *variants], [*variants, None], strict=True)]
        if missing := set().union(*(self._wanted[variant] for variant in work.variants)) - work.numbers.keys():
            raise KeyError(f"numbers must have {', '.join(sorted(missing))}, which the plan wants")
        rows = self._rows(work.numbers, len(work))
        return partial(self._run, stages, rows, work)

    def _run(self, stages: Sequence[_Stage], rows: NDArray[np.int64], work: Work) -> None:
        self._wait_for_others()
        self._send(rows)
        graph = self._graph(stages, work) if self._captures else None
        if graph is None:
            self._launch(stages, work)
        else:
            graph.launch()
        event = self._xp.cuda.Event(disable_timing=True)
        event.record()
        self._busy.append(event)

    def _launch(self, stages: Sequence[_Stage], work: Work) -> None:
        address = self._table.data.ptr
        for number, stage in enumerate(stages):
            scalars = _Scalars(work.numbers, number)
            for kernel in stage:
                kernel.launch(address + number * _ROW_BYTES, scalars)

    def _graph(self, stages: Sequence[_Stage], work: Work) -> Any:
        """Return the graph of work that has come before; None for other work, and where there can be no graph."""
        key = tuple(work.variants), work.which.tobytes(), self._table.data.ptr
        known = self._graphs.pop(key, None)
        if known is None:
            known = _SEEN
        elif known is _SEEN:
            known = self._captured(stages, work)
        self._graphs[key] = known
        while len(self._graphs) > _GRAPHS_KEPT:
            self._graphs.popitem(last=False)
        return None if known is _SEEN else known

    def _captured(self, stages: Sequence[_Stage], work: Work) -> Any:
        """Return the launches of ``stages`` as a graph; where that fails, `_SEEN`, and no more graphs are made."""
        stream = self._xp.cuda.Stream(non_blocking=True)
        try:
            with stream:
                stream.begin_capture()
                try:
                    self._launch(stages, work)
                finally:
                    graph = stream.end_capture()
            graph.upload(self._xp.cuda.get_current_stream())
        except Exception as error:  # noqa: BLE001 - whatever a driver says, launches one by one give the same bits
            _log.warning("steps are launched one by one, because no graph can be made of them: %s", error)
            self._captures = False
            return _SEEN
        return graph

    def _wait_for_others(self) -> None:
        """Wait until all but the last chunks are done: so a run can be stopped, and its chunks timed."""
        while len(self._busy) >= _CHUNKS_AHEAD:
            event = self._busy.popleft()
            if not event.done:
                event.synchronize()

    def _send(self, rows: NDArray[np.int64]) -> None:
        """Write scalars to the device, unless they are there."""
        if len(self._table) < len(rows):
            self._table = self._xp.zeros(rows.shape, np.int64)
            self._sent = b""
        content = rows.tobytes()
        if content != self._sent:
            self._device.write(rows, self._table[: len(rows)])
            self._sent = content

    def _rows(self, numbers: Mapping[str, NDArray[Any]], count: int) -> NDArray[np.int64]:
        """Return scalars (count + 2, columns), each as the bits of its type; the first row and the last are unused."""
        rows = np.zeros((count + 2, _COLUMNS), np.int64)
        for (scalar, kind), column in self._columns.items():
            if scalar.name not in numbers:
                continue
            values = numbers[scalar.name]
            if kind in BITS:
                values = (np.asarray(values, np.float64) * scalar.factor).astype(kind).view(BITS[kind])
            rows[1 : count + 1, column] = values
        return rows

    def _stage(self, before: Variant | None, after: Variant | None) -> _Stage:
        """Return the kernels that end ``before`` and load the rows of ``after``; None = no micro-batch."""
        key = before, after
        if key not in self._stages:
            now = self._plan(before)[1] if before else []
            following = self._plan(after)[0] if after else []
            self._stages[key] = [self._made(launch) for launch in launches_of(now, following)]
        return self._stages[key]

    def _plan(self, variant: Variant) -> tuple[list[Call], list[Call]]:
        """Return the calls that load rows, and those that learn from them."""
        if variant not in self._plans:
            plan = self._program.record(variant)
            groups, scratch = fuse(list(plan.tasks()), self._program.kept, self._device.empty)
            self._scratch += scratch
            loading, learning = (
                [pack(group) for task in tasks for group in task]
                for tasks in (groups[: len(plan.prepare)], groups[len(plan.prepare) :])
            )
            self._plans[variant] = loading, learning
            numbers = [number for call in (*loading, *learning) for number in call.numbers]
            self._wanted[variant] = {typed.number.name for typed in numbers if isinstance(typed, Typed)}
        return self._plans[variant]

    def _made(self, launch: Launch) -> _Kernel | _PlainCall:
        first = launch[0]
        if first.call.plain is None:
            return self._kernel(launch)
        # Its numbers are those of one micro-batch, and a graph must do for all.
        self._captures = False
        return _PlainCall(first.call.plain.call(self._device), first.row)

    def _kernel(self, launch: Launch) -> _Kernel:
        function = self._compiler.function(source_of(launch), KERNEL)
        numbers = [part.call.blocks for part in launch]
        for part in launch:
            numbers += [
                self._columns.setdefault(n, len(self._columns)) if isinstance(n, Typed) else n
                for n in part.call.numbers
            ]
        assert len(self._columns) <= _COLUMNS
        blocks = sum(part.call.blocks for part in launch)
        return _Kernel(function, blocks, struct_of(numbers), max(part.call.shared_bytes for part in launch))

    def close(self) -> None:
        """Wait for the device, and forget all graphs."""
        while self._busy:
            self._busy.popleft().synchronize()
        self._graphs.clear()
        self._stages.clear()
