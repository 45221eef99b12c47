"""Arrays in files, read by rows rather than mapped."""

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from mlpd.core.devices.arrays import HostArray
from mlpd.core.files import FileDamaged, FileIdentity


class FileArray:
    """An array of which slices of rows are read when they are asked for.

    A file that is cut, changed or unreadable then raises an error; under a map it would end the process, or go
    unnoticed.
    """

    def __init__(self, path: Path, dtype: np.dtype[Any], offset: int, shape: tuple[int, ...]) -> None:
        self._path, self._offset = path, offset
        self._identity = FileIdentity.of(path)
        self.dtype, self.shape, self.ndim = dtype, shape, len(shape)
        self._row_values = prod(shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> HostArray:
        """Return a copy of consecutive rows; raises `FileDamaged` or `OSError`."""
        start, stop, _ = rows.indices(len(self))
        count = max(stop - start, 0) * self._row_values
        offset = self._offset + start * self._row_values * self.dtype.itemsize
        values = np.fromfile(self._path, self.dtype, count, offset=offset)
        if len(values) != count or FileIdentity.of(self._path) != self._identity:
            raise FileDamaged("it was changed while it was read")
        return values.reshape(-1, *self.shape[1:])
