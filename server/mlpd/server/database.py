"""One SQLite file: a single writer thread that commits in groups, and readers that cannot write.

The writer's connection is the only one that writes or checkpoints the write-ahead log. A commit waits
for the disk (``synchronous=FULL``); what is asked for while it waits shares the next one.
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa

_READER_THREADS = 2
_BUSY_TIMEOUT_MILLISECONDS = 5000

T = TypeVar("T")
Work = Callable[[sa.Connection], T]


@dataclass(frozen=True)
class _Request:
    work: Work[Any]
    answer: Future[Any]


class SchemaMismatch(Exception):
    """The file has tables of another version of this program."""


class Database:
    """The data directory's SQLite file; its methods belong to one event loop.

    Raises `sqlalchemy.exc.DatabaseError` from the constructor when the file is not a sound database, and
    `SchemaMismatch` when its tables are not those of ``version``.
    """

    def __init__(self, path: Path, metadata: sa.MetaData, version: int) -> None:
        self._writer = _engine(path, "PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "PRAGMA foreign_keys=ON")
        self._reader = _engine(path, "PRAGMA query_only=ON")
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._readers = ThreadPoolExecutor(_READER_THREADS, thread_name_prefix="database-reader")
        with self._writer.begin() as connection:
            _check_version(connection, version)
            metadata.create_all(connection)
            connection.exec_driver_sql(f"PRAGMA user_version={version}")
        self._thread = threading.Thread(target=self._commit_groups, name="database-writer", daemon=True)
        self._thread.start()

    async def write(self, work: Work[T]) -> T:
        """Run ``work`` in a transaction and return its result once that is on disk.

        ``work`` that raises leaves no trace and disturbs no other; its exception comes out here. A caller
        that is cancelled does not undo its work.
        """
        answer: Future[T] = Future()
        self._requests.put(_Request(work, answer))
        return await asyncio.shield(asyncio.wrap_future(answer))

    async def read(self, work: Work[T]) -> T:
        """Run ``work`` on a read-only connection that sees everything committed so far."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, work)

    def close(self) -> None:
        """Finish what was asked for and close the file."""
        self._requests.put(None)
        self._thread.join()
        self._readers.shutdown()
        self._reader.dispose()
        self._writer.dispose()

    def _read(self, work: Work[T]) -> T:
        with self._reader.connect() as connection:
            return work(connection)

    def _commit_groups(self) -> None:
        with self._writer.connect() as connection:
            while group := self._next_group():
                answers: list[tuple[Future[Any], Any]] = []
                try:
                    with connection.begin():
                        for request in group:
                            try:
                                with connection.begin_nested():
                                    answers.append((request.answer, request.work(connection)))
                            except Exception as error:  # noqa: BLE001 - whatever it is belongs to the asker
                                request.answer.set_exception(error)
                except Exception as error:  # noqa: BLE001 - the commit failed: nobody's work is on disk
                    for answer, _ in answers:
                        answer.set_exception(error)
                else:
                    for answer, result in answers:
                        answer.set_result(result)

    def _next_group(self) -> list[_Request]:
        group = []
        request = self._requests.get()
        while request is not None:
            group.append(request)
            if self._requests.empty():
                break
            request = self._requests.get()
        else:
            if group:
                self._requests.put(None)
        return group


def _engine(path: Path, *pragmas: str) -> sa.Engine:
    engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": _BUSY_TIMEOUT_MILLISECONDS / 1000})

    # The driver's own transaction handling breaks savepoints; SQLAlchemy's documentation gives this way round it.
    @sa.event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        for pragma in pragmas:
            connection.execute(pragma)

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


def _check_version(connection: sa.Connection, version: int) -> None:
    found = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    if sa.inspect(connection).get_table_names() and found != version:
        raise SchemaMismatch(f"its tables are of version {found}, this program needs version {version}")
