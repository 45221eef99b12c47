"""Processes that each work on one shard, while this one works on the first: ``python -m mlpd.core.helpers``.

Processes, because threads that share an interpreter wait for each other at every one of the short calls that a step is
made of. They wait for each other a few times a step, at most some microseconds, and so without giving up the processor.
Where another program takes it away, waiting gets long: then this process does the helpers' work too, for a while, and
they only visit: a helper that sleeps for as long as a scheduler lets others run is let run at once when it wakes, and
for as long, in which it can help with a step or two; on another processor than this process's own. None of that changes
anything in the results, nor does a helper that is slow to start.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from itertools import chain, repeat
from typing import Any

import numpy as np
from mlpd.core.batches import RowFormat
from mlpd.core.shard import Order, Shard, make_shards
from mlpd.core.shared import SharedCpu
from mlpd.core.spec import TrainingSpec
from threadpoolctl import threadpool_limits

_GO, _WELCOME, _PROCESSOR = 0, 1, 2
_SPINS = 2000  # about 0.2 ms
_WINDOW = 16  # pieces of work
_LEAST_SHARE = 0.65
_PAUSES = 8, 1024  # steps between two trials of constant help, at first and at most
_AWAY_SECONDS, _VISIT_NANOSECONDS = 4e-3, 3_800_000  # a slice of a scheduler that ticks 250 times a second, and less
_IDLE_VISITS = 16  # in a row, before a helper stays away
_SLEEPS = ((40, 20e-6), (400, 200e-6), (2**60, 1e-3))  # how often to sleep for how many seconds
_ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OPENBLAS", "MKL", "OMP", "BLIS", "VECLIB_MAXIMUM")}


# The number of the processor that a thread runs on; -1 where that is not known.
_processor: Callable[[], int] = getattr(ctypes.CDLL(None), "sched_getcpu", lambda: -1)


class HelperLost(Exception):
    """A helper ended in the middle of a step, which leaves the run's state undefined."""


def _arrivals(number: int) -> int:
    """Return the place of the count of parts that worker ``number`` has finished."""
    return 3 * number + 3


def _finished(number: int) -> int:
    """Return the place of the count of orders that worker ``number`` has finished; 1 when it is ready."""
    return 3 * number + 4


def _leaves(number: int) -> int:
    """Return the place of the time until which worker ``number`` is on a visit, in nanoseconds."""
    return 3 * number + 5


def _naps() -> Iterator[float]:
    return chain.from_iterable(repeat(seconds, count) for count, seconds in _SLEEPS)


class Worker:
    """Works on one shard, in step with those who work on the others."""

    def __init__(self, device: SharedCpu, shards: Sequence[Shard], number: int, check: Callable[[], None]) -> None:
        self.signals = device.signals()
        self._shard, self._number, self._check = shards[number], number, check
        self._others = [_arrivals(other) for other in range(len(shards)) if other != number]
        self._parts = 0
        self.waited_seconds = 0.0
        self._idle_visits = 0
        self._processors = self._allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()

    def restart(self) -> None:
        """Begin to count anew."""
        self._parts = 0

    def learn(self, order: Order, meanwhile: Callable[[], None] | None = None) -> None:
        """Carry out ``order`` on the own shard."""
        self._idle_visits = 0
        for stop, _ in enumerate(self._shard.learn(order)):
            if meanwhile and stop == self._shard.seam_count:
                meanwhile()
            self.meet()

    def meet(self) -> None:
        """Wait until all have come as far."""
        self._parts += 1
        self.signals[_arrivals(self._number)] = self._parts
        for other in self._others:
            self.wait(other, self._parts)

    def wait(self, place: int, number: int) -> None:
        """Wait until the signal at ``place`` has come to ``number``; ``waited_seconds`` says how long that took."""
        if self.signals.has(place, number):
            return
        started = time.perf_counter()
        self._wait(place, number)
        self.waited_seconds += time.perf_counter() - started

    def wait_for_order(self, number: int) -> None:
        """Wait for the order of this number; where helpers are to visit only, be here now and then."""
        if self._allowed != self._processors and not self.signals.has(_WELCOME, 1):
            self._stay_off(-1)
        if self._spin(_GO, number):
            return
        for seconds in _naps():
            if self.signals.has(_GO, number):
                return
            if self.signals.has(_WELCOME, 1) and self._idle_visits < _IDLE_VISITS:
                if self._visit(number):
                    return
            else:
                self._stay_off(-1)
                time.sleep(seconds)
            self._check()

    def _visit(self, number: int) -> bool:
        """Sleep and come, unless a visit goes on; return whether the order of this number comes before it ends."""
        leaves = _leaves(self._number)
        if not self.signals.has(leaves, time.monotonic_ns()):
            self._stay_off(self.signals[_PROCESSOR])
            time.sleep(_AWAY_SECONDS)
            self.signals[leaves] = time.monotonic_ns() + _VISIT_NANOSECONDS
            self._idle_visits += 1
        while self.signals.has(leaves, time.monotonic_ns()):
            if self._spin(_GO, number):
                return True
        return False

    def _stay_off(self, processor: int) -> None:
        allowed = self._processors - {processor} or self._processors
        if allowed != self._allowed:
            os.sched_setaffinity(0, allowed)
            self._allowed = allowed

    def _wait(self, place: int, number: int) -> None:
        if not self._spin(place, number):
            self._sleep(place, number)

    def _spin(self, place: int, number: int) -> bool:
        return any(self.signals.has(place, number) for _ in range(_SPINS))

    def _sleep(self, place: int, number: int) -> None:
        for seconds in _naps():
            if self.signals.has(place, number):
                return
            time.sleep(seconds)
            self._check()


class Helpers:
    """The processes that help this one, which works on the first shard."""

    def __init__(self, device: SharedCpu, spec: TrainingSpec, shards: Sequence[Shard], form: RowFormat) -> None:
        self._device, self._spec, self._form = device, spec, form
        self._numbers = range(1, len(shards))
        self._worker = Worker(device, shards, 0, self._check)
        self._signals = self._worker.signals
        self._processes: list[subprocess.Popen[bytes]] = []
        self._limits: Any = None
        self._orders = 1
        self._ready = self._help = self._in_step = False
        self._is_constant = self._is_watched = True
        self._step_began, self._step_nanoseconds = 0, 2**62
        self._watch = Watch()
        self.piece_count = 0  # what they have helped with

    def start(self, process_limit: int | None) -> None:
        """Start processes, which will be ready in a while, and leave BLAS one thread in this one.

        None are started if they and this one would be more than ``process_limit``.
        """
        self._limits = threadpool_limits(1, "blas")
        if process_limit is None or len(self._numbers) < process_limit:
            with suppress(OSError):  # without processes, this one works alone
                self._start_processes()

    def _start_processes(self) -> None:
        setting = {"spec": self._spec.to_json(), "form": self._form, "parent": os.getpid()}
        path = os.pathsep.join(filter(None, sys.path))
        for number in self._numbers:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, str(self._device.file), str(number)],
                stdin=subprocess.PIPE,
                pass_fds=[self._device.file],
                env=os.environ | _ONE_THREAD | {"PYTHONPATH": path},
            )
            self._processes.append(process)
            assert process.stdin
            process.stdin.write(json.dumps(setting).encode() + b"\n")
            process.stdin.flush()

    def stop(self) -> None:
        """End the processes; when their orders are done, unless this process has broken off its own part."""
        if not self._in_step:
            with suppress(HelperLost):
                self.settle()
        for process in self._processes:
            process.kill()
            process.communicate()
        self._processes, self._orders = [], 1
        self._ready = self._help = self._in_step = False
        self._is_constant = self._is_watched = True
        self._signals.clear()
        self._worker.restart()
        self._limits.restore_original_limits()

    def learn(self, order: Order, meanwhile: Callable[[], None]) -> bool:
        """Carry out ``order`` and return True; or return False at once where this process had better work alone."""
        if order.first_row == 0:
            self._choose()
        if not self._help:
            return False
        self._orders += 1
        self._signals.write_note(order)
        self._signals[_GO] = self._orders
        self._in_step = True
        waited = self._worker.waited_seconds
        with self._watch if self._is_watched else nullcontext():
            self._worker.learn(order, meanwhile)
        if self._is_watched:
            self._watch.note_wait(self._worker.waited_seconds - waited)
        self._in_step = False
        if order.is_last:
            self._step_nanoseconds = min(self._step_nanoseconds, time.monotonic_ns() - self._step_began)
        self.piece_count += 1
        return True

    def _choose(self) -> None:
        """Decide who works on the next step."""
        helped, was_constant, self._help = self._help, self._is_constant, False
        self._step_began = time.monotonic_ns()
        if self._are_ready():
            self._is_constant = self._watch.wants_help()
            if self._is_constant != was_constant:
                self._signals[_WELCOME] = int(not self._is_constant)
            if not self._is_constant:
                self._signals[_PROCESSOR] = _processor()
            end = self._step_began + self._step_nanoseconds
            self._help = self._is_constant or all(self._signals.has(_leaves(number), end) for number in self._numbers)
            self._is_watched = was_constant and self._is_constant  # a first step waits for helpers to come back
        if helped and not self._help:
            self.settle()

    def settle(self) -> None:
        """Wait until all that was ordered is done. Raises `HelperLost`."""
        if self._orders > 1:
            for number in self._numbers:
                self._worker.wait(_finished(number), self._orders)

    def _are_ready(self) -> bool:
        if not self._ready and len(self._processes) == len(self._numbers):
            self._ready = all(self._signals.has(_finished(number), 1) for number in self._numbers)
        return self._ready

    def _check(self) -> None:
        for number, process in zip(self._numbers, self._processes, strict=True):
            if process.poll() is not None:
                raise HelperLost(f"helper {number} ended with status {process.returncode}")


class Watch:
    """Says whether help is worth waiting for, by the share of time in which this thread computes.

    Where that is small, for it waits for a helper that has lost its processor, or has lost its own, it goes on without
    for a while, a longer one each time in turn.
    """

    def __init__(self) -> None:
        self._pieces = self._alone = 0
        self._pause = _PAUSES[0]
        self._elapsed = self._running = self._waited = 0.0

    def __enter__(self) -> None:
        self._elapsed -= time.perf_counter()
        self._running -= time.thread_time()

    def __exit__(self, *_: object) -> None:
        self._elapsed += time.perf_counter()
        self._running += time.thread_time()
        self._pieces += 1

    def note_wait(self, seconds: float) -> None:
        """Take in that so much of the time was spent waiting for others."""
        self._waited += seconds

    def wants_help(self) -> bool:
        """Return whether the next step is to be helped with, come what may."""
        if self._alone:
            self._alone -= 1
            return not self._alone
        if self._pieces >= _WINDOW:
            if min(self._running, self._elapsed - self._waited) < _LEAST_SHARE * self._elapsed:
                self._alone, self._pause = self._pause, min(2 * self._pause, _PAUSES[1])
            else:
                self._pause = _PAUSES[0]
            self._pieces = 0
            self._elapsed = self._running = self._waited = 0.0
        return not self._alone


def main() -> None:
    """Work on a shard until this process is killed, or its parent is."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to answer
    number = int(sys.argv[2])
    line = sys.stdin.readline()
    if not line:
        return  # the parent has ended since
    setting = json.loads(line)
    np.seterr(all="ignore")  # as in the parent

    def check() -> None:
        if os.getppid() != setting["parent"]:
            os._exit(1)

    spec = TrainingSpec.from_json(setting["spec"])
    device = SharedCpu(int(sys.argv[1]), spec.blas)
    worker = Worker(device, make_shards(device, spec, RowFormat(*setting["form"]))[1], number, check)
    orders = 1
    while True:
        worker.signals[_finished(number)] = orders
        orders += 1
        worker.wait_for_order(orders)
        worker.learn(Order.of(worker.signals.read_note(len(Order._fields))))


if __name__ == "__main__":
    main()
