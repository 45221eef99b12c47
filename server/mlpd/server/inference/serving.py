"""Evaluates and predicts on the CPU, in threads of its own, beside the event loop: compiled, where that can be.

Threads share a model's parameters, each through buffers of its own. Evaluation has its own thread, so that
a long one does not keep predictions waiting.
"""

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import structlog
from mlpd.core.data.datasets import Dataset
from mlpd.core.devices.arrays import Cpu
from mlpd.core.execution.opening import missing_for
from mlpd.core.execution.runner import RunnerUnavailable
from mlpd.core.models.metrics import Counts, FaultyRows, evaluate
from mlpd.core.models.model import Model
from mlpd.core.models.predictor import CompiledPredictor, Predictor
from mlpd.core.models.scores import Scores
from mlpd.core.network.tasks import TASKS
from mlpd.server.records import DatasetRecord, ModelRecord
from mlpd.server.storage.stored_files import StoredFiles
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

T = TypeVar("T")
_logger = structlog.get_logger()

# Rows times outputs: of a prediction, whose answer then has at most 48 MB; of scores, which need all of them at once.
MAX_PREDICTION_VALUES = 2**21
SCORED_VALUES_LIMIT = 2**26
_PREDICTION_THREADS = 2
_MODELS_KEPT = 16
_PREDICTORS_KEPT = 4
_CAPACITY_ROWS = 512
_BUFFER_VALUES = 2**24


@dataclass(frozen=True)
class Prediction:
    """What the last layer gives for rows (rows, outputs), what that predicts (rows, outputs), and what it decides.

    Decisions are classes (rows,) or yes and no (rows, outputs), int64; None for regression. ``faulty`` are rows with an
    output or a prediction that is not finite.
    """

    outputs: np.ndarray[Any, Any]
    predictions: np.ndarray[Any, Any]
    decisions: np.ndarray[Any, Any] | None
    faulty: FaultyRows
    compute_seconds: float


@dataclass(frozen=True)
class Evaluation:
    """Exact counts, further scores if they were asked for, and the time that took."""

    counts: Counts
    scores: Scores | None
    compute_seconds: float


class Serving:
    """The models of one server, loaded when first asked for."""

    def __init__(self, files: StoredFiles, kernels: Path) -> None:
        self._kernels: Path | None = None if missing_for("compiled") else kernels
        # One BLAS thread a serving thread: they must not fight each other, nor a training worker.
        self._limits = threadpool_limits(1)
        self._files = files
        self._models: OrderedDict[str, Model] = OrderedDict()
        self._models_lock = threading.Lock()
        self._local = threading.local()
        self._predictors = ThreadPoolExecutor(_PREDICTION_THREADS, thread_name_prefix="predict")
        self._evaluators = ThreadPoolExecutor(1, thread_name_prefix="evaluate")

    async def predict(self, record: ModelRecord, inputs: np.ndarray[Any, Any]) -> Prediction:
        """Run a model version on ``inputs`` (rows, input_size) of any supported type."""

        def compute(_stopped: threading.Event) -> Prediction:
            started = time.perf_counter()
            predictor, task = self._predictor(record), TASKS[record.task]
            outputs, predictions = predictor.predict(inputs)
            decisions = task.classes(outputs) if task.counts_hits else None
            finite = np.all(np.isfinite(outputs), axis=1) & np.all(np.isfinite(predictions), axis=1)
            faulty = FaultyRows().and_those_of(~finite)
            return Prediction(outputs, predictions, decisions, faulty, time.perf_counter() - started)

        return await _in(self._predictors, compute)

    async def evaluate(
        self,
        record: ModelRecord,
        data: Dataset | DatasetRecord,
        columns: NDArray[np.intp] | None,
        *,
        include_confusion: bool,
        include_scores: bool,
    ) -> Evaluation:
        """Score a model version on rows or a data set, whose inputs stand in ``columns`` as `metrics.evaluate` says.

        Stops between batches when the caller has gone. Raises `DataLoss` for a damaged file.
        """

        def compute(stopped: threading.Event) -> Evaluation:
            predictor = self._predictor(record)
            rows = nullcontext(data) if isinstance(data, Dataset) else self._files.dataset(data, stopped.is_set)
            with rows as dataset:
                started = time.perf_counter()
                batches = evaluate(
                    predictor,
                    dataset,
                    columns,
                    include_confusion=include_confusion,
                    include_scores=include_scores,
                )
                counts = next(batches)
                while not stopped.is_set() and (more := next(batches, None)):
                    counts = more
            scores = None if stopped.is_set() else counts.scores
            return Evaluation(counts, scores, time.perf_counter() - started)

        return await _in(self._evaluators, compute)

    def close(self) -> None:
        """Drop what waits and finish what runs."""
        self._predictors.shutdown(cancel_futures=True)
        self._evaluators.shutdown(cancel_futures=True)

    def _predictor(self, record: ModelRecord) -> Predictor:
        """Return this thread's own buffers around the shared model."""
        predictors: OrderedDict[str, Predictor] = self._local.__dict__.setdefault("predictors", OrderedDict())
        if record.file_sha256 not in predictors:
            rows = min(_CAPACITY_ROWS, max(1, _BUFFER_VALUES // sum(record.spec.layer_sizes)))
            predictors[record.file_sha256] = self._open(self._model(record), rows)
        return _newest(predictors, record.file_sha256, _PREDICTORS_KEPT)

    def _open(self, model: Model, capacity: int) -> Predictor:
        if self._kernels:
            try:
                return CompiledPredictor(model, capacity, kernels=self._kernels)
            except RunnerUnavailable as error:
                self._kernels = None
                _logger.warning("predictions are made with NumPy", reason=str(error))
        return Predictor(Cpu(), model, capacity)

    def _model(self, record: ModelRecord) -> Model:
        with self._models_lock:
            if record.file_sha256 not in self._models:
                self._models[record.file_sha256] = self._files.model(record)
            return _newest(self._models, record.file_sha256, _MODELS_KEPT)


def _newest(kept: OrderedDict[str, T], key: str, limit: int) -> T:
    kept.move_to_end(key)
    while len(kept) > limit:
        kept.popitem(last=False)
    return kept[key]


async def _in(pool: ThreadPoolExecutor, compute: Callable[[threading.Event], T]) -> T:
    """Run ``compute`` in ``pool``; its argument is set when the caller has been cancelled."""
    stopped = threading.Event()
    try:
        return await asyncio.get_running_loop().run_in_executor(pool, compute, stopped)
    finally:
        stopped.set()
