"""Compiles kernels with LLVM, and keeps object code in files that are verified before they are used."""

import hashlib
import threading
from collections.abc import Callable, Hashable
from functools import cache
from pathlib import Path

import llvmlite
from llvmlite import binding, ir
from mlpd.core.files import CodeFiles

_SOURCES = (
    *(f"arithmetic/{name}.py" for name in ("numbers", "elementary", "functions")),
    *(f"codegen/{name}.py" for name in ("values", "writing", "products", "emitter", "schedule", "compiler")),
)
_PASSES_LEVEL, _CODE_LEVEL = 1, 2


@cache
def source_digest() -> str:
    """Return a digest of what decides the object code: our sources, LLVM's version, and the processor."""
    digest = hashlib.sha256()
    for name in _SOURCES:
        digest.update((Path(__file__).parents[1] / name).read_bytes())
    target = binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten(), binding.get_default_triple()
    digest.update(repr((llvmlite.__version__, binding.llvm_version_info, target)).encode())
    return digest.hexdigest()


def has_fma() -> bool:
    """Return whether this processor multiplies and adds with one rounding; only some x86-64 do not."""
    return not _is_x86() or bool(binding.get_host_cpu_features().get("fma"))


def _is_x86() -> bool:
    triple: str = binding.get_default_triple()
    return triple.startswith("x86_64")


def _features() -> str:
    """Return LLVM's features of this processor; on x86-64 with 512-bit registers, where LLVM may prefer 256 bits."""
    own: str = binding.get_host_cpu_features().flatten()
    return f"{own},-prefer-256-bit" if _is_x86() else own


class Compiler:
    """Compiles functions, each once a process; safe for threads.

    Object code is kept in ``directory``, unless that is None or can't be written to: a file with a digest for each
    function, in a folder for this release on this kind of processor. Files that are there are used if it ``trusts``
    them. ``compiled_count`` functions were in no file.
    """

    def __init__(self, directory: Path | None = None, *, trusts: bool = True) -> None:
        binding.initialize_native_target()
        binding.initialize_native_asmprinter()
        self._machine = binding.Target.from_default_triple().create_target_machine(
            cpu=binding.get_host_cpu_name(),
            features=_features(),
            opt=_CODE_LEVEL,
            reloc="pic",
            codemodel="small",
        )
        empty = binding.parse_assembly("")
        self._engine = binding.create_mcjit_compiler(empty, self._machine)
        self._files, self._trusts = CodeFiles(directory / source_digest()[:16] if directory else None), trusts
        self._lock = threading.Lock()
        self._addresses: dict[Hashable, int] = {}
        self.compiled_count = 0

    def function(self, key: Hashable, write: Callable[[ir.Module, str], None]) -> int:
        """Return the address of the function called ``key``; if it is new, ``write(module, name)`` writes it.

        The ``repr`` of ``key`` must tell the function from all others.
        """
        with self._lock:
            if key not in self._addresses:
                self._addresses[key] = self._load(key, write)
            return self._addresses[key]

    def _load(self, key: Hashable, write: Callable[[ir.Module, str], None]) -> int:
        name = "f" + hashlib.sha256(f"{source_digest()}{key!r}".encode()).hexdigest()
        code = self._files.read(name) if self._trusts else None
        if code is None:
            code = self._compile(name, write)
            self._files.keep(name, code)
        self._engine.add_object_file(binding.ObjectFileRef.from_data(code))
        self._engine.finalize_object()
        address: int = self._engine.get_function_address(name)
        return address

    def _compile(self, name: str, write: Callable[[ir.Module, str], None]) -> bytes:
        module = ir.Module(name)
        module.triple = self._machine.triple
        module.data_layout = str(self._machine.target_data)
        write(module, name)
        parsed = binding.parse_assembly(str(module))
        parsed.verify()
        # Kernels are written as loops over vectors. Unrolling made none faster, and compiling took a third longer.
        options = binding.create_pipeline_tuning_options(_PASSES_LEVEL)
        options.loop_vectorization = options.slp_vectorization = options.loop_unrolling = False
        builder = binding.create_pass_builder(self._machine, options)
        builder.getModulePassManager().run(parsed, builder)
        self.compiled_count += 1
        code: bytes = self._machine.emit_object(parsed)
        return code
