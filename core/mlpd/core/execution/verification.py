"""The self-test of compiled code: its results must have the digest `ARITHMETIC`, on any processor, from any cache."""

import ctypes
import threading
from functools import partial
from pathlib import Path

import numpy as np
from mlpd.core.codegen.compiler import Compiler, has_fma
from mlpd.core.codegen.emitter import write_kernel
from mlpd.core.codegen.kernels import AnyKernel, ArrayOperand, Kernel, Product, Ref, Step
from mlpd.core.devices.arrays import HostArray
from mlpd.core.plans import self_test
from mlpd.core.plans.runner import ARITHMETIC, RunnerUnavailable
from mlpd.core.plans.self_test import FUNCTIONS, Sample

_compilers: dict[Path | None, Compiler] = {}
_lock = threading.Lock()


def digest_of(compiler: Compiler) -> str:
    """Return the digest of what compiled code makes of the samples."""
    results = []
    for kind in self_test.KINDS:
        sample = self_test.sample_of(kind)
        results += [*_functions(compiler, sample), _product(compiler, sample)]
    return self_test.digest_of(results)


def _functions(compiler: Compiler, sample: Sample) -> tuple[HostArray, HostArray]:
    """Return functions and the quotient (functions + 1, count), and the sum (1,)."""
    values, kind = sample.values, sample.values.dtype.name
    outputs = np.zeros((len(FUNCTIONS) + 1, len(values)), kind)
    total = np.zeros(1, kind)
    source, targets = Ref("array", 0), range(1, len(outputs) + 1)
    steps = [Step(name, kind, (source,), i) for i, name in enumerate(FUNCTIONS, 1)]
    steps += [
        Step("divide", kind, (Ref("array", 1), source), len(outputs)),
        Step("sum", kind, (source,), len(outputs) + 1, "inner"),
    ]
    operands = (*[ArrayOperand(kind, "next")] * (len(outputs) + 1), ArrayOperand(kind, "same"))
    kernel = Kernel(operands, tuple(steps), (*targets, len(outputs) + 1))
    size = values.itemsize
    arrays = [(values.ctypes.data, size), *((row.ctypes.data, size) for row in outputs), (total.ctypes.data, 0)]
    _run(compiler, kernel, [1, len(values), *(part for where, step in arrays for part in (where, 0, step))])
    return outputs, total


def _product(compiler: Compiler, sample: Sample) -> HostArray:
    """Return the product (rows, columns)."""
    a, b = sample.a, sample.b
    (rows, inner), columns = a.shape, len(b)
    out = np.zeros((rows, columns), a.dtype)
    places = [number for matrix in (a, b, out) for number in (matrix.ctypes.data, matrix.strides[0])]
    product = Product(a.dtype.name, a_inner=True, b_inner=True, adds=False)
    _run(compiler, product, [rows, columns, inner, *places])
    return out


def _run(compiler: Compiler, kernel: AnyKernel, arguments: list[int]) -> None:
    table = np.array(arguments, np.int64)
    address = compiler.function(kernel, partial(write_kernel, kernel=kernel))
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(address)(table.ctypes.data, None)


def verified_compiler(directory: Path | None) -> Compiler:
    """Return this process's compiler with files in ``directory``, None = no files; safe for threads.

    If stored code fails the self-test, everything is compiled anew. Raises `RunnerUnavailable` if that fails, too, or
    the processor lacks fused multiply-adds.
    """
    with _lock:
        if directory not in _compilers:
            if not has_fma():
                raise RunnerUnavailable("compiled code needs a processor with fused multiply-adds; use runner plain")
            compiler = Compiler(directory)
            if digest_of(compiler) != ARITHMETIC:
                compiler = Compiler(directory, trusts=False)
            if (found := digest_of(compiler)) != ARITHMETIC:
                raise RunnerUnavailable(f"compiled code must compute {ARITHMETIC} here, got {found}; use runner plain")
            _compilers[directory] = compiler
        return _compilers[directory]
