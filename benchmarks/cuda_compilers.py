"""Compiles CUDA C++ for a real processor, without a driver: NVIDIA's run-time compiler, by ctypes.

Needs the package nvidia-cuda-nvrtc, or nvidia-cuda-nvrtc-cu12. The cubin can be read with nvdisasm, of the package
nvidia-cuda-nvdisasm: ``nvdisasm -c FILE``.
"""

import ctypes
import re
import time
from functools import cache
from importlib.metadata import distributions
from typing import NamedTuple

from mlpd.core.cuda.compiler import OPTIONS


class Compiled(NamedTuple):
    """A kernel: seconds of its program's compilation, bytes of the program, registers, bytes spilled and shared."""

    seconds: float
    cubin_bytes: int
    registers: int
    spilled_bytes: int
    shared_bytes: int


@cache
def compiler() -> ctypes.CDLL:
    """Return NVIDIA's compiler from the first installed package that has it."""
    for distribution in distributions():
        if distribution.name.startswith("nvidia-cuda-nvrtc"):
            for file in distribution.files or ():
                if re.fullmatch(r"libnvrtc\.so\.\d+", file.name):
                    return ctypes.CDLL(str(distribution.locate_file(file)))
    raise SystemExit("no package has libnvrtc: install nvidia-cuda-nvrtc")


def compile_source(source: str, architecture: int) -> tuple[bytes, dict[str, Compiled]]:
    """Return the cubin of ``source`` for ``architecture``, say 90, and what each kernel takes, by its name."""
    library, program = compiler(), ctypes.c_void_p()
    options = [f"-arch=sm_{architecture}", *OPTIONS, "--ptxas-options=-v"]
    array = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None)
    started = time.perf_counter()
    failed = library.nvrtcCompileProgram(program, len(options), array)
    seconds = time.perf_counter() - started
    log = _text(library.nvrtcGetProgramLogSize, library.nvrtcGetProgramLog, program).decode()
    if failed:
        raise RuntimeError(log)
    cubin = _text(library.nvrtcGetCUBINSize, library.nvrtcGetCUBIN, program)
    library.nvrtcDestroyProgram(ctypes.byref(program))
    kernels = {}
    for name, about in re.findall(r"Compiling entry function '(\w+)'(.*?)(?=Compiling entry|\Z)", log, re.DOTALL):
        spilled = sum(map(int, re.findall(r"(\d+) bytes spill", about)))
        numbers = [re.search(pattern, about) for pattern in (r"Used (\d+) registers", r"(\d+) bytes smem")]
        registers, shared = (int(number[1]) if number else 0 for number in numbers)
        kernels[name] = Compiled(seconds, len(cubin), registers, spilled, shared)
    return cubin, kernels


def _text(size_of: "ctypes._NamedFuncPointer", get: "ctypes._NamedFuncPointer", program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    size_of(program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    get(program, text)
    return text.raw
