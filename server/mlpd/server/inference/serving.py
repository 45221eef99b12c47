"""Predicts and evaluates on the CPU in threads beside the event loop, in compiled code where that is possible.

These threads do all that is done with rows, from checking them to the arrays of the answer. They share the parameters
of models, which others load (`kept_models`). Evaluation has its own thread, so that predictions do not wait for a long
one.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import structlog
from mlpd.core.data.datasets import Dataset
from mlpd.core.devices.arrays import Cpu
from mlpd.core.execution.opening import missing_for
from mlpd.core.models.metrics import Counts, FaultyRows, evaluate
from mlpd.core.models.model import Model
from mlpd.core.models.predictor import CompiledPredictor, Predictor
from mlpd.core.models.scores import Scores
from mlpd.core.network.tasks import TASKS, OutputKind
from mlpd.core.plans.runner import RunnerUnavailable
from mlpd.server.inference.finite import check_evaluated, check_predicted
from mlpd.server.inference.kept_models import KeptModels
from mlpd.server.inference.rows import ScoredRows, prediction_inputs, scored_rows
from mlpd.server.records import DatasetRecord, ModelRecord
from mlpd.server.storage.stored_files import StoredFiles
from mlpd.v1.trainer_service_pb2 import LabelledRows
from mlpd.v1.types_pb2 import Tensor
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

T = TypeVar("T")
_logger = structlog.get_logger()

_PREDICTION_THREADS, _EVALUATION_THREADS = 2, 1


@dataclass(frozen=True)
class Prediction:
    """The outputs that were asked for, by kind, as `Task.output` returns them."""

    outputs: Mapping[OutputKind, NDArray[Any]]
    compute_seconds: float


@dataclass(frozen=True)
class Evaluation:
    """Exact counts, and further scores, None unless they were asked for."""

    counts: Counts
    scores: Scores | None
    compute_seconds: float


class Serving:
    """What one server predicts and evaluates; ``max_bytes`` bounds the models in memory. For its event loop."""

    def __init__(self, files: StoredFiles, kernels: Path, max_bytes: int) -> None:
        self._kernels: Path | None = None if missing_for("compiled") else kernels
        # One BLAS thread a serving thread: they must not fight each other, nor a training worker.
        self._limits = threadpool_limits(1)
        self._files = files
        self.models = KeptModels(files.model, self._open, _PREDICTION_THREADS + _EVALUATION_THREADS, max_bytes)
        self._predictors = ThreadPoolExecutor(_PREDICTION_THREADS, thread_name_prefix="predict")
        self._evaluators = ThreadPoolExecutor(_EVALUATION_THREADS, thread_name_prefix="evaluate")

    async def predict(self, record: ModelRecord, inputs: Tensor, kinds: Collection[OutputKind]) -> Prediction:
        """Run a model version on ``inputs`` (rows, input_size) of any supported type; ``kinds`` are of its task.

        Raises `InvalidRequest` for inputs that do not fit or whose outputs are not finite, and `DataLoss` if the
        model's file is damaged.
        """

        def compute(_stopped: threading.Event) -> Prediction:
            rows = prediction_inputs(record, inputs)
            started = time.perf_counter()
            with model.predictor() as predictor:
                outputs, predictions = predictor.predict(rows)
            finite = np.all(np.isfinite(outputs), axis=1) & np.all(np.isfinite(predictions), axis=1)
            check_predicted("inputs", record, FaultyRows().and_those_of(~finite))
            task = TASKS[record.task]
            chosen = {kind: task.output(kind, outputs, predictions) for kind in kinds}
            return Prediction(chosen, time.perf_counter() - started)

        model = await self.models.kept(record)
        return await _in(self._predictors, compute)

    async def evaluate(
        self, record: ModelRecord, data: LabelledRows | DatasetRecord, *, include_confusion: bool, include_scores: bool
    ) -> Evaluation:
        """Score a model version on ``data``; a data set's rows are put as the model's by their names.

        Stops between batches when the caller is cancelled. Raises `InvalidRequest` for rows that do not fit or whose
        losses or scores are not finite, and `DataLoss` if a file is damaged.
        """

        def check(_stopped: threading.Event) -> ScoredRows:
            return scored_rows(record, data, include_confusion=include_confusion, include_scores=include_scores)

        def compute(stopped: threading.Event) -> Evaluation:
            with model.predictor() as predictor, self._opened(chosen.rows, stopped) as dataset:
                started = time.perf_counter()
                batches = evaluate(
                    predictor,
                    dataset,
                    chosen.arrangement,
                    include_confusion=include_confusion,
                    include_scores=include_scores,
                )
                counts = next(batches)
                while not stopped.is_set() and (more := next(batches, None)):
                    counts = more
            scores = None if stopped.is_set() else counts.scores
            check_evaluated(chosen.field, record, counts, scores)
            return Evaluation(counts, scores, time.perf_counter() - started)

        # Checked in the threads whose work is short, so that a refusal does not wait for a long evaluation.
        chosen = await _in(self._predictors, check)
        model = await self.models.kept(record)
        return await _in(self._evaluators, compute)

    def close(self) -> None:
        """Drop the calls that wait; block until those that run have ended."""
        self._predictors.shutdown(cancel_futures=True)
        self._evaluators.shutdown(cancel_futures=True)
        self.models.close()

    def _opened(self, rows: Dataset | DatasetRecord, stopped: threading.Event) -> AbstractContextManager[Dataset]:
        return nullcontext(rows) if isinstance(rows, Dataset) else self._files.dataset(rows, stopped.is_set)

    def _open(self, model: Model, capacity: int) -> Predictor:
        if self._kernels:
            try:
                return CompiledPredictor(model, capacity, kernels=self._kernels)
            except RunnerUnavailable as error:
                self._kernels = None
                _logger.warning("predictions are made with NumPy", reason=str(error))
        return Predictor(Cpu(), model, capacity)


async def _in(pool: ThreadPoolExecutor, compute: Callable[[threading.Event], T]) -> T:
    """Return what ``compute`` returns in ``pool``; its argument is set once the caller no longer waits."""
    stopped = threading.Event()
    try:
        return await asyncio.get_running_loop().run_in_executor(pool, compute, stopped)
    finally:
        stopped.set()
