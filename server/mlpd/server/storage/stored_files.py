"""Reads the files of data sets and models: what was stored, or `DataLoss` that names the one that is damaged."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mlpd.core.data.datasets import DataError, Dataset, open_dataset
from mlpd.core.data.file_array import FileArray
from mlpd.core.files import FileDamaged, Verifier
from mlpd.core.models.model import Model, load_model
from mlpd.core.state_file import StateFileError
from mlpd.server.damage import dataset_damage, model_damage
from mlpd.server.disk import trouble_of
from mlpd.server.errors import DataLoss, ServerError
from mlpd.server.names import dataset_name, version_name
from mlpd.server.records import DatasetRecord, ModelRecord
from mlpd.server.storage.artifacts import DataDirectory


class StoredFiles:
    """The files of one server; threads may share it.

    The digest of a data set is verified when it is first opened, and again once its file has changed. Where the disk
    can't be read now, methods raise `StorageTrouble` instead of `DataLoss`.
    """

    def __init__(self, directory: DataDirectory) -> None:
        self._directory = directory
        self._verifier = Verifier()

    def require_dataset(self, record: DatasetRecord) -> None:
        """Raise `DataLoss` where a data set's file is missing or has another size; what is in it is not read."""
        try:
            size_bytes = self._directory.dataset(record.sha256).stat().st_size
            if size_bytes != record.size_bytes:
                raise FileDamaged(f"it must have {record.size_bytes} bytes, got {size_bytes}")
        except (FileDamaged, OSError) as error:
            raise _dataset_lost(record, error) from error

    def require_model(self, record: ModelRecord) -> None:
        """Raise `DataLoss` where a model's file is missing."""
        try:
            self._directory.model(record.file_sha256).stat()
        except OSError as error:
            raise _model_lost(record, error) from error

    def check_dataset(self, record: DatasetRecord, stopped: Callable[[], bool] = lambda: False) -> None:
        """Raise `DataLoss` unless a data set's file is what was stored, or `Interrupted` once ``stopped`` says so."""
        self.require_dataset(record)
        try:
            self._verifier.check(self._directory.dataset(record.sha256), record.sha256, stopped)
        except (FileDamaged, OSError) as error:
            raise _dataset_lost(record, error) from error

    @contextmanager
    def dataset(self, record: DatasetRecord, stopped: Callable[[], bool]) -> Iterator[Dataset]:
        """Yield a data set whose rows are read when asked for; raises as `check_dataset`, also in the block."""
        try:
            # Opened before it is checked, so that reading rows notices whatever changes after the check.
            dataset = open_dataset(self._directory.dataset(record.sha256), FileArray)
            self.check_dataset(record, stopped)
            yield dataset
        except (DataError, FileDamaged, OSError) as error:
            raise _dataset_lost(record, error) from error

    def model(self, record: ModelRecord) -> Model:
        """Return a model version; raises `DataLoss` if its file is damaged, or is not what the database says."""
        try:
            model = load_model(self._directory.model(record.file_sha256), record.file_sha256)
        except (StateFileError, OSError) as error:
            raise _model_lost(record, error) from error
        known = record.parameters_sha256, record.spec, record.task, record.loss
        if (model.sha256, model.spec, model.task, model.loss.name) != known:
            raise _model_lost(record, FileDamaged("it is not what the database says of it"))
        return model


def _dataset_lost(record: DatasetRecord, error: Exception) -> ServerError:
    if trouble := trouble_of(error):
        return trouble
    name = dataset_name(record.id)
    return DataLoss("DATASET_DAMAGED", dataset_damage(name, error), dataset=name)


def _model_lost(record: ModelRecord, error: Exception) -> ServerError:
    if trouble := trouble_of(error):
        return trouble
    name = version_name(record.model_id, record.version)
    return DataLoss("MODEL_DAMAGED", model_damage(name, error), model=name)
