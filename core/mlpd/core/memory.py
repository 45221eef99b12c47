"""How much memory a run will need on its device, from its spec alone."""

from math import prod

import numpy as np
from mlpd.core.architecture import parameter_count, statistic_count
from mlpd.core.augmentation import basis_size
from mlpd.core.batches import piece_rows
from mlpd.core.rules import Rows
from mlpd.core.sharding import seam_widths
from mlpd.core.spec import TrainingSpec

_INDEX_BYTES = 8
_BASIS_BYTES = 20  # while it is made, in float64 and then in float32


def estimate_bytes(spec: TrainingSpec, rows: Rows, row_bytes: int) -> int:
    """Return the bytes of vectors, buffers and data that a run on ``rows`` of ``row_bytes`` holds at a time.

    Vectors: parameters, gradients, moments, averages, the best so far. Buffers: a pass forward
    and back, and what augmentation keeps. Data are counted where they are copied: to a device, or where rows are held
    out. Libraries and what an allocator keeps in reserve come on top.
    """
    model, size = spec.model, np.dtype(spec.model.dtype).itemsize
    layers, capacity = model.layers(), piece_rows(spec)
    optimizer = spec.optimizer
    vectors = 2 + len(optimizer.kind.moments)
    copies = (optimizer.average_decay > 0) + (spec.early_stopping is not None)
    weights = parameter_count(layers) * (vectors + copies) + statistic_count(layers) * (1 + copies)
    widths = [model.layer_sizes[0], *(layer.width for layer in layers if not layer.in_place)]
    work = sum(prod(shape) for layer in layers for shape in layer.work(capacity))
    seams = sum(seam_widths(layers, spec.shard_count)) * (spec.shard_count + 1)
    buffers = 2 * capacity * sum(widths) + work
    if spec.shard_count > 1:  # each helper has its part, and the first process all, for when it is alone
        buffers = 2 * buffers + capacity * seams
    copied = spec.device != "cpu" or spec.validation.fraction > 0
    data = rows.row_count * (row_bytes * copied + 2 * _INDEX_BYTES)
    warping = basis_size(spec.augmentation) * _BASIS_BYTES if spec.augmentation else 0
    return size * (weights + buffers) + data + warping
