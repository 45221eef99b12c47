"""A run that can't fit its machine is refused when it is submitted."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from mlpd.core.data.columns import Schema
from mlpd.core.network.architecture import ModelSpec
from mlpd.server.errors import ResourceExhausted
from mlpd.server.executors.devices import DeviceReport
from mlpd.server.jobs.resolution import _check_memory

from .test_lifecycle import SPEC

ROWS: Any = SimpleNamespace(
    size_bytes=100_000,
    row_count=1000,
    encoded_size=100,
    needs_encoding=False,
    dtype="uint8",
    target_dtype="uint8",
    weighted=False,
    schema=Schema(),
)
SMALL = DeviceReport(True, "cpu", memory_bytes=500_000_000)
COMPILED = replace(SPEC, runner="compiled", split="units", block_count=2)


@pytest.mark.parametrize("spec", [SPEC, COMPILED], ids=["plain", "compiled"])
def test_a_run_must_fit_into_its_machine(spec):
    with pytest.raises(ResourceExhausted, match="must fit into the 500,000,000 bytes of device cpu"):
        _check_memory(replace(spec, model=ModelSpec.plain((100, 300_000, 2))), [ROWS], SMALL, thread_count=2)
    small = replace(spec, model=ModelSpec.plain((100, 64, 2)))
    assert _check_memory(small, [ROWS], SMALL, thread_count=2) < SMALL.memory_bytes


def test_what_a_checkpoint_takes_must_fit_too():
    many = replace(SPEC, model=ModelSpec.plain((100, 30_000, 2)))
    parameters = 4 * 103 * 30_000
    assert _check_memory(many, [ROWS], SMALL, thread_count=1) > 5 * parameters
