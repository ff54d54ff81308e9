"""Classifies the errors of the database drivers, and translates outages to ``DatabaseUnavailable``."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum, auto
from typing import Final

import structlog
from sqlalchemy.exc import DBAPIError, InterfaceError, InternalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from image_service.causes import OutageLog, cause_of
from image_service.errors import DatabaseUnavailable

# PostgreSQL starts, stops, fails over or is full, or refuses the login: SQLSTATE classes 08, 28, 3D, 53 and 57P.
_OUTAGE_STATES: Final = ("08", "28", "3D", "53", "57P")
# The same for SQLite: locked for too long, unreadable, full, cannot be opened. https://sqlite.org/rescode.html
_OUTAGE_CODES_SQLITE: Final = frozenset(
    {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN}
)
_PRIMARY_CODE: Final = 0xFF

# A table or a column does not exist: undefined_table, undefined_column.
_SCHEMA_STATES: Final = frozenset({"42P01", "42703"})
_SCHEMA_MESSAGES_SQLITE: Final = ("no such table", "no such column", "has no column named")

_log = structlog.get_logger(__name__)


class Failure(Enum):
    """Classes of errors, by what the caller can do about them."""

    OUTAGE = auto()
    """The database is unavailable: the same transaction can succeed later."""
    SCHEMA_MISMATCH = auto()
    """The program is newer or older than the database's schema: an outage that lasts until the operator migrates."""
    FAULT = auto()
    """The statement itself is wrong, or violates a constraint: it fails again."""


def classify(error: Exception) -> Failure:
    """Return the class of an error that SQLAlchemy, a driver or a time limit has raised."""
    if not isinstance(error, DBAPIError):
        # OSError includes TimeoutError.
        return Failure.OUTAGE if isinstance(error, OSError | PoolTimeout) else Failure.FAULT
    if error.connection_invalidated or isinstance(error, InterfaceError):
        return Failure.OUTAGE
    sqlstate = getattr(error.orig, "sqlstate", None)
    if sqlstate is not None:
        return _classify_postgresql(str(sqlstate))
    if isinstance(error.orig, sqlite3.Error):
        return _classify_sqlite(error.orig)
    # From the driver itself: if a connection is lost in the middle of a query, asyncpg may find itself in a state that
    # it cannot leave (InternalClientError), while the connection still seems open.
    return Failure.OUTAGE if isinstance(error, InternalError) else Failure.FAULT


def _classify_postgresql(sqlstate: str) -> Failure:
    if sqlstate.startswith(_OUTAGE_STATES):
        return Failure.OUTAGE
    return Failure.SCHEMA_MISMATCH if sqlstate in _SCHEMA_STATES else Failure.FAULT


def _classify_sqlite(error: sqlite3.Error) -> Failure:
    if getattr(error, "sqlite_errorcode", 0) & _PRIMARY_CODE in _OUTAGE_CODES_SQLITE:
        return Failure.OUTAGE
    return Failure.SCHEMA_MISMATCH if str(error).startswith(_SCHEMA_MESSAGES_SQLITE) else Failure.FAULT


class ErrorTranslator:
    """Raises ``DatabaseUnavailable`` in the place of errors that are an outage.

    Args:
        address: Where the database is, without credentials.
    """

    def __init__(self, address: str) -> None:
        self._logged: set[str] = set()
        self._outages = OutageLog("database unavailable", address)

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Translate what the block raises. An error that is no outage is raised as it is.

        Raises:
            DatabaseUnavailable: the database is unavailable, or its schema does not match this version.
        """
        try:
            yield
        except (OSError, PoolTimeout, DBAPIError) as error:
            failure = classify(error)
            if failure is Failure.FAULT:
                raise
            original = _from_driver(error)
            if failure is Failure.SCHEMA_MISMATCH:
                self._log_once(str(getattr(error, "orig", error)))
                raise DatabaseUnavailable(cause=cause_of(original)) from error
            raise DatabaseUnavailable(cause=self._outages.note(original)) from error

    def _log_once(self, reason: str) -> None:
        """Tell the operator what to do, once for each table or column that is missing."""
        if reason not in self._logged:
            self._logged.add(reason)
            _log.error(
                "database schema does not match this version", action="run: image-service migrate", reason=reason
            )


def _from_driver(error: BaseException) -> BaseException:
    """Returns the driver's own error: SQLAlchemy's message repeats the statement with its parameters."""
    original = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return original.__cause__ or original
