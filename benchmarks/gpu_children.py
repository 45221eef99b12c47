"""Processes that answer in lines of JSON, each within a time; one that does not is ended with all it started."""

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any, Self

_HERE = Path(__file__).resolve().parent
_TRACEBACK_CHARACTERS = 2000


class Child:
    """A module of this folder in a process of its own."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(_HERE / f"{module}.py"), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a group, whose processes end together
        )
        self._lines: Queue[str] = Queue()
        Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def answer(self, seconds: float) -> dict[str, Any]:
        """Return the next line; raises `TimeoutError` and `ChildEnded`."""
        try:
            line = self._lines.get(timeout=seconds)
        except Empty:
            raise TimeoutError(f"no answer within {seconds:.0f} s") from None
        if not line:
            raise ChildEnded(self._ending())
        told: dict[str, Any] = json.loads(line)
        return told

    def ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Return the answer to a request, as `answer` does."""
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise ChildEnded(self._ending()) from error
        return self.answer(seconds)

    def answers(self, seconds: float) -> Iterator[dict[str, Any]]:
        """Yield what is printed until the process ends; raises `TimeoutError` if this takes longer than ``seconds``."""
        until = time.monotonic() + seconds
        while True:
            try:
                yield self.answer(max(until - time.monotonic(), 0.1))
            except ChildEnded:
                if self._process.wait() == 0:
                    return
                raise

    def _ending(self) -> str:
        return f"the process ended with status {self._process.wait()}; what it said is above"

    def end(self) -> None:
        """End the process and its group, at once."""
        end_group(self._process)


class ChildEnded(Exception):
    """A process ended before it answered."""


def end_group(process: "subprocess.Popen[str]") -> None:
    """End a process that leads a group, and the group."""
    with suppress(ProcessLookupError):  # it had ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def failure() -> str:
    """Return the end of the traceback of the exception that is being handled; its last line says what it is."""
    return traceback.format_exc().strip()[-_TRACEBACK_CHARACTERS:]
