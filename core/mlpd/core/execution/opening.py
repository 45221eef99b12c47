"""Opens runners by their names."""

from importlib.util import find_spec
from pathlib import Path

from mlpd.core.devices.arrays import Device
from mlpd.core.execution.plain import PlainRunner
from mlpd.core.plans.runner import Program, Runner, RunnerUnavailable


def missing_for(runner: str) -> str:
    """Return what ``runner`` needs and is not installed, or an empty text."""
    if runner != "compiled":
        return ""
    if not find_spec("llvmlite"):
        return "llvmlite, which comes with mlpd[server], is not installed"
    return ""


def open_runner(
    runner: str, program: Program, device: Device, thread_count: int, kernels: Path | None = None
) -> Runner:
    """Return the runner of this name; raises `RunnerUnavailable`.

    The plain one computes on ``device``; the compiled one on ``thread_count`` threads, with its code kept in the
    directory ``kernels``, None = in no file.
    """
    if runner == "plain":
        return PlainRunner(program, device)
    if runner != "compiled":
        raise RunnerUnavailable(f"runner must be plain or compiled, got {runner}")
    if missing := missing_for(runner):
        raise RunnerUnavailable(f"runner {runner} can't be used: {missing}")
    from mlpd.core.execution.compiled import CompiledRunner

    return CompiledRunner(program, thread_count, kernels)
