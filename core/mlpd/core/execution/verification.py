"""The self-test of compiled code: its results must have the digest `ARITHMETIC`, on any processor, from any cache."""

import ctypes
import hashlib
import threading
from functools import partial
from pathlib import Path

import numpy as np
from mlpd.core.codegen.compiler import Compiler, has_fma
from mlpd.core.codegen.emitter import write_kernel
from mlpd.core.codegen.kernels import AnyKernel, ArrayOperand, Kernel, Product, Ref, Step
from mlpd.core.devices.arrays import HostArray
from mlpd.core.plans.runner import ARITHMETIC, RunnerUnavailable

_FUNCTIONS = ("exp", "expm1", "log", "log1p", "sqrt", "tanh")
_COUNT = 1009  # values: no multiple of the lanes
_ROWS, _COLUMNS, _INNER = 7, 70, 400  # of a product: no multiples of a tile or a chunk

_compilers: dict[Path | None, Compiler] = {}
_lock = threading.Lock()


def digest_of(compiler: Compiler) -> str:
    """Return 64 bits (16 hex digits) of a digest of functions, products, quotients and sums of fixed numbers."""
    digest = hashlib.sha256()
    for kind in ("float32", "float64"):
        for array in (*_functions(compiler, kind), _product(compiler, kind)):
            array[np.isnan(array)] = 0  # the sign of a NaN is not defined
            digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def _functions(compiler: Compiler, kind: str) -> tuple[HostArray, HostArray]:
    """Return functions of fixed numbers and a quotient, (functions + 1, count), and the numbers' sum (1,)."""
    # Numbers of either sign, of sizes below 2**20, computed without rounding.
    sizes = np.ldexp(1.0, (np.arange(_COUNT) * 37) % 61 - 40)
    values = (_fractions(_COUNT) * sizes).astype(kind)
    outputs = np.zeros((len(_FUNCTIONS) + 1, _COUNT), kind)
    total = np.zeros(1, kind)
    source, targets = Ref("array", 0), range(1, len(outputs) + 1)
    steps = [Step(name, kind, (source,), i) for i, name in enumerate(_FUNCTIONS, 1)]
    steps += [
        Step("divide", kind, (Ref("array", 1), source), len(outputs)),
        Step("sum", kind, (source,), len(outputs) + 1, "inner"),
    ]
    operands = (*[ArrayOperand(kind, "next")] * (len(outputs) + 1), ArrayOperand(kind, "same"))
    kernel = Kernel(operands, tuple(steps), (*targets, len(outputs) + 1))
    size = values.itemsize
    arrays = [(values.ctypes.data, size), *((row.ctypes.data, size) for row in outputs), (total.ctypes.data, 0)]
    _run(compiler, kernel, [1, _COUNT, *(part for where, step in arrays for part in (where, 0, step))])
    return outputs, total


def _product(compiler: Compiler, kind: str) -> HostArray:
    """Return the product (rows, columns) of two fixed matrices."""
    a, b = (_fractions(lines * _INNER).astype(kind).reshape(lines, _INNER) for lines in (_ROWS, _COLUMNS))
    out = np.zeros((_ROWS, _COLUMNS), kind)
    places = [number for matrix in (a, b, out) for number in (matrix.ctypes.data, matrix.strides[0])]
    _run(compiler, Product(kind, a_inner=True, b_inner=True, adds=False), [_ROWS, _COLUMNS, _INNER, *places])
    return out


def _fractions(count: int) -> HostArray:
    return (np.arange(count) * 7919 % 4001 - 2000) / 2048


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
