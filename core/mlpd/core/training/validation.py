"""Scores a run's weights on its validation rows, in blocks of rows and by the run's own runner."""

from collections.abc import Sequence

import numpy as np
from mlpd.core.data.datasets import Dataset
from mlpd.core.devices.arrays import Array, Device, matrix
from mlpd.core.models.metrics import EVALUATION_ROWS
from mlpd.core.network.network import Pass, Weights
from mlpd.core.network.scaling import Scaling
from mlpd.core.network.tasks import TASKS
from mlpd.core.plans.plan import Plan, Task, Variant, Work, share
from mlpd.core.plans.recording import RecordingDevice
from mlpd.core.plans.runner import Runner
from mlpd.core.spec.training import TrainingSpec
from mlpd.core.steps.batches import Rows, input_type
from mlpd.core.steps.blocks import Measure, Totals
from mlpd.core.steps.partition import StateLayout, unit_parts


class Validation:
    """A `Program` that measures a model on ``dataset``; not for use by two threads."""

    def __init__(self, device: Device, spec: TrainingSpec, dataset: Dataset, scaling: Scaling) -> None:
        self._device, self._dataset, self._scaling = RecordingDevice(device), dataset, scaling.on(device)
        model, task, capacity = spec.model, TASKS[spec.task], EVALUATION_ROWS
        self.dtype, self.task_limit = np.dtype(model.dtype), spec.block_count
        layers, outputs = model.layers(), model.layer_sizes[-1]
        self._layout = StateLayout(device, layers, [unit_parts(layers, 0, 1)])
        (sizes,) = self._layout.sizes
        self._weights = Weights(*(device.zeros(size, self.dtype) for size in sizes))
        self._totals, own = Totals(device), [Totals(device) for _ in range(spec.block_count)]
        self._own_totals = own
        self._task = task(self._device, outputs, 1, self.dtype)
        labels = task.prepare(np.array(dataset.targets[:1]), model.dtype)
        inputs = scaling.moved(dataset.inputs[:1])
        self._raw = device.empty((capacity, model.layer_sizes[0]), input_type(device, inputs.dtype))
        self._rows = Rows(
            self._raw,
            matrix(device, (capacity, *labels.shape[1:]), labels.dtype),
            matrix(device, (capacity, outputs), self.dtype),
            None,
        )
        rows = -(-capacity // spec.block_count)
        self._passes = [Pass(self._device, layers, model.layer_sizes[0], self._weights, rows) for _ in own]
        self._gradients = [matrix(device, (rows, outputs), self.dtype) for _ in own]
        self._measures = [Measure(self._device, spec, rows, totals) for totals in own]
        self._device.take()

    @property
    def kept(self) -> Sequence[Array]:
        """Arrays whose values outlive a micro-batch: the totals, and each block's."""
        own = [one for totals in self._own_totals for one in (totals.loss_sum, totals.correct_count)]
        return [self._totals.loss_sum, self._totals.correct_count, *own]

    def record(self, variant: Variant) -> Plan:
        """Return the plan for ``variant.rows`` rows: each block measures its part of them, then the sums are added."""
        tasks: list[Task] = []
        for number in range(len(self._passes)):
            self._measure(number, slice(*share(variant.rows, number, len(self._passes))))
            tasks.append(self._device.take())
        xp = self._device.xp
        for own in self._own_totals:
            xp.add(self._totals.loss_sum, own.loss_sum, out=self._totals.loss_sum)
            xp.add(self._totals.correct_count, own.correct_count, out=self._totals.correct_count)
        return Plan([], [tasks, [self._device.take()]], joins=False)

    def _measure(self, number: int, chosen: slice) -> None:
        xp, own, run = self._device.xp, self._own_totals[number], self._passes[number]
        xp.copyto(own.loss_sum, 0.0)
        xp.copyto(own.correct_count, 0)
        if rows := chosen.stop - chosen.start:
            self._task.spread(self._rows.labels[chosen], self._rows.targets[chosen])
            self._scaling(xp, self._raw[chosen], run.inputs(rows))
            run.forward(rows)
            self._measures[number](run.outputs(rows), self._gradients[number][:rows], self._rows, chosen)

    @np.errstate(all="ignore")  # as in a forward pass
    def run(self, runner: Runner, weights: Weights) -> tuple[float, float | None]:
        """Return mean loss and accuracy of ``weights``; the accuracy is None for a task that counts no hits."""
        self._layout.split_weights(weights, [self._weights])
        totals, dataset = self._totals, self._dataset
        totals.loss_sum.fill(0)
        totals.correct_count.fill(0)
        for start in range(0, len(dataset), EVALUATION_ROWS):
            chosen = slice(start, start + EVALUATION_ROWS)
            targets = np.array(dataset.targets[chosen])
            rows = len(targets)
            inputs = self._scaling.moved(dataset.inputs[chosen]).astype(self._raw.dtype, copy=False)
            self._device.write(inputs, self._raw[:rows])
            self._device.write(self._task.prepare(targets, self.dtype.name), self._rows.labels[:rows])
            variant = Variant(rows, 0, is_first=True, is_last=True, flushes=False)
            runner.prepare(Work([variant], np.zeros(1, np.int64), {"scale": np.ones(1)}))()
        loss, hits = float(totals.loss_sum) / len(dataset), int(totals.correct_count) / len(dataset)
        return loss, hits if self._task.counts_hits else None
