"""Compiles CUDA code by NVRTC with options of our own, and keeps the machine code in files that are verified."""

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from mlpd.core.cuda.products import MOST_SHARED
from mlpd.core.devices.cuda import REINSTALL
from mlpd.core.files import CodeFiles
from mlpd.core.plans.runner import RunnerUnavailable

# CuPy's own kernels flush subnormal numbers, and NVRTC would contract products and sums into one rounding.
OPTIONS = (
    *("--std=c++17", "--device-as-default-execution-space"),
    *("--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true"),
)
_OUT_OF_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY
# What the driver says of code that it has no use for: from CUDA_ERROR_INVALID_IMAGE to CUDA_ERROR_NOT_FOUND.
_UNFIT = frozenset((200, 209, 218, 221, 222, 223, 300, 302, 303, 500))


class CudaCompiler:
    """Compiles sources for the current device, each once a process; threads that share it may do so twice.

    Machine code is kept in ``directory``, unless that is None or can't be written to, in a file with a digest for each
    source. Files that are there are used if it ``trusts`` them. ``compiled_count`` sources were in no file. Raises
    `RunnerUnavailable` where NVRTC can't be loaded, or the device has too little shared memory.
    """

    def __init__(self, directory: Path | None = None, *, trusts: bool = True) -> None:
        from cupy.cuda import Device, driver, function, nvrtc

        self._nvrtc, self._driver, self._new_module = nvrtc, driver, function.Module
        try:
            version = nvrtc.getVersion()
        except Exception as error:
            raise RunnerUnavailable(
                f"NVRTC, CUDA's compiler, can't be loaded, it says {_first_line(error)}; {REINSTALL}"
            ) from error
        device = Device()
        if (most := device.attributes["MaxSharedMemoryPerBlockOptin"]) < MOST_SHARED:
            raise RunnerUnavailable(
                f"compiled code takes {MOST_SHARED} bytes of shared memory, this GPU gives {most}; use runner plain"
            )
        self._options = (f"-arch=sm_{device.compute_capability}", *OPTIONS)
        self._target = f"{version} {self._options}"
        self._files, self._trusts = CodeFiles(directory), trusts
        self._functions: dict[str, Any] = {}
        self.compiled_count = 0

    def function(self, source: str, name: str) -> Any:
        """Return the kernel ``name`` of ``source``, called with (grid, block, arguments, shared bytes).

        Code from a file that the driver refuses is compiled anew. Raises `RunnerUnavailable` if the source can't be
        compiled or the driver refuses its code, `MemoryError` if the device has no room for it.
        """
        if source not in self._functions:
            self._functions[source] = self._kept(source, name) or self._made(source, name)
        return self._functions[source]

    def _kept(self, source: str, name: str) -> Any:
        """Return the kernel from its file, None where there is none that can be used."""
        if self._trusts and (code := self._files.read(self._file_name(source))):
            with suppress(RunnerUnavailable):
                return self._loaded(code, name)
        return None

    def _made(self, source: str, name: str) -> Any:
        code = self._compile(source)
        self.compiled_count += 1
        function = self._loaded(code, name)
        self._files.keep(self._file_name(source), code)
        return function

    def _file_name(self, source: str) -> str:
        return hashlib.sha256(f"{self._target}\n{source}".encode()).hexdigest() + ".cubin"

    def _loaded(self, code: bytes, name: str) -> Any:
        module = self._new_module()
        try:
            module.load(code)
            function = module.get_function(name)
            attribute = self._driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            self._driver.funcSetAttribute(function.ptr, attribute, MOST_SHARED)
            return function
        except self._driver.CUDADriverError as error:
            if error.status == _OUT_OF_MEMORY:
                raise MemoryError(f"compiled code finds no room on the device, {error}") from error
            if error.status not in _UNFIT:
                raise
            raise RunnerUnavailable(
                f"the NVIDIA driver can't load compiled code, it says {_first_line(error)}; update the driver, or use "
                "runner plain"
            ) from error

    def _compile(self, source: str) -> bytes:
        nvrtc = self._nvrtc
        program = nvrtc.createProgram(source, "mlpd.cu", (), ())
        try:
            nvrtc.compileProgram(program, self._options)
            code: bytes = nvrtc.getCUBIN(program)
        except nvrtc.NVRTCError as error:
            said = _first_line(nvrtc.getProgramLog(program).strip() or error)
            raise RunnerUnavailable(
                f"CUDA code can't be compiled here, NVRTC says {said}; {REINSTALL}, or use runner plain"
            ) from error
        finally:
            nvrtc.destroyProgram(program)
        return code


def _first_line(said: object) -> str:
    """Return the first line of what a library says, which may be many, or its type where it says nothing."""
    return next(iter(str(said).splitlines()), type(said).__name__)
