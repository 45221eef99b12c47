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
