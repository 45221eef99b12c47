"""Opens runners by their names."""

from importlib.util import find_spec
from pathlib import Path

from mlpd.core.devices.arrays import Device
from mlpd.core.execution.plain import PlainRunner
from mlpd.core.plans.runner import Program, Runner, RunnerUnavailable


def missing_for(runner: str, device: str = "cpu") -> str:
    """Return what ``runner`` needs on a device of this name and is not installed, or an empty text."""
    if runner != "compiled" or device != "cpu":
        return ""
    if not find_spec("llvmlite"):
        return "llvmlite, which comes with mlpd[server], is not installed"
    return ""


def open_runner(
    runner: str, program: Program, device: Device, thread_count: int, kernels: Path | None = None
) -> Runner:
    """Return the runner of this name; raises `RunnerUnavailable`.

    Both compute on ``device``, the compiled one, on the CPU, with ``thread_count`` threads. It keeps its code in the
    directory ``kernels``, None = in no file.
    """
    if runner == "plain":
        if not device.multiplies:
            raise RunnerUnavailable(
                "runner plain can't be used: on a GPU it multiplies with cuBLAS, which is not installed; install "
                "mlpd[ctk12] or mlpd[ctk13], or use runner compiled"
            )
        return PlainRunner(program, device)
    if runner != "compiled":
        raise RunnerUnavailable(f"runner must be plain or compiled, got {runner}")
    if missing := missing_for(runner, device.name):
        raise RunnerUnavailable(f"runner {runner} can't be used: {missing}")
    if device.name == "cuda":
        from mlpd.core.cuda.runner import CudaRunner
        from mlpd.core.cuda.verification import verified_compiler

        return CudaRunner(program, device, verified_compiler(device, kernels and kernels / "cuda"))
    from mlpd.core.execution.compiled import CompiledRunner

    return CompiledRunner(program, thread_count, kernels)
