"""How a run is cut: steps into micro-batches, and the network, or each of these, into blocks of units or of rows.

How many blocks there are decides the bits of a run; who works on them does not.
"""

from itertools import pairwise

from mlpd.core.declaration import declarations
from mlpd.core.spec.training import TrainingSpec

SPLITS = declarations(TrainingSpec)["split"].names
BLOCK_LIMIT = 64
# Rows of a micro-batch, and values of the widest layer; compiled blocks have less of a row each.
_MICRO_BATCH = {"cpu": (512, 2**22), "compiled": (1024, 2**22), "cuda": (2**16, 2**26)}
# Blocks, and the floating-point operations of a step from which on they pay: measured on two cores, where more than two
# cost a twentieth of a large step and a tenth of a small one, for the sake of machines that have more.
_BLOCKS = ((4, 2e8), (2, 2e6))


def micro_batch_rows(spec: TrainingSpec) -> int:
    """Return how many rows a pass takes at a time.

    A larger batch runs in micro-batches whose gradients are summed, so that memory does not grow with it and, on the
    CPU, activations stay near the processor; on a GPU each costs its launches, however few its rows are. What a row
    learns from does not depend on how its step is cut. Batch normalisation sees its batch at once.
    """
    if spec.model.normalization == "batch":
        return spec.batch_size
    rows, values = _MICRO_BATCH["compiled" if _has_blocks(spec) else spec.device]
    return min(spec.rows_per_step, rows, max(1, values // max(spec.model.layer_sizes)))


def largest_block_count(spec: TrainingSpec, split: str) -> int:
    """Return into how many blocks a run can be cut: each needs a unit of every hidden layer, or a row.

    Layer normalisation looks at all units of a row, batch normalisation at all rows; each is kept whole. Other runners
    than the compiled one have one block, and a library to work on it with several threads.
    """
    model = spec.model
    if not _has_blocks(spec):
        return 1
    if split == "rows":
        return 1 if model.normalizes_batches else max(1, min(BLOCK_LIMIT, micro_batch_rows(spec)))
    hidden = model.layer_sizes[1:-1]
    return 1 if not hidden or model.normalization == "layer" else max(1, min(BLOCK_LIMIT, *hidden))


def _has_blocks(spec: TrainingSpec) -> bool:
    return spec.runner == "compiled" and spec.device == "cpu"


def best_blocks(spec: TrainingSpec) -> tuple[str, int]:
    """Return the split that is faster, and into how many blocks; the machine has no say in it."""
    if not _has_blocks(spec):
        return "units", 1
    sizes, rows = spec.model.layer_sizes, micro_batch_rows(spec)
    weights = sum(inputs * width for inputs, width in pairwise(sizes))
    split = "rows" if largest_block_count(spec, "units") == 1 or _rows_pay(spec, rows, weights) else "units"
    wanted = next((count for count, least in _BLOCKS if 6 * rows * weights >= least), 1)
    return split, min(wanted, largest_block_count(spec, split))


def _rows_pay(spec: TrainingSpec, rows: int, weights: int) -> bool:
    """Whether it takes less to sum up gradients than to copy inputs for all blocks and exchange partial sums.

    A value that is copied or exchanged took half the time of a gradient that is summed up and read again.
    """
    sizes = spec.model.layer_sizes
    return not spec.model.normalizes_batches and 2 * weights < rows * (sum(sizes[:-1]) + sum(sizes[2:]))
