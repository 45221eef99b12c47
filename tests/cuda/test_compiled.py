"""Compiled runs on CUDA: the bits of the CPU's compiled code, few launches, one graph for work that comes again."""

import pytest

from ..core.recorded_runs import ONE_BLOCK, digest_after, recorded

pytestmark = pytest.mark.cuda


@pytest.mark.parametrize("name", ONE_BLOCK)
def test_a_run_ends_with_the_bits_of_compiled_code_on_the_cpu(cuda, name, cuda_kernels):
    digest = digest_after(ONE_BLOCK[name].but(device="cuda"), cuda, kernels=cuda_kernels)[1]
    assert digest == recorded()["one block"][name]
