"""The self-test of code made by NVRTC: its results must have the digest `ARITHMETIC`, as those of the CPU's code."""

import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mlpd.core.cuda.compiler import CudaCompiler
from mlpd.core.cuda.runner import CudaRunner
from mlpd.core.devices.arrays import Array, Device
from mlpd.core.devices.cuda import REINSTALL
from mlpd.core.plans import self_test
from mlpd.core.plans.plan import Plan, Variant, Work
from mlpd.core.plans.recording import Op, RecordingDevice
from mlpd.core.plans.runner import ARITHMETIC, RunnerUnavailable

_ONCE = Variant(rows=1, slot=0, is_first=True, is_last=True, flushes=False)

_compilers: dict[tuple[int, Path | None], CudaCompiler] = {}
_lock = threading.Lock()


@dataclass
class _SelfTest:
    """The program whose only micro-batch makes ``calls``; ``kept`` are their results."""

    calls: Sequence[Op]
    kept: Sequence[Array]
    dtype: np.dtype[Any]
    task_limit: int = 1

    def record(self, _: Variant) -> Plan:
        return Plan([], [[self.calls]], joins=False)


def digest_of(compiler: CudaCompiler, device: Device) -> str:
    """Return the digest of what ``device`` makes of the samples, in one launch; waits for it."""
    recording = RecordingDevice(device)
    results = [array for kind in self_test.KINDS for array in _record(recording, device, kind)]
    program = _SelfTest(recording.take(), results, np.dtype(np.float32))
    with closing(CudaRunner(program, device, compiler, "eager")) as runner:
        runner.prepare(Work([_ONCE], np.zeros(1, np.int64), {}))()
    return self_test.digest_of(map(device.to_host, results))


def _record(recording: RecordingDevice, device: Device, kind: str) -> tuple[Array, Array, Array]:
    """Record the self-test for numbers of type ``kind``; return where its results will be."""
    values, a, b = map(device.from_host, self_test.sample_of(kind))
    outputs = device.empty((len(self_test.FUNCTIONS) + 1, len(values)), kind)
    total, product = device.empty((1,), kind), device.empty((len(a), len(b)), kind)
    for name, out in zip(self_test.FUNCTIONS, outputs, strict=False):
        getattr(recording.xp, name)(values, out=out)
    recording.xp.divide(outputs[0], values, out=outputs[-1])
    recording.xp.sum(values, keepdims=True, out=total)
    recording.matmul(a, b.T, product)
    return outputs, total, product


def verified_compiler(device: Device, directory: Path | None) -> CudaCompiler:
    """Return this process's compiler for ``device`` with files in ``directory``, None = no files; safe for threads.

    If stored code fails the self-test, everything is compiled anew. Raises `RunnerUnavailable` if that fails, too.
    """
    key = device.xp.cuda.Device().id, directory
    with _lock:
        if key not in _compilers:
            compiler = CudaCompiler(directory)
            if digest_of(compiler, device) != ARITHMETIC:
                compiler = CudaCompiler(directory, trusts=False)
                if (found := digest_of(compiler, device)) != ARITHMETIC:
                    raise RunnerUnavailable(
                        f"compiled code must compute {ARITHMETIC} on this GPU, got {found}; {REINSTALL}, or use runner "
                        "plain"
                    )
            _compilers[key] = compiler
        return _compilers[key]
