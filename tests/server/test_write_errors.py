"""What SQLite refuses: who was told "stored" is stored, who was refused is not, and nobody waits for ever."""

import asyncio
import os
import resource
import sqlite3
import threading
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager, suppress

import pytest
import sqlalchemy as sa
from mlpd.server import errors
from mlpd.server.storage.database import Database, _Request

METADATA = sa.MetaData()
BLOBS = sa.Table(
    "blobs",
    METADATA,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("content", sa.LargeBinary, nullable=False),
)
LARGE_BYTES = 300_000  # ten of them are more than SQLite keeps in memory, so a group writes before its commit
SECONDS = 30


def insert(number, size_bytes=10):
    return lambda connection: (
        connection.execute(BLOBS.insert().values(number=number, content=bytes(size_bytes))) and number
    )


def sql(*statements):
    def work(connection):
        for statement in statements:
            connection.exec_driver_sql(statement)

    return work


def stored(connection):
    return list(connection.execute(sa.select(BLOBS.c.number).order_by(BLOBS.c.number)).scalars())


def with_database(tmp_path, use):
    async def run():
        database = Database(tmp_path / "test.sqlite3", METADATA, 1)
        try:
            async with asyncio.timeout(SECONDS):
                return await use(database)
        finally:
            database.close()

    return asyncio.run(run())


@asynccontextmanager
async def one_group(database):
    """Hold the writer, so that all that is asked for in the block shares a transaction."""
    held, let_go = threading.Event(), threading.Event()

    def hold(_connection):
        held.set()
        let_go.wait(SECONDS)

    holding = asyncio.ensure_future(_until_taken(database, hold))
    await asyncio.to_thread(held.wait, SECONDS)
    yield
    await asyncio.sleep(0)  # the tasks of the block ask
    let_go.set()
    await holding


async def _until_taken(database, work):
    with suppress(sa.exc.DatabaseError):
        return await database.write(work)
    return await database.write(work)


async def ask_together(database, works):
    """Return what each of ``works`` is answered, an exception for a refusal."""
    async with one_group(database):
        asked = [asyncio.ensure_future(database.write(work)) for work in works]
    return await asyncio.gather(*asked, return_exceptions=True)


def acknowledged(answers):
    return [answer for answer in answers if isinstance(answer, int)]


def limit_pages(more):
    def work(connection):
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages + more}")

    return work


@contextmanager
def files_of_at_most(size_bytes):
    """Let the kernel refuse this process larger files, which SQLite reports as an I/O error."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("place", [0, 3, 6])
def test_a_full_database_refuses_the_write_that_does_not_fit_and_stores_its_neighbours(tmp_path, place):
    async def use(database):
        await database.write(limit_pages(10))
        works = [insert(number) for number in range(1, 7)]
        works.insert(place, insert(0, LARGE_BYTES))
        answers = await ask_together(database, works)
        refusal = answers.pop(place)
        assert isinstance(refusal, errors.StorageFull)
        assert acknowledged(answers) == await database.read(stored) == [1, 2, 3, 4, 5, 6]
        await database.write(limit_pages(1000))
        await database.write(insert(0, LARGE_BYTES))
        return await database.read(stored)

    assert with_database(tmp_path, use) == [0, 1, 2, 3, 4, 5, 6]


def test_a_full_database_that_undoes_one_statement_alone_refuses_it_by_the_same_name(tmp_path):
    async def use(database):
        await database.write(insert(0))
        await database.write(limit_pages(10))
        many = sql("INSERT INTO blobs SELECT number + 1000, zeroblob(300000) FROM blobs")
        answers = await ask_together(database, [insert(1), many, insert(2)])
        assert [type(answer) for answer in answers] == [int, errors.StorageFull, int]
        return await database.read(stored)

    assert with_database(tmp_path, use) == [0, 1, 2]


def test_a_group_larger_than_its_memory_loses_nobody_when_the_disk_refuses(tmp_path):
    async def use(database):
        await database.write(insert(0))
        works = [insert(number, LARGE_BYTES if number % 2 else 10) for number in range(1, 41)]
        wal = tmp_path / "test.sqlite3-wal"
        with files_of_at_most(wal.stat().st_size + 8 * LARGE_BYTES):
            answers = await ask_together(database, works)
        refusals = [answer for answer in answers if not isinstance(answer, int)]
        assert len(refusals) > 5
        assert all(isinstance(refusal, errors.StorageFailing) for refusal in refusals)
        assert [0, *acknowledged(answers)] == await database.read(stored)
        return await database.write(insert(100, LARGE_BYTES))

    assert with_database(tmp_path, use) == 100


def test_a_commit_that_fails_is_nobodys_until_each_has_tried_alone(tmp_path):
    async def use(database):
        await database.write(insert(0))
        works = [insert(1), insert(2, LARGE_BYTES), insert(3)]
        with files_of_at_most((tmp_path / "test.sqlite3-wal").stat().st_size + LARGE_BYTES // 2):
            answers = await ask_together(database, works)
        assert [type(answer) for answer in answers] == [int, errors.StorageFailing, int]
        return await database.read(stored)

    assert with_database(tmp_path, use) == [0, 1, 3]


def test_a_locked_database_refuses_and_goes_on_when_the_lock_is_gone(tmp_path):
    async def use(database):
        await database.write(sql("PRAGMA busy_timeout=50"))
        other = sqlite3.connect(tmp_path / "test.sqlite3", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        refusals = await asyncio.gather(
            *(database.write(insert(number)) for number in range(9)), return_exceptions=True
        )
        assert all(isinstance(refusal, errors.StorageFailing) for refusal in refusals)
        other.execute("ROLLBACK")
        other.close()
        await asyncio.gather(*(database.write(insert(number)) for number in range(9)))
        return await database.read(stored)

    assert with_database(tmp_path, use) == list(range(9))


BEGIN, COMMIT, ROLLBACK = ((sqlite3.SQLITE_TRANSACTION, word) for word in ("BEGIN", "COMMIT", "ROLLBACK"))
SAVEPOINT, RELEASE, ROLLBACK_TO = ((sqlite3.SQLITE_SAVEPOINT, word) for word in ("BEGIN", "RELEASE", "ROLLBACK"))
NAMES = {BEGIN: "BEGIN", SAVEPOINT: "SAVEPOINT", RELEASE: "RELEASE", ROLLBACK_TO: "ROLLBACK TO"}
NAMES |= {COMMIT: "COMMIT", ROLLBACK: "ROLLBACK"}
FAULTS = [[BEGIN], [SAVEPOINT], [RELEASE], [ROLLBACK_TO], [COMMIT], [COMMIT, ROLLBACK], [ROLLBACK_TO, ROLLBACK]]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: " and ".join(NAMES[one] for one in fault))
@pytest.mark.parametrize("place", [0, 4])
def test_whatever_statement_of_a_transaction_fails_acknowledged_is_stored(tmp_path, fault, place):
    """SQLite itself refuses the next statement of a kind; a connection is asked once for each that it has prepared."""
    ahead = set(fault)

    def arm(connection):
        def judge(action, word, *_):
            if (action, word) not in ahead:
                return sqlite3.SQLITE_OK
            ahead.remove((action, word))
            return sqlite3.SQLITE_DENY

        connection.connection.driver_connection.set_authorizer(judge)

    async def use(database):
        answers = []
        for first in (0, 10, 20):
            works = [insert(number) for number in range(first, first + 5)]
            works.insert(3, insert(first))  # breaks the rule that numbers are unique, and is undone alone
            if first == 10:
                works.insert(place, arm)
            answers += await ask_together(database, works)
        answers.append(await database.write(insert(100)))
        return acknowledged(answers), await database.read(stored)

    told, found = with_database(tmp_path, use)
    assert sorted(told) == found
    assert len(told) >= 11
    assert not ahead


@pytest.mark.parametrize("meddling", [sql("ROLLBACK"), sql("ROLLBACK", "BEGIN"), sql("ROLLBACK", "SELECT nonsense")])
def test_work_that_ends_the_transaction_itself_takes_nobody_with_it(tmp_path, meddling):
    async def use(database):
        answers = await ask_together(database, [insert(1), meddling, insert(2)])
        assert isinstance(answers[1], Exception)
        assert acknowledged(answers) == [1, 2]
        return await database.read(stored)

    assert with_database(tmp_path, use) == [1, 2]


@pytest.mark.parametrize("moment", ["before it is taken", "while it runs"])
def test_a_request_that_is_withdrawn_harms_nobody(tmp_path, moment):
    async def use(database):
        answer: Future[int] = Future()

        def withdrawn(connection):
            if moment == "while it runs":
                answer.cancel()
            return insert(1)(connection)

        async with one_group(database):
            others = [asyncio.ensure_future(database.write(insert(number))) for number in (2, 3)]
            database._requests.put(_Request(withdrawn, answer))
            if moment == "before it is taken":
                answer.cancel()
        assert await asyncio.gather(*others) == [2, 3]
        return await database.write(insert(4)), await database.read(stored)

    last, found = with_database(tmp_path, use)
    assert (last, found) == (4, [2, 3, 4] if moment == "before it is taken" else [1, 2, 3, 4])


def test_a_writer_that_has_ended_is_told_of_and_refuses(tmp_path):
    def end(_connection):
        raise SystemExit

    async def use(database):
        async with one_group(database):
            asked = [asyncio.ensure_future(database.write(work)) for work in (insert(1), end, insert(2))]
        with pytest.raises(SystemExit):
            await asyncio.wrap_future(database.writer_ended)
        answers = await asyncio.gather(*asked, database.write(insert(3)), return_exceptions=True)
        assert all(isinstance(answer, errors.Unavailable) for answer in answers)
        return await database.read(stored)

    assert with_database(tmp_path, use) == []


def test_a_disk_that_can_not_be_read_refuses_the_read_and_goes_on_afterwards(tmp_path):
    async def use(database):
        for number in range(20):
            await database.write(insert(number, LARGE_BYTES))
        await database.read(stored)
        await database.write(sql("DELETE FROM blobs WHERE number > 9"))  # so that what was read is read anew
        path = str(tmp_path / "test.sqlite3")
        places = [int(name) for name in os.listdir("/proc/self/fd") if _target(name) == path]
        kept = {place: os.dup(place) for place in places}
        unreadable = os.open(path, os.O_WRONLY)
        for place in places:
            os.dup2(unreadable, place)
        try:
            with pytest.raises(errors.StorageFailing, match="disk I/O error"):
                await database.read(lambda c: c.execute(sa.select(sa.func.sum(sa.func.length(BLOBS.c.content)))).all())
        finally:
            for place, copy in kept.items():
                os.dup2(copy, place)
                os.close(copy)
            os.close(unreadable)
        return await database.read(stored)

    assert with_database(tmp_path, use) == list(range(10))


def _target(name):
    try:
        return os.readlink(f"/proc/self/fd/{name}")
    except OSError:
        return ""
