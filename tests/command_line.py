"""The command line, run in this process: a process of its own takes most of a second to import what it needs."""

import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

import pytest
from mlpd.client.cli import main

from .conftest import ENVIRONMENT

COMMAND = [sys.executable, "-c", "from mlpd.client.cli import main; main()"]


def run(*arguments, server=None, environment=None):
    """Run ``mlpd`` as its entry point does; return exit status, output and errors as a process would give them."""
    words = ["mlpd", *map(str, arguments)]
    environment = ENVIRONMENT | {"MLPD_SERVER": server.address if server else ""} | (environment or {})
    output, errors, status = StringIO(), StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(output), redirect_stderr(errors):
        patch.setattr(sys, "argv", words)
        for name, value in environment.items():
            patch.setenv(name, value)
        try:
            main()
        except SystemExit as ended:
            status = int(ended.code or 0)
    assert "Traceback" not in errors.getvalue()
    return subprocess.CompletedProcess(words, status, output.getvalue(), errors.getvalue())


def run_process(*arguments):
    """Run ``mlpd`` as a process: what `run` can't do where the command becomes another program."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        env=ENVIRONMENT | {"COLUMNS": "160"}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done
