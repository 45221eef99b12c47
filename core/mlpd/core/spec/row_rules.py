"""Rules about the rows that are left to train on; each broken one is a field, the rule, and what was given instead."""

from collections.abc import Iterator, Sequence

from mlpd.core.data.datasets import WEIGHT_SUMS
from mlpd.core.data.splits import train_class_counts
from mlpd.core.spec.limits import Broken
from mlpd.core.spec.training import TrainingSpec


def broken_row_rules(spec: TrainingSpec, row_count: int | None, class_row_counts: Sequence[int]) -> Iterator[Broken]:
    """Look at a split of ``row_count`` rows, None if they are not known, and at mini-batches of what it leaves."""
    fraction, row_limit = spec.validation.fraction, spec.batch_size
    # The moments of a single row say nothing of the others.
    least, when = (2, " with batch normalization") if spec.model.normalizes_batches else (1, "")
    if row_count is not None:
        row_limit, class_count = spec.train_row_count(row_count), _present(class_row_counts)
        left = f"{row_limit} of {row_count} rows to train on"
        if 0 < fraction < 1 and not 0 < row_limit < row_count:
            yield "validation_fraction", "leave rows on both sides", left
        elif row_limit < class_count:
            yield "validation_fraction", f"leave a row of each of {class_count} classes", left
        elif row_limit < least:
            yield "train_dataset", f"have at least {least} rows to train on{when}", row_limit
            return
    if not least <= spec.batch_size <= max(row_limit, 1):
        rule = f"be at least {least}" if row_count is None else f"be between {least} and {row_limit}"
        yield "batch_size", f"{rule}{when}", spec.batch_size


def broken_class_weight_rules(spec: TrainingSpec, row_count: int, class_row_counts: Sequence[int]) -> Iterator[Broken]:
    """Look whether weights of classes, one each, leave something to tell apart."""
    counts = train_class_counts(class_row_counts, spec.held_out_count(row_count))
    sums = [rows * weight for rows, weight in zip(counts, spec.loss.class_weights, strict=False)]
    present, (low, high) = _present(class_row_counts), WEIGHT_SUMS
    if _present(sums) < 2 <= present:
        rule = f"be above 0 for at least 2 of the {present} classes that train_dataset has rows of"
        yield "loss.class_weights", rule, _present(sums)
    elif not low <= sum(sums) <= high:
        rule = f"add up to between {low:g} and {high:g} over the rows to train on"
        yield "loss.class_weights", rule, f"{sum(sums):g}"


def _present(amounts: Sequence[float]) -> int:
    return sum(amount > 0 for amount in amounts)
