"""Databases for tests on a PostgreSQL server. All functions block, and may be called beside a running event loop."""

import asyncio
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final, TypeVar
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg

Result = TypeVar("Result")

CONNECT_TIMEOUT: Final = 5.0
_MOST_ROWS: Final = 2000
"""Rows that a database may have had to be used again: deleted rows take space until they are vacuumed."""
_TABLES: Final = "SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
_DEFINITION: Final = """
    SELECT md5(concat_ws('; ',
        (SELECT string_agg(concat_ws(' ', relname, attnum, attname, atttypid, attnotnull), ',' ORDER BY relname, attnum)
            FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid AND relnamespace = 'public'::regnamespace),
        (SELECT string_agg(concat_ws(' ', conname, pg_get_constraintdef(oid)), ',' ORDER BY conname)
            FROM pg_constraint WHERE connamespace = 'public'::regnamespace),
        (SELECT string_agg(tgname, ',' ORDER BY tgname) FROM pg_trigger WHERE NOT tgisinternal),
        (SELECT concat_ws(' ', datallowconn, datconnlimit) FROM pg_database WHERE datname = current_database()),
        (SELECT string_agg(setconfig::text, ',') FROM pg_db_role_setting
            JOIN pg_database ON pg_database.oid = setdatabase AND datname = current_database())
    ))
"""
"""A digest of what a test may have changed, other than rows: tables, constraints, triggers and settings."""
_END_OTHER_SESSIONS: Final = """
    SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""

_RESET: Final = "UPDATE event_positions SET transaction_id = 0, number = 0, lease_until = NULL, lease = 0"
"""Restores the rows that the migrations make and the service changes."""


class Databases:
    """Copies of a template database, which tests use one after the other: to empty one is faster than to make one."""

    def __init__(self, url: str, template: str) -> None:
        """Use a server, and one of its databases as the template."""
        self._url = url
        self._template = template
        self._unused: list[str] = []
        self._definition, self._rows = _run(_describe(_named(url, template)))

    @contextmanager
    def one(self) -> Iterator[str]:
        """Provide the URL of a database like the template, which no other test uses meanwhile."""
        name = self._unused.pop() if self._unused else None
        if name is None:
            name = f"test_{uuid4().hex}"
            create_database(self._url, name, self._template)
        yield _named(self._url, name)
        if _run(self._restored(name)):
            self._unused.append(name)
        else:
            drop_database(self._url, name)

    def close(self) -> None:
        """Drop the databases."""
        for name in self._unused:
            drop_database(self._url, name)

    async def _restored(self, name: str) -> bool:
        """Delete the rows of a database; return whether it is like the template then."""
        try:
            connection = await _connected(_named(self._url, name))
        except (OSError, asyncpg.PostgresError):  # a test has dropped it, or has limited who may connect
            return False
        try:
            await connection.execute(_END_OTHER_SESSIONS)
            if await connection.fetchval(_DEFINITION) != self._definition:
                return False
            await connection.execute(_RESET)
            rows = await _rows(connection)
            for table in rows:
                if not self._rows[table]:
                    await connection.execute(f"DELETE FROM {table}")  # noqa: S608  (a name from the catalogue)
            await connection.execute(_RESET)
            return sum(rows.values()) <= _MOST_ROWS and await _rows(connection) == self._rows
        except asyncpg.PostgresError:
            return False
        finally:
            await connection.close()


def create_database(url: str, name: str, template: str | None = None) -> str:
    """Create a database on the URL's server; return the new database's URL."""
    ask(url, f'CREATE DATABASE "{name}"' + (f' TEMPLATE "{template}"' if template else ""))
    return _named(url, name)


def drop_database(url: str, name: str) -> None:
    """Drop a database of the URL's server and its connections."""
    ask(url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def ask(url: str, statement: str) -> object:
    """Execute a statement outside a transaction; return the first column of the first row, if any."""
    return _run(_ask(url, statement))


async def _describe(url: str) -> tuple[str, dict[str, int]]:
    """Return the digest of a database's definition, and the number of rows of each table."""
    connection = await _connected(url)
    try:
        return await connection.fetchval(_DEFINITION), await _rows(connection)
    finally:
        await connection.close()


async def _ask(url: str, statement: str) -> object:
    connection = await _connected(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def _rows(connection: asyncpg.Connection) -> dict[str, int]:
    """Return the number of rows of each table."""
    tables = [row[0] for row in await connection.fetch(_TABLES)]
    counts = " UNION ALL ".join(f"SELECT '{table}', count(*) FROM {table}" for table in tables)  # noqa: S608
    return dict(await connection.fetch(counts))


async def _connected(url: str) -> asyncpg.Connection:
    # The driver itself connects faster than SQLAlchemy, once for each test on PostgreSQL.
    return await asyncpg.connect(url.replace("+asyncpg", "", 1), timeout=CONNECT_TIMEOUT)


def _named(url: str, name: str) -> str:
    """Return the URL of another database of the same server."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def _run(coroutine: Coroutine[object, object, Result]) -> Result:
    """Run a coroutine in a new thread: the caller's may have a running event loop."""
    with ThreadPoolExecutor(max_workers=1) as executor:
        return executor.submit(asyncio.run, coroutine).result()
