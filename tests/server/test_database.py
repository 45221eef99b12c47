"""The writer thread: groups share a commit, and no work disturbs another."""

import asyncio

import pytest
import sqlalchemy as sa
from mlpd.server.storage.database import Database, SchemaMismatch

METADATA = sa.MetaData()
NUMBERS = sa.Table("numbers", METADATA, sa.Column("number", sa.Integer, primary_key=True))


def insert(*numbers):
    return lambda connection: (
        [connection.execute(NUMBERS.insert().values(number=number)) for number in numbers] and numbers
    )


def everything(connection):
    return list(connection.execute(sa.select(NUMBERS.c.number).order_by(NUMBERS.c.number)).scalars())


def with_database(tmp_path, use):
    async def run():
        database = Database(tmp_path / "test.sqlite3", METADATA, 1)
        try:
            return await use(database)
        finally:
            database.close()

    return asyncio.run(run())


def test_concurrent_writes_are_all_there(tmp_path):
    async def use(database):
        await asyncio.gather(*(database.write(insert(number)) for number in range(200)))
        return await database.read(everything)

    assert with_database(tmp_path, use) == list(range(200))


def test_work_that_fails_leaves_no_trace_and_disturbs_no_other(tmp_path):
    async def use(database):
        works = [insert(1), insert(2, 1), insert(3), insert(3), insert(4)]
        results = await asyncio.gather(*(database.write(work) for work in works), return_exceptions=True)
        return [isinstance(result, sa.exc.IntegrityError) for result in results], await database.read(everything)

    assert with_database(tmp_path, use) == ([False, True, False, True, False], [1, 3, 4])


def test_what_was_asked_for_before_closing_is_done(tmp_path):
    async def use(database):
        waiting = [asyncio.ensure_future(database.write(insert(number))) for number in range(50)]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        database.close()
        return len(await asyncio.gather(*waiting))

    async def run():
        return await use(Database(tmp_path / "test.sqlite3", METADATA, 1))

    assert asyncio.run(run()) == 50


def test_a_caller_that_gives_up_does_not_undo_its_work(tmp_path):
    async def use(database):
        asked = asyncio.ensure_future(database.write(insert(1)))
        await asyncio.wait([asked], timeout=0)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        await database.write(insert(2))
        return await database.read(everything)

    assert with_database(tmp_path, use) == [1, 2]


def test_readers_can_not_write(tmp_path):
    async def use(database):
        with pytest.raises(sa.exc.OperationalError, match="readonly"):
            await database.read(insert(1))

    with_database(tmp_path, use)


def test_tables_of_another_version_are_left_alone(tmp_path):
    path = tmp_path / "test.sqlite3"
    Database(path, METADATA, 1).close()
    before = path.read_bytes()
    with pytest.raises(SchemaMismatch, match="its tables are of version 1, this program needs version 2"):
        Database(path, METADATA, 2)
    assert path.read_bytes() == before
    Database(path, METADATA, 1).close()
