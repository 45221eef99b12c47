"""Predictions: a model's forward pass on rows, call by call on any device, or compiled."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mlpd.core.codegen.kernels import readable_type
from mlpd.core.devices.arrays import Array, Cpu, Device, HostArray
from mlpd.core.execution.opening import open_runner
from mlpd.core.models.model import Model
from mlpd.core.network.network import Pass
from mlpd.core.plans.plan import Plan, Task, Variant, Work, share
from mlpd.core.plans.recording import RecordingDevice

_BLOCK_ROWS = 16  # fewer are not worth a thread of their own


class Predictor:
    """Runs a model on rows in their own units; threads may share the model, never a Predictor."""

    def __init__(self, device: Device, model: Model, capacity: int, block_count: int = 1) -> None:
        self.device, self.model, self.capacity = device, model, capacity
        self._scaling = model.scaling.on(device)
        layers, input_size = model.spec.layers(), model.spec.layer_sizes[0]
        weights = model.weights.map(device.from_host)
        self._passes = [
            Pass(device, layers, input_size, weights, -(-capacity // block_count)) for _ in range(block_count)
        ]

    def _forward(self, xp: Any, number: int, raw: Array) -> Array:
        """Return the outputs of pass ``number`` for rows (rows, input_size) that were moved already."""
        own = self._passes[number]
        self._scaling(xp, raw, own.inputs(len(raw)))
        return own.forward(len(raw))

    @np.errstate(all="ignore")  # what overflows shows in the outputs; a BLAS may also raise flags for spare lanes
    def forward(self, inputs: HostArray) -> Array:
        """Return outputs (rows, outputs) on the device, in a buffer that the next call overwrites."""
        return self._forward(self.device.xp, 0, self.device.from_host(self._read(inputs)))

    def _read(self, inputs: HostArray) -> HostArray:
        """Return rows as the device is to scale them: encoded if need be, and moved."""
        return self._scaling.moved(self.model.encoded(inputs))

    def _predictions(self, outputs: Array) -> HostArray:
        """Return what the last rows' ``outputs`` predict."""
        return self.model.predictions(self.device.to_host(outputs))

    def predict(self, inputs: HostArray) -> tuple[HostArray, HostArray]:
        """Return outputs (rows, outputs), logits where there are classes, and what they predict, as `Model` says.

        For any number of rows (rows, input_size).
        """
        model, count = self.model, len(inputs)
        outputs = np.empty((count, model.spec.layer_sizes[-1]), model.spec.dtype)
        dtype = model.spec.dtype if model.target_scaling is None else np.float64
        predictions = np.empty((count, model.prediction_count), dtype)
        for start in range(0, count, self.capacity):
            chosen = slice(start, start + self.capacity)
            found = self.forward(inputs[chosen])
            outputs[chosen] = self.device.to_host(found)
            predictions[chosen] = self._predictions(found)
        return outputs, predictions

    def outputs(self, inputs: HostArray) -> HostArray:
        """Return the outputs alone."""
        return self.predict(inputs)[0]

    def close(self) -> None:
        """Give up threads."""


class CompiledPredictor(Predictor):
    """Runs a model in compiled code: a row gets the same bits in any company, and by any number of threads.

    Raises `RunnerUnavailable`.
    """

    def __init__(self, model: Model, capacity: int, thread_count: int = 1, kernels: Path | None = None) -> None:
        device = Cpu()
        self._recording = RecordingDevice(device)
        super().__init__(self._recording, model, capacity, thread_count)
        self.device = device
        self.dtype, self.task_limit = np.dtype(model.spec.dtype), thread_count
        self._outputs, self._predicted, self._spare_row = (
            device.empty((capacity, count), self.dtype)
            for count in (model.spec.layer_sizes[-1], model.prediction_count, 1)
        )
        self.kept: Sequence[Array] = [self._outputs, self._predicted]
        self._raw: dict[np.dtype, Array] = {}
        self._runs: dict[tuple[int, np.dtype], Callable[[], None]] = {}
        self._runner = open_runner("compiled", self, device, thread_count, kernels)
        self._recording.take()

    def record(self, variant: Variant) -> Plan:
        """Return the plan of rows in buffer ``variant.slot``: every block of them goes through a pass of its own."""
        raw, xp = list(self._raw.values())[variant.slot], self._recording.xp
        count = max(-(-variant.rows // self._passes[0].capacity), min(self.task_limit, variant.rows // _BLOCK_ROWS))
        tasks: list[Task] = []
        for number in range(count):
            chosen = slice(*share(variant.rows, number, count))
            self._passes[number].write_to(self._outputs[chosen])
            found = self._forward(xp, number, raw[chosen])
            self.model.predict(xp, found, self._predicted[chosen], self._spare_row[chosen])
            tasks.append(self._recording.take())
        return Plan([], [tasks], joins=False)

    def forward(self, inputs: HostArray) -> Array:
        """Return outputs (rows, outputs), in a buffer that the next call overwrites."""
        moved = self._read(inputs)
        if moved.dtype not in self._raw:
            self._raw[moved.dtype] = np.zeros((self.capacity, moved.shape[1]), readable_type(moved.dtype))
        self._raw[moved.dtype][: len(moved)] = moved
        key = _padded(len(moved), self.capacity), moved.dtype
        if key not in self._runs:
            self._runs[key] = self._prepared(*key)
        self._runs[key]()
        return self._outputs[: len(moved)]

    def _prepared(self, rows: int, dtype: np.dtype) -> Callable[[], None]:
        variant = Variant(rows, list(self._raw).index(dtype), is_first=True, is_last=True, flushes=False)
        return self._runner.prepare(Work([variant], np.zeros(1, np.int64), {}))

    def _predictions(self, outputs: Array) -> HostArray:
        return self.model.restored(self._predicted[: len(outputs)])

    def close(self) -> None:
        """Give up threads."""
        self._runner.close()


def _padded(rows: int, capacity: int) -> int:
    """Return a number of rows that is at most an eighth more, of which there are few."""
    step = 1 << max(0, rows.bit_length() - 4)
    return min(-(-rows // step) * step, capacity)
