"""The one door to all runners, by name."""

from importlib.util import find_spec
from pathlib import Path

from mlpd.core.devices.arrays import Device
from mlpd.core.execution.plain import PlainRunner
from mlpd.core.execution.runner import Program, Runner, RunnerUnavailable


def missing_for(runner: str) -> str:
    """Say what is missing for a runner to be there; nothing if it is."""
    if runner != "compiled":
        return ""
    if not find_spec("llvmlite"):
        return "llvmlite, which comes with mlpd[server], is not installed"
    return ""


def open_runner(
    runner: str, program: Program, device: Device, thread_count: int, kernels: Path | None = None
) -> Runner:
    """Return the runner of this name; raises `RunnerUnavailable`.

    A compiled one has ``thread_count`` threads, and keeps its code in ``kernels``.
    """
    if runner == "plain":
        return PlainRunner(program, device)
    if runner != "compiled":
        raise RunnerUnavailable(f"runner must be plain or compiled, got {runner}")
    if missing := missing_for(runner):
        raise RunnerUnavailable(f"runner {runner} can't be used: {missing}")
    from mlpd.core.execution.compiled import CompiledRunner

    return CompiledRunner(program, thread_count, kernels)
