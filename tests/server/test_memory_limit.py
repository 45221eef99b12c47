"""A run that can't fit its machine is refused when it is submitted."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from mlpd.core.architecture import ModelSpec
from mlpd.server.devices import DeviceReport
from mlpd.server.errors import ResourceExhausted
from mlpd.server.resolution import _check_memory

from .test_lifecycle import SPEC

ROWS: Any = SimpleNamespace(size_bytes=100_000, row_count=1000, input_size=100, target_dtype="uint8", weighted=False)
SMALL = DeviceReport(True, "cpu", memory_bytes=500_000_000)
IN_32_SHARDS = replace(SPEC, model=ModelSpec.plain((100, 64, 2)), shard_count=32)


def test_the_processes_of_a_job_must_fit_together():
    with pytest.raises(ResourceExhausted, match="must fit into the 500,000,000 bytes of device cpu"):
        _check_memory(IN_32_SHARDS, ROWS, SMALL, thread_count=32)
    assert _check_memory(IN_32_SHARDS, ROWS, SMALL, thread_count=2) < 150_000_000


def test_what_a_checkpoint_takes_must_fit_too():
    many = replace(SPEC, model=ModelSpec.plain((100, 30_000, 2)))
    parameters = 4 * 103 * 30_000
    assert _check_memory(many, ROWS, SMALL, thread_count=1) > 5 * parameters
