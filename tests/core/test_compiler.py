"""Compiled code: made once, kept in files that are verified, replaced where they are wrong, and not needed."""

import ctypes
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("llvmlite", reason="llvmlite is not installed")

import mlpd.core
from llvmlite import binding
from mlpd.core.codegen.compiler import Compiler
from mlpd.core.codegen.emitter import write_kernel
from mlpd.core.codegen.kernels import ArrayOperand, Kernel, Product, Ref, Step
from mlpd.core.execution import verification
from mlpd.core.plans.runner import ARITHMETIC, RunnerUnavailable

from ..installation import link_packages

ARRAY = ArrayOperand("float64", "next")


def kernel(name):
    return Kernel((ARRAY, ARRAY), (Step(name, "float64", (Ref("array", 0),), 1),), (1,))


def address(compiler, own, written=None):
    return compiler.function(own, lambda module, name: write_kernel(module, name, written or own))


def call(place, x):
    """Return what the kernel at ``place`` makes of numbers."""
    out = np.zeros_like(x)
    arguments = np.array([1, len(x), x.ctypes.data, 0, 8, out.ctypes.data, 0, 8], np.int64)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(place)(arguments.ctypes.data, None)
    return out.tolist()


X = np.array([4.0, -9.0, 0.25] * 7)
RESULTS = {"negative": (-X).tolist(), "absolute": np.abs(X).tolist()}


def files(directory):
    return sorted(path for path in directory.rglob("*") if path.is_file())


def test_a_function_is_compiled_once_and_found_again_by_another_process(tmp_path):
    first = Compiler(tmp_path)
    for _ in range(2):
        for name, expected in RESULTS.items():
            assert call(address(first, kernel(name)), X) == expected
    assert first.compiled_count == len(files(tmp_path)) == 2
    second = Compiler(tmp_path)
    assert {name: call(address(second, kernel(name)), X) for name in RESULTS} == RESULTS
    assert second.compiled_count == 0


@pytest.mark.parametrize(
    "damage", ["a flipped bit", "a flipped bit of the digest", "the end is missing", "nothing is left"]
)
def test_a_damaged_file_is_compiled_anew_and_replaced(tmp_path, damage):
    address(Compiler(tmp_path), kernel("negative"))
    (path,) = files(tmp_path)
    content = bytearray(path.read_bytes())
    if damage.startswith("a flipped bit"):
        content[5 if "digest" in damage else len(content) // 2] ^= 4
    else:
        del content[len(content) // 2 if "end" in damage else 0 :]
    path.write_bytes(content)
    again = Compiler(tmp_path)
    assert call(address(again, kernel("negative")), X) == RESULTS["negative"]
    assert again.compiled_count == 1
    after = Compiler(tmp_path)
    assert call(address(after, kernel("negative")), X) == RESULTS["negative"]
    assert after.compiled_count == 0


def test_a_file_under_the_name_of_another_is_not_believed(tmp_path):
    compiler = Compiler(tmp_path)
    own, other = (address(compiler, kernel(name)) and files(tmp_path) for name in RESULTS)
    (added,) = {*other} - {*own}
    added.write_bytes(own[0].read_bytes())
    assert address(Compiler(tmp_path), kernel("absolute")) != 0


def test_where_nothing_can_be_kept_everything_is_compiled(tmp_path):
    file = tmp_path / "file"
    file.write_text("in the way")
    for directory in (None, file, file / "below"):
        compiler = Compiler(directory)
        assert call(address(compiler, kernel("negative")), X) == RESULTS["negative"]
        assert compiler.compiled_count == 1
    assert files(tmp_path) == [file]


def test_threads_that_want_the_same_function_get_it_compiled_once(tmp_path):
    compiler, found = Compiler(tmp_path), []
    threads = [
        threading.Thread(target=lambda name=name: found.append((name, address(compiler, kernel(name)))))
        for name in list(RESULTS) * 4
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert compiler.compiled_count == len(set(found)) == 2
    assert all(call(place, X) == RESULTS[name] for name, place in found)


def test_processes_that_compile_at_the_same_time_leave_whole_files_and_nothing_else(tmp_path):
    code = (
        "import sys; from pathlib import Path; from mlpd.core.codegen.compiler import Compiler;"
        "from mlpd.core.execution.verification import digest_of; print(digest_of(Compiler(Path(sys.argv[1]))))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], env=environment, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    assert {process.communicate()[0].strip() for process in started} == {ARITHMETIC}
    assert all(process.returncode == 0 for process in started)
    compiler = Compiler(tmp_path)
    assert verification.digest_of(compiler) == ARITHMETIC
    assert compiler.compiled_count == 0
    assert len(files(tmp_path)) == 4
    assert [path for path in tmp_path.rglob("*") if path.is_dir()] == [files(tmp_path)[0].parent]


class Careless(Compiler):
    """Compiles one thing where it is asked for another, and keeps it under the other's name."""

    def function(self, key, write):
        if isinstance(key, Product):
            return super().function(key, write)
        step, *others = key.steps
        wrong = Kernel(key.arrays, (step._replace(name="tanh"), *others), key.stored)
        return super().function(key, lambda module, name: write_kernel(module, name, wrong))


def test_kept_code_that_computes_something_else_is_replaced_before_it_is_used(tmp_path):
    assert verification.digest_of(Careless(tmp_path)) != ARITHMETIC
    assert verification.digest_of(Compiler(tmp_path)) != ARITHMETIC
    assert verification.digest_of(verification.verified_compiler(tmp_path)) == ARITHMETIC
    assert verification.digest_of(Compiler(tmp_path)) == ARITHMETIC


def test_code_that_computes_something_else_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(verification, "ARITHMETIC", "what another processor computes")
    with pytest.raises(RunnerUnavailable, match=rf"must compute what another .*, got {ARITHMETIC}; use runner plain"):
        verification.verified_compiler(tmp_path)


class Features(dict[str, bool]):
    """A processor's features, as LLVM wants to be told them."""

    def flatten(self):
        return ",".join(f"{'+' if has else '-'}{name}" for name, has in self.items())


def without(monkeypatch, *prefixes):
    """Have this processor compile as one that lacks the features whose names begin like that."""
    own = binding.get_host_cpu_features()
    lacks = {name: has and not name.startswith(prefixes) for name, has in own.items()}
    monkeypatch.setattr(binding, "get_host_cpu_name", lambda: "x86-64")
    monkeypatch.setattr(binding, "get_host_cpu_features", lambda: Features(lacks))


@pytest.mark.skipif(not binding.get_default_triple().startswith("x86_64"), reason="names features of x86-64")
@pytest.mark.parametrize("missing", [("avx512",), ("avx512", "avx2")])
def test_processors_with_narrower_registers_compute_the_same_bits(monkeypatch, missing):
    without(monkeypatch, *missing)
    assert verification.digest_of(Compiler()) == ARITHMETIC


@pytest.mark.skipif(not binding.get_default_triple().startswith("x86_64"), reason="names features of x86-64")
def test_a_processor_without_fused_multiply_adds_is_refused(monkeypatch, tmp_path):
    without(monkeypatch, "fma")
    with pytest.raises(RunnerUnavailable, match="needs a processor with fused multiply-adds; use runner plain"):
        verification.verified_compiler(tmp_path)


def test_without_a_compiler_all_but_compiled_runs_are_there(tmp_path):
    """In an interpreter that sees every package of this one but llvmlite."""
    link_packages(tmp_path, "llvmlite", "tests")  # which some package brings, and would stand before ours
    core = Path(mlpd.core.__file__).parents[2]
    code = (
        "from importlib.util import find_spec\n"
        "from mlpd.core.execution.opening import missing_for\n"
        "from mlpd.core.plans.runner import RunnerUnavailable\n"
        "from tests.core.family import finish, run\n"
        "assert not find_spec('llvmlite')\n"
        "assert missing_for('plain') == ''\n"
        "finish(run().start())\n"
        "try: finish(run(runner='compiled').start())\n"
        "except RunnerUnavailable as error: print(error)\n"
    )
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (core, root, tmp_path)))}
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    expected = "runner compiled can't be used: llvmlite, which comes with mlpd[server], is not installed\n"
    assert done.stdout == expected
