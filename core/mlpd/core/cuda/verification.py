"""The self-test of code made by NVRTC: its results must have the digest `ARITHMETIC`, as those of the CPU's code."""

import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mlpd.core.cuda.compiler import CudaCompiler
from mlpd.core.cuda.products import ODD, SQUARE
from mlpd.core.cuda.runner import CudaRunner
from mlpd.core.devices.arrays import Array, Device, HostArray
from mlpd.core.devices.cuda import REINSTALL
from mlpd.core.plans import self_test
from mlpd.core.plans.plan import Plan, Variant, Work
from mlpd.core.plans.recording import Op, RecordingDevice
from mlpd.core.plans.runner import ARITHMETIC, RunnerUnavailable

WRONG_PRODUCTS = "wrong products"  # in place of a digest
_ROWS, _INNER, _COLUMNS, _OUTPUTS = 20, 200, 44, 10  # of products: two chunks, and no multiples of a tile
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
    """Return the digest of what ``device`` makes of the samples, `WRONG_PRODUCTS` if other products are wrong.

    It is one launch, for which this waits.
    """
    recording = RecordingDevice(device)
    results = [array for kind in self_test.KINDS for array in _record(recording, device, kind)]
    products, expected = _record_products(recording, device)
    program = _SelfTest(recording.take(), [*results, *products], np.dtype(np.float32))
    with closing(CudaRunner(program, device, compiler, "eager")) as runner:
        runner.prepare(Work([_ONCE], np.zeros(1, np.int64), {}))()
    if not all(map(np.array_equal, map(device.to_host, products), expected)):
        return WRONG_PRODUCTS
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


def _record_products(recording: RecordingDevice, device: Device) -> tuple[list[Array], list[HostArray]]:
    """Record products that are made in other ways; return where they will be, and what they must be.

    One is made by warps that work apart, with a third slab; one is added by warps that work together; and blocks that
    make narrow rows go on with one. All are of small whole numbers, so that no sum is rounded.
    """
    words = np.random.Philox(key=0).random_raw((_ROWS + _COLUMNS + _OUTPUTS) * _INNER)
    lines = (words % 17).astype(np.float32).reshape(-1, _INNER) - 8
    a, b, weights = lines[:_ROWS], lines[_ROWS:-_OUTPUTS].T, lines[-_OUTPUTS:].T
    back = weights[:_COLUMNS].T
    logits = a @ weights
    expected = [a @ b, 1 - (a @ b) / 2, (logits - logits.max(axis=1, keepdims=True)) @ back]

    own_a, own_b, transposed, own_weights, own_back = (
        device.from_host(matrix.copy()) for matrix in (a, b, a.T, weights, back)
    )
    products = [device.from_host(np.ones_like(own)) for own in expected]
    outputs, largest = device.empty(logits.shape, "float32"), device.empty((_ROWS, 1), "float32")
    recording.matmul(own_a, own_b, products[0], tile=ODD)
    recording.add_product(transposed.T, own_b, -0.5, products[1], tile=SQUARE)
    recording.matmul(own_a, own_weights, outputs)
    recording.xp.max(outputs, axis=1, keepdims=True, out=largest)
    recording.xp.subtract(outputs, largest, out=outputs)
    recording.matmul(outputs, own_back, products[2])
    return products, expected


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
