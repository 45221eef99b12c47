"""The self-test of code made by NVRTC: it has the digest of the CPU's code, or is not used."""

import pytest
from mlpd.core.cuda import verification
from mlpd.core.cuda.compiler import CudaCompiler
from mlpd.core.plans.runner import ARITHMETIC, RunnerUnavailable

pytestmark = pytest.mark.cuda


class Careless(CudaCompiler):
    """Compiles square roots as what they are of, and keeps the code as if it were right."""

    def _compile(self, source):
        return super()._compile(f"#define sqrtf(x) (x)\n{source}")


class Wrong(CudaCompiler):
    """Compiles ``right`` as ``wrong``, wherever that stands in a source."""

    right, wrong = "", ""

    def _compile(self, source):
        assert self.right in source
        return super()._compile(source.replace(self.right, self.wrong))


# In rows that blocks go on with, in what is added, in the third slab, in copies of 16 bytes, and in a transposed matrix.
FAULTS = [
    ("fused(rows[k][i]", "fused(rows[k][0]"),
    ("plus(total, times(scale, chunk))", "plus(total, chunk)"),
    ("cs[one].of[0]", "bs[one].of[0]"),
    ("*(Vector<T, COUNT>*)to = *(const Vector<T, COUNT>*)from;", "*(T*)to = *(const T*)from;"),
    ("run / LINES * OCTET + along", "run / LINES * OCTET"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault[0])
def test_every_way_to_make_products_is_tested(machine, monkeypatch, fault):
    pytest.importorskip("cuda_on_cpu", reason="a device copies otherwise")
    monkeypatch.setattr(Wrong, "right", fault[0])
    monkeypatch.setattr(Wrong, "wrong", fault[1])
    assert verification.digest_of(Wrong(None), machine.device) != ARITHMETIC


def test_a_gpu_computes_the_digest_of_the_cpu_in_one_launch(machine, cuda_kernels):
    compiler = CudaCompiler(cuda_kernels)
    assert verification.digest_of(compiler, machine.device) == ARITHMETIC
    cuda_on_cpu = pytest.importorskip("cuda_on_cpu", reason="only the emulator counts device work")
    with cuda_on_cpu.measure() as work:
        verification.digest_of(compiler, machine.device)
    assert (work.launches, work.compiles, work.modules) == (1, 0, 0), work


def test_a_compiler_is_tried_once_a_process(machine, cuda_kernels):
    compiler = verification.verified_compiler(machine.device, cuda_kernels)
    assert verification.verified_compiler(machine.device, cuda_kernels) is compiler


def test_kept_code_that_computes_something_else_is_replaced_before_it_is_used(machine, tmp_path):
    assert verification.digest_of(Careless(tmp_path), machine.device) != ARITHMETIC
    assert verification.digest_of(CudaCompiler(tmp_path), machine.device) != ARITHMETIC
    assert verification.verified_compiler(machine.device, tmp_path).compiled_count == 1
    assert verification.digest_of(CudaCompiler(tmp_path), machine.device) == ARITHMETIC


def test_a_compiler_whose_code_computes_something_else_is_not_used(machine, tmp_path, monkeypatch):
    monkeypatch.setattr(verification, "CudaCompiler", Careless)
    with pytest.raises(RunnerUnavailable) as caught:
        verification.verified_compiler(machine.device, tmp_path)
    message = str(caught.value)
    assert message.startswith(f"compiled code must compute {ARITHMETIC} on this GPU, got ")
    assert message.endswith(
        "; install mlpd[cuda12] or mlpd[cuda13] again, which bring a compiler and its headers, or use runner plain"
    )
