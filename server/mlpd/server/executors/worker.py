"""Runs one attempt in a process of its own: ``python -m mlpd.server.executors.worker``.

Reads the attempt from stdin, a line, then any reasons to stop; writes frames to stdout. It ends with the server: when
stdin closes, and by the kernel's parent-death signal.
"""

import os
import queue
import sys
import threading
from importlib import import_module
from io import RawIOBase

from mlpd.core.execution.opening import missing_for
from mlpd.core.processes import end_with
from mlpd.server.executors.attempt import Attempt
from mlpd.server.executors.running import DataChanged, Stops, run_attempt
from mlpd.server.records import Frame, StopReason, encode_frame


def main() -> None:
    """Serve one attempt and exit."""
    end_with(os.getppid())
    frames = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # a stray print must not look like a frame
    # Unbuffered: at exit the interpreter would wait for the lock of a buffer that the listening thread reads.
    stdin = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115 - open for life
    if not missing_for("compiled"):
        import_module("mlpd.core.execution.compiled")  # takes a while, so while nothing waits for it
    line = stdin.readline()
    if not line:
        return  # the server has ended

    def send(frame: Frame) -> None:
        frames.write(encode_frame(frame))

    try:
        run_attempt(Attempt.from_line(line), send, _listen(stdin))
    except DataChanged:
        sys.exit(1)
    os._exit(0)  # all is on disk, and to take an interpreter down delays the next job by a tenth of a second


def _listen(stdin: RawIOBase) -> Stops:
    stops: Stops = queue.SimpleQueue()

    def listen() -> None:
        for line in stdin:
            stops.put(StopReason(line.decode().strip()))
        os._exit(1)  # the server is gone; nobody would read what this run still finds

    threading.Thread(target=listen, daemon=True).start()
    return stops


if __name__ == "__main__":
    main()
