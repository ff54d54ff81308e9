"""Queries of the repositories, run one statement at a time in the thread that has a connection.

A query is a coroutine that awaits nothing but the statements of its connection. With ``ASKING`` in the place of that
connection it asks for each statement, and goes on with the result in the thread that has executed it. So a query of
several statements goes to that thread once, and the repositories are the same on every database.
"""

from collections.abc import Awaitable, Callable, Coroutine, Generator
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from sqlalchemy import Connection, CursorResult, Dialect, Executable
from sqlalchemy.dialects import sqlite

from image_service.database.repositories import SingleStatements

T = TypeVar("T")
Q = TypeVar("Q", bound=SingleStatements)

Run = Callable[["Query[Any]"], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement that a query asks for."""

    executable: Executable
    parameters: Any

    def __await__(self) -> Generator["Statement", CursorResult[Any], CursorResult[Any]]:
        """Ask for the statement; returns its result."""
        return (yield self)

    @property
    def only_reads(self) -> bool:
        """Whether it certainly changes nothing. Of a text, for example, that is not known."""
        return self.executable.is_select


class _Asking:
    """Has what the repositories use of a connection."""

    dialect: Dialect = sqlite.dialect()

    @staticmethod
    def execute(executable: Executable, parameters: Any = None) -> Statement:  # noqa: ANN401 — as SQLAlchemy types it
        return Statement(executable, parameters)


ASKING: Final[Any] = _Asking()
"""The connection of repositories whose queries are run as ``Query``."""


class Query(Generic[T]):
    """A query under way."""

    answer: T
    """Its result, once it wants no more statements."""

    def __init__(self, coroutine: Coroutine[Statement, CursorResult[Any], T]) -> None:
        """Starts it, up to its first statement."""
        self.name = getattr(coroutine, "__name__", "")
        self._coroutine = coroutine
        self.wanted: Statement | None = None
        """The statement that it waits for."""
        self._go_on(coroutine.send, None)

    def run(self, connection: Connection, *, only_reads: bool = False) -> None:
        """Execute its statements until it ends; with ``only_reads``, or until it wants to change something."""
        while self.wanted is not None and (self.wanted.only_reads or not only_reads):
            try:
                result = connection.execute(self.wanted.executable, self.wanted.parameters)
            except Exception as error:  # noqa: BLE001 — the query may handle any
                self._go_on(self._coroutine.throw, error)
            else:
                self._go_on(self._coroutine.send, result)

    def _go_on(self, resume: Callable[[Any], Statement], value: object) -> None:
        try:
            self.wanted = resume(value)
        except StopIteration as end:
            self.wanted, self.answer = None, end.value


def bound(kind: type[Q], run: Run) -> Q:
    """Return repositories each of whose queries is run as a whole by ``run``."""
    repositories = kind(ASKING)
    for name, repository in vars(repositories).items():
        setattr(repositories, name, _Queries(repository, run))
    repositories.connection = _Connection(run)  # type: ignore[assignment]  # all that is used of one
    return repositories


class _Queries:
    """Has the queries of a repository as methods."""

    def __init__(self, repository: object, run: Run) -> None:
        self._repository = repository
        self._run = run

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        query = getattr(self._repository, name)
        return lambda *args, **options: self._run(Query(query(*args, **options)))


class _Connection:
    """Executes single statements that no repository has."""

    dialect = _Asking.dialect

    def __init__(self, run: Run) -> None:
        self._run = run

    async def execute(self, executable: Executable, parameters: Any = None) -> Any:  # noqa: ANN401 — as SQLAlchemy types it
        async def fetched() -> Any:  # noqa: ANN401 — the same
            result = await Statement(executable, parameters)
            return result.freeze()() if result.returns_rows else result

        return await self._run(Query(fetched()))
