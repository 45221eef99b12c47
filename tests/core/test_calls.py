"""What a plan's calls come to, and what they must be given."""

import numpy as np
import pytest
from mlpd.core.devices.arrays import ByColumns, RowWords
from mlpd.core.execution.fusion import fuse
from mlpd.core.plans.recording import NotRecordable, RecordingDevice, Scalar
from mlpd.core.random import Purpose

from ..conftest import needs_compiler
from .kernel_machine import both_ways

pytestmark = needs_compiler


def test_a_kernel_counts_what_it_reads_and_writes_once():
    device, y, bias, sums = RecordingDevice(ByColumns()), np.zeros((6, 5)), np.zeros(5), np.zeros((6, 1))
    device.xp.add(y, bias, out=y)
    ((added,),) = fuse([device.take()], [y])
    device.xp.sum(y, axis=1, keepdims=True, out=sums)
    ((summed,),) = fuse([device.take()], [sums])
    assert (added.bytes, summed.bytes) == (8 * (30 + 5 + 30), 8 * (30 + 6))


def test_words_are_drawn_of_scalars_alone():
    device = RecordingDevice(ByColumns())
    device.draw(RowWords(1, 2, Purpose.DROPOUT, 4), 0, 0, np.zeros((2, 4), np.uint64))
    with pytest.raises(NotRecordable, match="draw can only be compiled of scalars that a step has"):
        fuse([device.take()], [])


def test_a_scalar_that_a_run_does_not_give_is_named(machine):
    out = np.zeros(4)
    with pytest.raises(KeyError, match="numbers must have rate, which the plan wants"):
        both_ways(machine, lambda device: device.xp.multiply(out, Scalar("rate"), out=out), [out])
