"""Statements that every image needs: SQLAlchemy writes them once, and the driver executes them.

SQLAlchemy's own execution takes longer than PostgreSQL needs for any of them. Its connections, its pool and its errors
stay, and so does the text: there is one way to say what is asked, and two ways to send it.
"""

from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar, cast

from sqlalchemy import Connection, CursorResult, Dialect, Executable
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ClauseElement
from sqlalchemy.sql.selectable import ReturnsRows

from image_service.database.rows import AnyRow

_T = TypeVar("_T")


class Prepared:
    """A statement whose parameters always have the same names.

    On PostgreSQL the driver executes it, unless something listens to SQLAlchemy's statements, as tracing does. There,
    and on SQLite, SQLAlchemy does.
    """

    def __init__(self, statement: Executable) -> None:
        self._statement: Final = statement
        self._direct: _Direct | None = None

    async def rows(self, connection: AsyncConnection, parameters: Mapping[str, Any]) -> Sequence[AnyRow]:
        """Execute it; returns the rows, with the columns as attributes."""
        if _is_direct(connection):
            return await connection.run_sync(self._run, parameters, _Direct.rows)
        return (await self._execute(connection, parameters)).all()

    async def count(self, connection: AsyncConnection, parameters: Mapping[str, Any]) -> int:
        """Execute it; returns the number of rows that it changed."""
        if _is_direct(connection):
            return await connection.run_sync(self._run, parameters, _Direct.count)
        return (await self._execute(connection, parameters)).rowcount

    async def _execute(self, connection: AsyncConnection, parameters: Mapping[str, Any]) -> CursorResult[Any]:
        return await connection.execute(self._statement, dict(parameters))

    def _run(
        self, connection: Connection, parameters: Mapping[str, Any], read: "Callable[[_Direct, DBAPICursor], _T]"
    ) -> _T:
        direct = self._direct
        if direct is None:
            direct = self._direct = _Direct(self._statement, connection.dialect, list(parameters))
        arguments = direct.arguments(parameters)
        cursor = connection.connection.cursor()
        try:
            cursor.execute(direct.text, arguments)
        except BaseException as error:
            # What SQLAlchemy does with an error of its own execution: it translates it, tells the listeners, and
            # discards a connection that cannot be used any more. It has no public name for that.
            connection._handle_dbapi_exception(error, direct.text, None, cursor, None)  # noqa: SLF001
            raise
        result = read(direct, cursor)
        cursor.close()
        return result


class _Direct:
    """The text of a statement in a dialect, and how its values are converted."""

    def __init__(self, statement: Executable, dialect: Dialect, names: list[str]) -> None:
        compiled = cast("SQLCompiler", cast("ClauseElement", statement).compile(dialect=dialect, column_keys=names))
        if compiled.insert_prefetch:
            raise ValueError(f"SQLAlchemy would add values that must be given: {compiled.insert_prefetch}")
        self.text: Final = str(compiled)
        self._constants: Final[list[Any]] = []
        self._given: Final[list[tuple[int, str, Callable[[Any], Any] | None]]] = []
        for at, name in enumerate(compiled.positiontup or ()):
            bind = compiled.binds[name]
            convert = bind.type.dialect_impl(dialect).bind_processor(dialect)
            if bind.key in names:
                self._given.append((at, bind.key, convert))
            self._constants.append(bind.value if convert is None or bind.key in names else convert(bind.value))
        columns = tuple(statement.exported_columns) if isinstance(statement, ReturnsRows) else ()
        self._row: Final[Any] = namedtuple("Row", [column.key for column in columns])  # type: ignore[misc]  # noqa: PYI024 — its fields are known at run time
        self._returned: Final = [
            (at, convert)
            for at, column in enumerate(columns)
            if (convert := column.type.dialect_impl(dialect).result_processor(dialect, None)) is not None
        ]

    def arguments(self, parameters: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return all values in the order of the text."""
        values = self._constants.copy()
        for at, name, convert in self._given:
            values[at] = parameters[name] if convert is None else convert(parameters[name])
        return tuple(values)

    def rows(self, cursor: DBAPICursor) -> Sequence[AnyRow]:
        """Return the rows of the result."""
        return [self._read(row) for row in cursor.fetchall()]

    def count(self, cursor: DBAPICursor) -> int:
        """Return the number of rows that were changed."""
        return cursor.rowcount

    def _read(self, row: Sequence[Any]) -> AnyRow:
        values = list(row)
        for at, convert in self._returned:
            values[at] = convert(values[at])
        return cast("AnyRow", self._row(*values))


def _is_direct(connection: AsyncConnection) -> bool:
    if connection.dialect.name != "postgresql" or connection.sync_connection is None:
        return False
    return not connection.sync_connection.dispatch.before_cursor_execute
