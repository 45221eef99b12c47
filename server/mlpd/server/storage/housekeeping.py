"""Deletes what users no longer want, rows first, in one transaction, then files; and tells how much there is."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from mlpd.server.asynchronous import to_the_end
from mlpd.server.errors import StorageTrouble, Unavailable
from mlpd.server.storage import deletion
from mlpd.server.storage.artifacts import DataDirectory, DiskUsage
from mlpd.server.storage.contents import Contents
from mlpd.server.storage.database import Database


class Housekeeping:
    """What one server deletes, for its event loop; that goes on to its end even if its caller is cancelled.

    ``forget(job_id)`` is called once a job is deleted, and ``forget_model(sha256)`` once a version is, with its file's
    digest. Methods that delete raise as those of `deletion`, and `StorageTrouble`, and return how many bytes were given
    back.
    """

    def __init__(
        self,
        database: Database,
        directory: DataDirectory,
        contents: Contents,
        forget: Callable[[str], None],
        forget_model: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._database = database
        self._directory = directory
        self._contents = contents
        self._forget, self._forget_model = forget, forget_model
        self._counting: asyncio.Task[DiskUsage] | None = None

    async def delete_dataset(self, dataset_id: str) -> int:
        """Delete a data set, and its file unless another name has its content."""

        async def delete() -> int:
            sha256 = await self._database.write(partial(deletion.delete_dataset, dataset_id=dataset_id))
            return await self._contents.remove_dataset(sha256)

        return await to_the_end(delete())

    async def delete_versions(self, model_id: str, version: int | None) -> tuple[int, int]:
        """Delete a version of a model, None = all of them; return how many they were, and the bytes."""

        async def delete() -> tuple[int, int]:
            work = partial(deletion.delete_versions, model_id=model_id, version=version)
            files = await self._database.write(work)
            freed_bytes = sum([await self._contents.remove_model(sha256) for sha256 in set(files)])
            for sha256 in files:  # afterwards: until its file is gone, it can be loaded
                self._forget_model(sha256)
            return len(files), freed_bytes

        return await to_the_end(delete())

    async def delete_job(self, job_id: str) -> int:
        """Delete a job that has ended, its event log and its checkpoints; the model that it published stays."""

        async def delete() -> int:
            await self._database.write(partial(deletion.delete_job, job_id=job_id))
            self._forget(job_id)
            freed_bytes = await asyncio.to_thread(self._directory.remove_job, job_id)
            await self._delete_events(job_id)
            return freed_bytes

        return await to_the_end(delete())

    async def collect(self) -> None:
        """Remove files, job folders and events that nothing names; while no call is taken and no job runs."""
        await self._contents.collect()
        for job_id in await self._database.read(deletion.deleted_jobs_with_events):
            await self._delete_events(job_id)

    async def _delete_events(self, job_id: str) -> None:
        """Delete the log of a deleted job; where the disk refuses, the rest of it goes at the next start."""
        with suppress(StorageTrouble, Unavailable):
            while await self._database.write(partial(deletion.delete_events, job_id=job_id)):
                pass

    async def disk_usage(self) -> DiskUsage:
        """Return what the files take now; all who ask while that is counted get one answer."""
        if self._counting is None or self._counting.done():
            self._counting = asyncio.create_task(asyncio.to_thread(self._directory.usage))
        return await asyncio.shield(self._counting)
