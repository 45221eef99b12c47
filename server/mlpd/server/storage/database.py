"""One SQLite file: a single writer thread that commits in groups, and readers that cannot write.

A damaged cell costs no other: text that is not UTF-8 is read as bytes, and what is no JSON as its text.

The writer's connection is the only one that writes or checkpoints the write-ahead log. A commit waits for the disk
(``synchronous=FULL``); the writes that are asked for meanwhile share the next one. An error of the disk makes SQLite
undo a whole transaction: then the write that it struck is refused, and each other gets a transaction of its own.
"""

import asyncio
import json
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from mlpd.server.disk import trouble_of
from mlpd.server.errors import Unavailable
from mlpd.server.storage.health import Storage

_READER_THREADS = 2
_BUSY_TIMEOUT_MILLISECONDS = 5000

T = TypeVar("T")
Work = Callable[[sa.Connection], T]


@dataclass(frozen=True)
class _Request:
    work: Work[Any]
    answer: Future[Any]


@dataclass(frozen=True)
class _Undone:
    """The outcome of work that raised ``error``, and left no trace."""

    error: Exception


class SchemaMismatch(Exception):
    """The file has tables of another version of this program."""


class Database:
    """The data directory's SQLite file; its methods are for one event loop.

    ``writer_ended`` is done once the writer's thread has ended, with the exception that ended it, if any.
    Raises `sqlalchemy.exc.DatabaseError` from the constructor when the file is not a sound database, and
    `SchemaMismatch` when its tables are not those of ``version``.
    """

    def __init__(self, path: Path, metadata: sa.MetaData, version: int, storage: Storage | None = None) -> None:
        self._writer = _engine(
            path, "BEGIN IMMEDIATE", "PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "PRAGMA foreign_keys=ON"
        )
        self._reader = _engine(path, "BEGIN", "PRAGMA query_only=ON")
        self._version = version
        self._storage = storage or Storage()
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._readers = ThreadPoolExecutor(_READER_THREADS, thread_name_prefix="database-reader")
        self._replayer = ThreadPoolExecutor(1, thread_name_prefix="database-replayer")
        with self._writer.begin() as connection:
            _check_version(connection, version)
            metadata.create_all(connection)
            _set_version(connection, version)
        self.writer_ended: Future[None] = Future()
        self.writer_ended.set_running_or_notify_cancel()
        self._thread = threading.Thread(target=self._write_to_the_end, name="database-writer", daemon=True)
        self._thread.start()

    async def write(self, work: Work[T]) -> T:
        """Run ``work`` in a transaction, in the writer's thread, and return its result once that is on disk.

        ``work`` that raises leaves no trace and disturbs no other; its exception is raised here. It may run twice, the
        first time undone. Cancelling the caller does not undo it. Raises `StorageTrouble` when the disk refuses, and
        `Unavailable` when the writer has ended.
        """
        answer: Future[T] = Future()
        self._requests.put(_Request(work, answer))
        if self.writer_ended.done():
            raise _ended()
        with self._storage.watched():
            return await asyncio.shield(asyncio.wrap_future(answer))

    async def write_nothing(self) -> None:
        """Commit a transaction that changes nothing; raises `StorageTrouble` if the disk does not take it."""
        await self.write(lambda connection: _set_version(connection, self._version))

    async def read(self, work: Work[T]) -> T:
        """Run ``work`` in a thread, on a read-only connection that sees everything committed so far.

        Raises `StorageTrouble` when the disk refuses.
        """
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, work)

    async def replay(self, work: Work[T]) -> T:
        """Run ``work`` as `read` does, in a thread for followers of logs, for which no other reader has to wait."""
        return await asyncio.get_running_loop().run_in_executor(self._replayer, self._read, work)

    def close(self) -> None:
        """Block until what was asked for is done, and close the file."""
        self._requests.put(None)
        self._thread.join()
        self._readers.shutdown()
        self._replayer.shutdown()
        self._reader.dispose()
        self._writer.dispose()

    def _read(self, work: Work[T]) -> T:
        try:
            with self._reader.connect() as connection:
                return work(connection)
        except sa.exc.DBAPIError as error:
            if getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_READONLY:
                raise  # the disk is not at fault, but work that writes
            raise _named(error) from None

    def _write_to_the_end(self) -> None:
        group: list[_Request] = []
        try:
            while group := self._next_group():
                self._commit([request for request in group if request.answer.set_running_or_notify_cancel()])
        except BaseException as error:  # noqa: BLE001 - whoever watches the thread gets it
            self.writer_ended.set_exception(error)
        else:
            self.writer_ended.set_result(None)
        while not self._requests.empty():
            if request := self._requests.get():
                group.append(request)
        for request in group:
            if not request.answer.done():
                request.answer.set_exception(_ended())

    def _commit(self, group: list[_Request]) -> None:
        """Do the work of a group in one transaction, and answer each request, once, after the commit."""
        outcomes: list[Any] | None = None
        try:
            with self._writer.begin() as connection:
                outcomes = []
                for request in group:
                    outcomes.append(_outcome(connection, request.work))
        except Exception as error:  # noqa: BLE001 - nothing of the group is on disk, whatever it is
            self._commit_apart(group, None if outcomes is None else len(outcomes), error)
            return
        for request, outcome in zip(group, outcomes, strict=True):
            if isinstance(outcome, _Undone):
                request.answer.set_exception(outcome.error)
            else:
                request.answer.set_result(outcome)

    def _commit_apart(self, group: list[_Request], struck: int | None, error: Exception) -> None:
        """Refuse the requests of a lost group that ``error`` has struck, and commit the others one by one.

        ``struck`` is the place of the request at which the transaction was lost, the group's length if that was at the
        commit, and None if it did not begin: then all are refused.
        """
        for place, request in enumerate(group):
            if struck in (None, place) or len(group) == 1:
                request.answer.set_exception(_named(error))
            else:
                self._commit([request])

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


def _outcome(connection: sa.Connection, work: Work[Any]) -> Any:
    """Return what ``work`` returns, or `_Undone` if it raises; raises if the whole transaction is lost."""
    connection.exec_driver_sql("SAVEPOINT work")
    try:
        result = work(connection)
    except Exception as error:
        driver_connection: Any = connection.connection.driver_connection
        if not driver_connection.in_transaction:
            raise
        connection.exec_driver_sql("ROLLBACK TO work")
        connection.exec_driver_sql("RELEASE work")
        return _Undone(_named(error))
    connection.exec_driver_sql("RELEASE work")
    return result


def _named(error: Exception) -> Exception:
    """Return ``error`` of the database as `StorageTrouble` if the disk refused, else as it is."""
    if isinstance(error, sa.exc.DBAPIError) and error.orig and (trouble := trouble_of(error.orig)):
        trouble.__cause__ = error
        return trouble
    return error


def _ended() -> Unavailable:
    return Unavailable("DRAINING", "the server is shutting down; try again when it is back")


def _engine(path: Path, begin_statement: str, *pragmas: str) -> sa.Engine:
    # Errors and logs leave out a statement's parameters, which may be megabytes of a user's data.
    engine = sa.create_engine(
        f"sqlite:///{path}",
        connect_args={"timeout": _BUSY_TIMEOUT_MILLISECONDS / 1000},
        hide_parameters=True,
        json_deserializer=_json_or_as_it_is,
    )

    # The driver's own transaction handling breaks savepoints; SQLAlchemy's documentation gives this way round it.
    @sa.event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        connection.text_factory = _text_or_bytes
        for pragma in pragmas:
            connection.execute(pragma)

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(begin_statement)

    return engine


def _text_or_bytes(content: bytes) -> str | bytes:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content


def _json_or_as_it_is(text: Any) -> Any:
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return text


def _check_version(connection: sa.Connection, version: int) -> None:
    found = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    if sa.inspect(connection).get_table_names() and found != version:
        raise SchemaMismatch(f"its tables are of version {found}, this program needs version {version}")


def _set_version(connection: sa.Connection, version: int) -> None:
    connection.exec_driver_sql(f"PRAGMA user_version={version}")
