"""Models kept in memory, up to so many bytes: what predictions share, and who waits for what.

A model is loaded in threads of its own, so that predictions of others never wait for its file; all who ask for it
meanwhile wait for one load. A load that fails is tried again by whoever asks next. Kernels for another number of rows,
and further predictors, are made where they are used.
"""

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import numpy as np
from mlpd.core.models.model import Model
from mlpd.core.models.predictor import Predictor
from mlpd.core.network.architecture import parameter_count, statistic_count
from mlpd.server.errors import ResourceExhausted
from mlpd.server.names import version_name
from mlpd.server.records import ModelRecord

# Work in batches of so many rows, fewer where their buffers would have more values.
_CAPACITY_ROWS, _BUFFER_VALUES = 512, 2**24
_LOADING_THREADS = 2  # a small model need not wait for a large one

Open = Callable[[Model, int], Predictor]


def capacity_of(record: ModelRecord) -> int:
    """Return how many rows a predictor of a model takes at once."""
    return min(_CAPACITY_ROWS, max(1, _BUFFER_VALUES // sum(record.spec.layer_sizes)))


def bytes_of(record: ModelRecord, predictor_count: int) -> int:
    """Return the most bytes that a model takes with so many predictors, each with buffers of its own."""
    layers, size = record.spec.layers(), np.dtype(record.spec.dtype).itemsize
    inputs, *widths = record.spec.layer_sizes[0], *(layer.width for layer in layers)
    raw = 8 * inputs + size * inputs  # rows as they came, in two types
    a_row = raw + size * (inputs + sum(widths) + 2 * record.spec.layer_sizes[-1])
    values = parameter_count(layers) + statistic_count(layers)
    return size * values + predictor_count * capacity_of(record) * a_row


class KeptModel:
    """A model in memory, with predictors that nobody uses now; for any thread."""

    def __init__(self, model: Model, capacity: int, open_predictor: Open, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._open = partial(open_predictor, model, capacity)
        self._idle = [self._open()]
        self._lock = threading.Lock()

    @contextmanager
    def predictor(self) -> Iterator[Predictor]:
        """Yield a predictor that nobody else has until the block has ended."""
        with self._lock:
            known = self._idle.pop() if self._idle else None
        predictor = known or self._open()
        try:
            yield predictor
        finally:
            with self._lock:
                self._idle.append(predictor)


class KeptModels:
    """The models of one server that were asked for last, for its event loop.

    ``limit_bytes`` is what all of them may take with ``predictor_count`` predictors each; the newest is kept whatever
    it takes. ``load(record)`` raises what `kept` is to raise.
    """

    def __init__(
        self, load: Callable[[ModelRecord], Model], open_predictor: Open, predictor_count: int, limit_bytes: int
    ) -> None:
        self._load, self._open, self._predictor_count = load, open_predictor, predictor_count
        self.limit_bytes = limit_bytes
        self._kept: OrderedDict[str, KeptModel] = OrderedDict()
        self._loading: dict[str, asyncio.Task[KeptModel]] = {}
        self._loaders = ThreadPoolExecutor(_LOADING_THREADS, thread_name_prefix="load")

    @property
    def used_bytes(self) -> int:
        """Bytes of the models that are kept now."""
        return sum(kept.size_bytes for kept in self._kept.values())

    async def kept(self, record: ModelRecord) -> KeptModel:
        """Return a model version, loaded unless it is kept.

        Raises `DataLoss` if its file is damaged, and `ResourceExhausted` if there is no memory for it.
        """
        key = record.file_sha256
        if found := self._kept.get(key):
            self._kept.move_to_end(key)
            return found
        if key not in self._loading:
            task = self._loading[key] = asyncio.create_task(self._loaded(key, record))
            task.add_done_callback(partial(self._ended, key))
        return await asyncio.shield(self._loading[key])

    def forget(self, sha256: str) -> None:
        """Keep the model with this file no longer: it was deleted. Who waits for it or has it goes on with it."""
        self._kept.pop(sha256, None)
        self._loading.pop(sha256, None)

    def close(self) -> None:
        """Block until no model is being loaded."""
        self._loaders.shutdown(cancel_futures=True)

    async def _loaded(self, key: str, record: ModelRecord) -> KeptModel:
        size_bytes = bytes_of(record, self._predictor_count)

        def load() -> KeptModel:
            try:
                return KeptModel(self._load(record), capacity_of(record), self._open, size_bytes)
            except MemoryError:
                name = version_name(record.model_id, record.version)
                text = f"the server's memory must hold {name}, which takes about {size_bytes:,} bytes"
                raise ResourceExhausted("SERVING_MEMORY", text, needed_bytes=size_bytes) from None

        self._make_room(size_bytes)  # before, so that the old ones are gone when the new one comes
        return await asyncio.get_running_loop().run_in_executor(self._loaders, load)

    def _ended(self, key: str, task: "asyncio.Task[KeptModel]") -> None:
        is_wanted = self._loading.get(key) is task
        if is_wanted:
            del self._loading[key]
        if not task.cancelled() and not task.exception() and is_wanted:
            self._make_room(task.result().size_bytes)
            self._kept[key] = task.result()

    def _make_room(self, size_bytes: int) -> None:
        while self._kept and self.used_bytes + size_bytes > self.limit_bytes:
            self._kept.popitem(last=False)
