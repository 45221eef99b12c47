"""Prepares data sets for a run: splits, weights and scales them, on the host and from the spec alone."""

from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from mlpd.core.data.arrangement import arrangement
from mlpd.core.data.columns import Schema
from mlpd.core.data.datasets import WEIGHT_SUMS, Dataset
from mlpd.core.data.encoding import Encoder, encoded, learned_columns, takes_encoding
from mlpd.core.data.splits import held_out_rows
from mlpd.core.devices.arrays import HostArray
from mlpd.core.network.scaling import Move, Scaling, TargetScaling, blocks
from mlpd.core.network.tasks import TASKS
from mlpd.core.spec.training import TrainingSpec
from numpy.typing import NDArray


class NothingToLearn(Exception):
    """The rows to train on leave a run nothing to learn; the message says why."""


class Source(Protocol):
    """How a model to go on from reads its rows."""

    @property
    def schema(self) -> Schema:
        """What they stand for."""

    @property
    def scaling(self) -> Scaling:
        """What is done to inputs."""

    @property
    def target_scaling(self) -> TargetScaling | None:
        """What was done to targets."""


@dataclass(frozen=True)
class Examples:
    """Rows to train on and to validate on, how a model reads rows like them, and how much each training row counts.

    ``row_count`` is that of the data set before any were held out. Inputs are encoded as ``schema`` says, and those of
    ``train`` are moved but not scaled; the device scales them. Targets are scaled. ``weights`` (rows, 1) have a mean of
    1; None = all rows count alike. ``test`` has the rows that are scored at the end.
    """

    row_count: int
    train: Dataset
    validation: Dataset | None
    scaling: Scaling
    weights: HostArray | None
    schema: Schema = field(default_factory=Schema)
    target_scaling: TargetScaling | None = None
    test: Dataset | None = None

    @classmethod
    def of(
        cls,
        spec: TrainingSpec,
        dataset: Dataset,
        validation: Dataset | None,
        source: Source | None = None,
        test: Dataset | None = None,
    ) -> "Examples":
        """Prepare data sets for a run that goes on from ``source``, None = all is learned from the rows to train on.

        Raises `NothingToLearn`, and `SchemasDiffer` for data sets that can't be put as one another.
        """
        row_count, held_out = len(dataset), spec.held_out_count(len(dataset))
        if source:
            own = source.schema if source.schema.columns else replace(source.schema, columns=dataset.schema.columns)
            classes, targets = (
                own.class_names or dataset.schema.class_names,
                own.target_names or dataset.schema.target_names,
            )
            own = replace(own, class_names=classes, target_names=targets)
            dataset = _arranged(dataset, own)
        kept = None
        if held_out:
            chosen = held_out_rows(dataset.targets, held_out, spec.seed)
            kept = np.setdiff1d(np.arange(row_count), chosen)
            validation = dataset.rows(chosen)
        schema = dataset.schema if source and source.schema.columns else _learned(dataset, kept)
        dataset = _encoded(dataset if kept is None else dataset.rows(kept), schema)
        validation, test = (rows and _like(rows, schema) for rows in (validation, test))
        scaling = source.scaling if source else None
        if scaling is None:
            scaling = Scaling.of(spec.model, dataset.inputs, images=spec.augmentation is not None)
        if scaling.move:
            dataset = _moved(dataset, scaling.move)
        _check_inputs(spec, dataset.inputs, scaling)
        target_scaling = source.target_scaling if source else None
        if spec.loss.standardize_targets and target_scaling is None:
            target_scaling = TargetScaling.of(dataset.targets)
        if target_scaling:
            dataset = _scaled(dataset, target_scaling)
            validation, test = (rows and _scaled(rows, target_scaling) for rows in (validation, test))
        weights = _row_weights(spec, dataset)
        return cls(row_count, dataset, validation, scaling, weights, schema, target_scaling, test)


def _learned(dataset: Dataset, kept: NDArray[np.int64] | None) -> Schema:
    """Return the schema of a model that is trained on the ``kept`` rows of a data set, None = on all."""
    schema = dataset.schema
    return replace(schema, columns=learned_columns(schema.columns, dataset.inputs, kept)) if schema.columns else schema


def _like(dataset: Dataset, schema: Schema) -> Dataset:
    """Return a data set as a model of ``schema`` reads it."""
    return _encoded(_arranged(dataset, schema), schema)


def _arranged(dataset: Dataset, schema: Schema) -> Dataset:
    """Return a data set as one of ``schema``; raises `SchemasDiffer`, for rows of unknown classes too."""
    row_counts = np.bincount(dataset.targets).tolist() if dataset.targets.ndim == 1 else ()
    return arrangement(dataset.schema, schema, row_counts).dataset(dataset, schema)


def _scaled(dataset: Dataset, scaling: TargetScaling) -> Dataset:
    return replace(dataset, targets=scaling(dataset.targets))


def _encoded(dataset: Dataset, schema: Schema) -> Dataset:
    """Return a data set whose rows are encoded if need be."""
    if not takes_encoding(schema, dataset.inputs):
        return dataset
    return replace(dataset, inputs=encoded(Encoder(schema.columns), dataset.inputs))


def _moved(dataset: Dataset, move: Move) -> Dataset:
    inputs = np.empty(dataset.inputs.shape)
    for raw, out in zip(blocks(dataset.inputs), blocks(inputs), strict=True):
        out[...] = move(raw)
    return replace(dataset, inputs=inputs)


def _check_inputs(spec: TrainingSpec, inputs: HostArray, scaling: Scaling) -> None:
    """Raise `NothingToLearn` if inputs times a single factor are too small for the model's type, unless all are 0."""
    if scaling.shift is not None or inputs.dtype.kind != "f":
        return
    largest, least = 0.0, float(np.finfo(spec.model.dtype).tiny)
    for block in blocks(inputs):
        scaled = np.empty(block.shape, spec.model.dtype)
        with np.errstate(over="ignore", under="ignore"):
            scaling(np, block, scaled)
        if np.abs(scaled).max() >= least:
            return
        largest = max(largest, float(np.abs(block).max()))
    if largest:
        raise NothingToLearn(
            f"inputs times input_scale must be at least {least:g} for data_type {spec.model.dtype}, got at most "
            f"{largest:g} times {spec.model.input_scale:g}; standardize_inputs takes inputs of any size"
        )


def _row_weights(spec: TrainingSpec, dataset: Dataset) -> HostArray | None:
    """Return row times class weights (rows, 1) with mean 1; None if there are neither."""
    weights = None if dataset.weights is None else dataset.weights.astype(np.float64)
    if spec.loss.class_weights and TASKS[spec.task].has_classes:
        of_classes = np.asarray(spec.loss.class_weights)[dataset.targets.astype(np.intp)]
        with np.errstate(over="ignore"):
            weights = of_classes if weights is None else weights * of_classes
    if weights is None:
        return None
    _check_weights(spec, dataset, weights)
    shares: HostArray = (weights / weights.mean()).astype(spec.model.dtype)
    return shares[:, None]


def _check_weights(spec: TrainingSpec, dataset: Dataset, weights: NDArray[np.float64]) -> None:
    what = "the weights of the rows to train on, times those of their classes, must"
    if not weights.any():
        raise NothingToLearn(f"{what} not all be 0, got {len(weights)} zeros")
    low, high = (limit**2 for limit in WEIGHT_SUMS)
    with np.errstate(over="ignore"):
        total = weights.sum()
    if not low <= total <= high:
        raise NothingToLearn(f"{what} add up to between {low:g} and {high:g}, got {total:g}")
    if TASKS[spec.task].has_classes and len(np.unique(dataset.targets[weights > 0])) < 2:
        raise NothingToLearn(f"{what} be above 0 in at least 2 classes, got 1")
