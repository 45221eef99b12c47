"""Takes data sets in: verified, whole, and each content once."""

import asyncio
import hashlib
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import structlog
from mlpd.core.data import mnist
from mlpd.core.data.datasets import DataError, Dataset, write_dataset
from mlpd.core.data.inspection import DatasetInfo, inspect_dataset
from mlpd.server.asynchronous import to_the_end
from mlpd.server.errors import DataLoss, FieldViolation, InvalidRequest, NotFound, ResourceExhausted
from mlpd.server.names import check_id, shown
from mlpd.server.records import DatasetRecord
from mlpd.server.storage.artifacts import DataDirectory
from mlpd.server.storage.contents import Contents
from mlpd.server.storage.store import Store
from mlpd.server.storage.stored_files import StoredFiles

_logger = structlog.get_logger()

PREFERRED_CHUNK_BYTES = 1024 * 1024
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_SMALLEST_FILE_BYTES = 8


class Datasets:
    """The data sets of one server."""

    def __init__(
        self, directory: DataDirectory, store: Store, files: StoredFiles, contents: Contents, max_dataset_bytes: int
    ) -> None:
        self._directory = directory
        self._store = store
        self._files = files
        self._contents = contents
        self.max_dataset_bytes = max_dataset_bytes

    async def add_mnist(self) -> None:
        """Make sure that ``mnist-train`` and ``mnist-test`` are there, and sound."""
        for split in ("train", "test"):
            if await self._known(f"mnist-{split}"):
                continue
            async with self._directory.scratch() as scratch:
                await asyncio.to_thread(_write_mnist, scratch, split)
                info = await asyncio.to_thread(inspect_dataset, scratch)
                await self._adopt(scratch, f"mnist-{split}", info, built_in=True)

    async def upload(
        self, dataset_id: str, sha256: str, size_bytes: int, chunks: AsyncIterator[bytes]
    ) -> tuple[DatasetRecord, bool]:
        """Store ``chunks`` as ``dataset_id``, "" = ``sha256-...``; return it, and whether its content was here already.

        Known content is answered without reading a chunk, unless its file is damaged; then it is replaced. Raises
        `InvalidRequest`, `AlreadyExists`, `ResourceExhausted`, `StorageTrouble`, and `DataLoss` when size or digest
        differ from what was announced; then nothing is kept.
        """
        self._check_header(dataset_id, sha256, size_bytes)
        dataset_id = dataset_id or f"sha256-{sha256}"
        async with self._contents.held(sha256):
            if known := await self._known(f"sha256-{sha256}"):
                if known.size_bytes != size_bytes:
                    raise _size_mismatch(known.size_bytes, f"got {size_bytes}")
                named = replace(known, id=dataset_id, create_time=time.time_ns())
                return await self._store.create_dataset(named), True
        await asyncio.to_thread(self._directory.require_space, size_bytes)
        async with self._directory.scratch() as scratch:
            await _receive(scratch, chunks, sha256, size_bytes)
            try:
                info = await asyncio.to_thread(inspect_dataset, scratch)
            except DataError as error:
                raise InvalidRequest.field("chunk", str(error), "DATASET_INVALID") from error
            return await to_the_end(self._take_in(scratch, dataset_id, info)), False

    @asynccontextmanager
    async def kept(self, dataset_id: str) -> AsyncIterator[DatasetRecord]:
        """Yield a data set whose file stays until the block has ended, even if it is deleted; raises `NotFound`."""
        record = await self._store.dataset(dataset_id)
        async with self._contents.held(record.sha256):
            yield await self._store.dataset(dataset_id)  # again, as it may have been deleted before its file was held

    async def _known(self, dataset_id: str) -> DatasetRecord | None:
        """Return a data set, or None if there is none or its file is damaged."""
        try:
            record = await self._store.dataset(dataset_id)
            await asyncio.to_thread(self._files.check_dataset, record)
        except NotFound:
            return None
        except DataLoss as error:
            _logger.warning("stored content is damaged", dataset=dataset_id, found=error.message)
            return None
        return record

    async def _take_in(self, scratch: Path, dataset_id: str, info: DatasetInfo) -> DatasetRecord:
        async with self._contents.held(info.sha256):
            self._contents.doubt(info.sha256)  # a name that is taken leaves a file without a row
            return await self._adopt(scratch, dataset_id, info)

    async def _adopt(
        self, scratch: Path, dataset_id: str, info: DatasetInfo, *, built_in: bool = False
    ) -> DatasetRecord:
        await asyncio.to_thread(self._directory.adopt, scratch, self._directory.dataset(info.sha256))
        record = DatasetRecord(**vars(info), id=dataset_id, create_time=time.time_ns())
        return await self._store.create_dataset(record, built_in=built_in)

    def _check_header(self, dataset_id: str, sha256: str, size_bytes: int) -> None:
        violations = []
        if not _SHA256.match(sha256):
            text = f"header.sha256 must be 64 lower-case hexadecimal digits, got {shown(sha256)}"
            violations.append(FieldViolation("header.sha256", text))
        if size_bytes < _SMALLEST_FILE_BYTES:
            text = f"header.size_bytes must be at least {_SMALLEST_FILE_BYTES}, got {size_bytes}"
            violations.append(FieldViolation("header.size_bytes", text))
        if dataset_id:
            try:
                check_id("header.dataset_id", dataset_id)
            except InvalidRequest as error:
                violations.extend(error.violations)
        if violations:
            raise InvalidRequest(violations)
        if size_bytes > self.max_dataset_bytes:
            raise ResourceExhausted(
                "DATASET_TOO_LARGE", f"header.size_bytes must be at most {self.max_dataset_bytes}, got {size_bytes}"
            )


def _write_mnist(path: Path, split: str) -> None:
    write_dataset(path, Dataset(*mnist.load(split)))


async def _receive(path: Path, chunks: AsyncIterator[bytes], sha256: str, size_bytes: int) -> None:
    digest, received = hashlib.sha256(), 0
    file = await asyncio.to_thread(path.open, "wb")

    def take(chunk: bytes) -> None:
        digest.update(chunk)
        file.write(chunk)

    try:
        async for chunk in chunks:
            if not chunk:
                raise InvalidRequest.field("chunk", "chunk must not be empty")
            received += len(chunk)
            if received > size_bytes:
                raise _size_mismatch(size_bytes, "more came")
            await asyncio.to_thread(take, chunk)
    finally:
        await to_the_end(asyncio.to_thread(file.close))
    if received != size_bytes:
        raise _size_mismatch(size_bytes, f"{received} came")
    if digest.hexdigest() != sha256:
        raise DataLoss(
            "CHECKSUM_MISMATCH", f"header.sha256 must be that of the content, {digest.hexdigest()}, got {sha256}"
        )


def _size_mismatch(size_bytes: int, found: str) -> DataLoss:
    return DataLoss("SIZE_MISMATCH", f"header.size_bytes must be the size of the content, {size_bytes}; {found}")
