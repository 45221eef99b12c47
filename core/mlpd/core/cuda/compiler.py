"""Compiles CUDA code by NVRTC with options of our own, and keeps the machine code in files that are verified."""

import hashlib
from pathlib import Path
from typing import Any

from mlpd.core.files import CodeFiles
from mlpd.core.plans.runner import RunnerUnavailable

# CuPy's own kernels flush subnormal numbers, and NVRTC would contract products and sums into one rounding.
OPTIONS = (
    *("--std=c++17", "--device-as-default-execution-space"),
    *("--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true"),
)


class CudaCompiler:
    """Compiles sources for the current device, each once a process; not for use by two threads.

    Machine code is kept in ``directory``, unless that is None or can't be written to, in a file with a digest for each
    source. ``compiled_count`` sources were in no file.
    """

    def __init__(self, directory: Path | None = None) -> None:
        from cupy.cuda import Device, function, nvrtc

        self._nvrtc, self._new_module = nvrtc, function.Module
        self._options = (f"-arch=sm_{Device().compute_capability}", *OPTIONS)
        self._target = f"{nvrtc.getVersion()} {self._options}"
        self._files = CodeFiles(directory)
        self._functions: dict[str, Any] = {}
        self.compiled_count = 0

    def function(self, source: str, name: str) -> Any:
        """Return the kernel ``name`` of ``source``, called with (grid, block, arguments, shared bytes).

        Raises `RunnerUnavailable`.
        """
        if source not in self._functions:
            module = self._new_module()
            module.load(self._code(source))
            self._functions[source] = module.get_function(name)
        return self._functions[source]

    def _code(self, source: str) -> bytes:
        name = hashlib.sha256(f"{self._target}\n{source}".encode()).hexdigest() + ".cubin"
        code = self._files.read(name)
        if code is None:
            code = self._compile(source)
            self.compiled_count += 1
            self._files.keep(name, code)
        return code

    def _compile(self, source: str) -> bytes:
        nvrtc = self._nvrtc
        program = nvrtc.createProgram(source, "mlpd.cu", (), ())
        try:
            nvrtc.compileProgram(program, self._options)
            code: bytes = nvrtc.getCUBIN(program)
        except nvrtc.NVRTCError as error:
            log = nvrtc.getProgramLog(program).strip() or str(error)
            raise RunnerUnavailable(
                f"CUDA code can't be compiled here, NVRTC says "
                f"{log.splitlines()[0]}; use runner plain, or reinstall CuPy"
            ) from error
        finally:
            nvrtc.destroyProgram(program)
        return code
