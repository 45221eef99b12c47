"""Runs end with the bits that they ended with when they were recorded: nothing that is rebuilt changes a result."""

import pytest

from ..conftest import needs_compiler
from .recorded_runs import CASES, ONE_BLOCK, PORTABLE, digest_after, recorded


@pytest.mark.parametrize("name", CASES)
def test_a_run_call_by_call_ends_as_recorded_where_the_machine_is_the_same(name):
    environment, digest = digest_after(CASES[name])
    known = recorded().get(environment, {})
    if name not in known:
        pytest.skip(f"it was not recorded in this environment: {environment}")
    assert digest == known[name]


@needs_compiler
@pytest.mark.parametrize("name", PORTABLE)
def test_a_compiled_run_ends_as_recorded_on_every_machine(name, kernels):
    assert digest_after(PORTABLE[name], thread_count=3, kernels=kernels)[1] == recorded()["compiled"][name]


@needs_compiler
@pytest.mark.parametrize("name", ONE_BLOCK)
def test_a_compiled_run_on_one_block_ends_as_recorded_on_every_machine(name, kernels):
    assert digest_after(ONE_BLOCK[name], kernels=kernels)[1] == recorded()["one block"][name]
