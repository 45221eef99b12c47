"""A batch that each runner cuts in its own way: all draw the same for its rows, and learn the same but for rounding."""

from dataclasses import replace

import numpy as np
import pytest
from mlpd.core.devices.arrays import Cpu
from mlpd.core.network.layers import Dropout
from mlpd.core.network.network import Backward, Pass, Weights
from mlpd.core.optimization.optimizers import Sgd
from mlpd.core.spec.split import micro_batch_rows
from mlpd.core.spec.training import LossSpec

from ..conftest import needs_compiler
from ..core.family import brought_steps, events_of, noise, optimized, run

pytestmark = pytest.mark.cuda

BATCH = 1500
LARGE = run(
    input_dropout_rate=0.2,
    dropout_rates=(0.5, 0.25),
    loss=LossSpec(label_smoothing=0.1, mixup_alpha=0.4),
    batch_size=BATCH,
    epoch_count=3,
    metrics_interval_steps=1,
    **optimized(Sgd(0.9), 0.1),
)
LARGE = replace(LARGE, data=noise(rows=BATCH + 300, weighted=True))
ON_GPU = LARGE.but(device="cuda")


def test_each_runner_cuts_it_in_its_own_way():
    compiled = LARGE.compiled("units", 1)
    rows = [micro_batch_rows(case.spec) for case in (LARGE, compiled, ON_GPU, compiled.but(device="cuda"))]
    assert rows == [512, 1024, BATCH, BATCH]


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float16", "float64"])
@pytest.mark.parametrize("compiled", [False, True])
def test_its_rows_are_mixed_and_dropped_alike(cuda, dtype, compiled):
    data = noise(rows=len(LARGE.data), weighted=True, dtype=dtype)
    device = cuda.for_compiled_code() if compiled else cuda
    assert brought_steps(replace(ON_GPU, data=data), device) == brought_steps(replace(LARGE, data=data), Cpu())


@pytest.mark.parametrize("width", [9, 16, 21])
def test_its_masks_are_the_same_bits(cuda, width):
    masks = []
    for device, rows in ((cuda, BATCH), (Cpu(), 512), (Cpu(), 1024)):
        nothing, parts = device.xp.zeros(0, dtype="float32"), []
        network = Pass(device, (Dropout(width, 0.3),), width, Weights(nothing, nothing), rows, Backward(seed=2**62))
        for first in range(0, BATCH, rows):
            count = min(rows, BATCH - first)
            network.inputs(count).fill(1.0)
            parts.append(device.to_host(network.forward(count, 2**33, first)))
        masks.append(np.concatenate(parts).tobytes())
    assert masks[0] == masks[1] == masks[2]


@needs_compiler
def test_all_runners_learn_the_same_from_it_but_for_rounding(cuda, cuda_kernels, tmp_path):
    outcomes = []
    for case, device, where in (
        (LARGE, Cpu(), None),
        (LARGE.compiled("units", 2), Cpu(), tmp_path),
        (LARGE.compiled("rows", 3), Cpu(), tmp_path),
        (ON_GPU, cuda, None),
        (ON_GPU.compiled("units", 1), cuda, cuda_kernels),
    ):
        state = case.start(device)
        losses = [event.loss for event in events_of(state, kernels=where) if hasattr(event, "loss")]
        outcomes.append((losses, state.trained().model.parameters))
    for found in outcomes[1:]:
        for one, other in zip(found, outcomes[0], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
