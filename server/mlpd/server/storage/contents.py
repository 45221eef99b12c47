"""The files that rows name: kept while something reads or makes them, removed once no row names them.

Rows go first and files after them, so a crash between leaves files that no row names; these go at the next start. A
file of a data set appears and disappears under a lock of its content, and whether a row names it is asked in the order
of writes: so no upload finds a file that is about to go, and none has its file taken before its row is there. A model
file needs no lock: its content names its job, of which there is only one.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from weakref import WeakValueDictionary

import sqlalchemy as sa
import structlog
from mlpd.server.asynchronous import to_the_end
from mlpd.server.errors import ServerError
from mlpd.server.records import JobState
from mlpd.server.storage import schema
from mlpd.server.storage.artifacts import DataDirectory, remove_file
from mlpd.server.storage.database import Database

_logger = structlog.get_logger()


class Contents:
    """The files of one server, for its event loop."""

    def __init__(self, database: Database, directory: DataDirectory) -> None:
        self._database = database
        self._directory = directory
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._holders: Counter[str] = Counter()
        self._put_off: set[str] = set()
        self._left: set[tuple[Path, sa.Column[str], str]] = set()

    @asynccontextmanager
    async def held(self, sha256: str) -> AsyncIterator[None]:
        """Keep the file of a data set, present or to come, from being removed until the block has ended."""
        async with self._lock(sha256):
            self._holders[sha256] += 1
        try:
            yield
        finally:
            self._holders[sha256] -= 1
            if sha256 in self._put_off and not self._holders[sha256]:
                await to_the_end(self.remove_dataset(sha256))
            self._holders += Counter()  # leaves out what is zero

    def doubt(self, sha256: str) -> None:
        """Have a file that is held removed afterwards unless a row names it then."""
        self._put_off.add(sha256)

    async def remove_dataset(self, sha256: str) -> int:
        """Remove the file of a data set unless a row names it, and return its bytes; if it is held, that is put off."""
        async with self._lock(sha256):
            if self._holders[sha256]:
                self._put_off.add(sha256)
                return 0
            self._put_off.discard(sha256)
            return await self._remove(self._directory.dataset(sha256), schema.datasets.c.sha256, sha256)

    async def remove_model(self, sha256: str) -> int:
        """Remove a model file unless a row names it, and return its bytes."""
        return await self._remove(self._directory.model(sha256), schema.models.c.file_sha256, sha256)

    async def remove_left(self) -> None:
        """Remove what could not be removed while the disk or the database refused, unless a row names it."""
        left, self._left = self._left, set()
        for path, column, sha256 in left:
            async with self._lock(sha256):
                if not self._holders[sha256]:
                    await self._remove(path, column, sha256)

    async def collect(self) -> None:
        """Remove every file and job folder that no row names; while no call is taken and no job runs."""
        datasets, models, jobs = await self._database.read(_named)
        await asyncio.to_thread(self._directory.remove_others, datasets, models, jobs)

    def _lock(self, sha256: str) -> asyncio.Lock:
        return self._locks.setdefault(sha256, asyncio.Lock())

    async def _remove(self, path: Path, column: sa.Column[str], sha256: str) -> int:
        query = sa.select(column).where(column == sha256).limit(1)
        try:
            # Asked of the writer, so that it is answered after all rows that were sent there before.
            if await self._database.write(lambda connection: connection.execute(query).first()):
                return 0
            return await asyncio.to_thread(remove_file, path)
        except (ServerError, OSError) as error:
            _logger.warning("a file that nothing names stays until the disk is well", file=path.name, why=str(error))
            self._left.add((path, column, sha256))
            return 0


def _named(connection: sa.Connection) -> tuple[set[str], set[str], set[str]]:
    """Return the contents of data sets and models that rows name, and the ids of jobs that keep a folder."""
    keeping = schema.job_statuses.c.state.not_in((JobState.SUCCEEDED, JobState.CANCELLED))
    jobs = sa.select(schema.jobs.c.id).join(schema.job_statuses).where(keeping)
    queries = sa.select(schema.datasets.c.sha256), sa.select(schema.models.c.file_sha256), jobs
    datasets, models, folders = (set(connection.execute(query).scalars()) for query in queries)
    return datasets, models, folders
