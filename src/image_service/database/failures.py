"""Classifies the errors of the database drivers, and translates outages to ``DatabaseUnavailable``."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from image_service.errors import DatabaseUnavailable

# What is known to be the fault of a statement or of its values is listed here. Every other error is an outage: a server
# can start, stop, fail over, be read-only, full, overloaded or damaged in more ways than a list could name.

# SQLSTATE classes: data exceptions, and violated constraints.
_INVALID_VALUES: Final = ("22", "23")
# Cardinality violations, syntax errors and rule violations, program limits.
_FAULTS: Final = ("21", "42", "54")
# A table or a column does not exist: undefined_table, undefined_column.
_SCHEMA_STATES: Final = frozenset({"42P01", "42703"})
_INSUFFICIENT_PRIVILEGE: Final = "42501"
_READ_ONLY: Final = "25006"
# Of these errors the server, or a pooler, does not know whether the statement took effect.
_UNKNOWN_OUTCOMES: Final = ("08", "40003")

# The same for SQLite. https://sqlite.org/rescode.html
_INVALID_VALUES_SQLITE: Final = frozenset(
    {sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_RANGE}
)
_FAULTS_SQLITE: Final = frozenset({sqlite3.SQLITE_ERROR, sqlite3.SQLITE_MISUSE})
_PRIMARY_CODE: Final = 0xFF
_SCHEMA_MESSAGES_SQLITE: Final = ("no such table", "no such column", "has no column named")

_log = structlog.get_logger(__name__)


class Failure(Enum):
    """Classes of errors, by what the caller can do about them."""

    OUTAGE = auto()
    """The database is unavailable: the same transaction can succeed later."""
    SCHEMA_MISMATCH = auto()
    """The program is newer or older than the database's schema: an outage that lasts until the operator migrates."""
    INVALID_VALUES = auto()
    """The statement's values are invalid or violate a constraint: it fails again with these."""
    FAULT = auto()
    """The statement itself is wrong: it fails again, whatever its values."""


@dataclass(slots=True)
class Progress:
    """How far a transaction has come."""

    committing: bool = False
    """Whether a commit may have been sent, so that after an outage it may have taken effect."""


def classify(error: Exception) -> Failure:
    """Return the class of an error that SQLAlchemy, a driver or a time limit has raised."""
    if not isinstance(error, DBAPIError):
        # OSError includes TimeoutError.
        return Failure.OUTAGE if isinstance(error, OSError | PoolTimeout) else Failure.FAULT
    if error.connection_invalidated:
        return Failure.OUTAGE
    if isinstance(error.orig, sqlite3.Error):
        return _classify_sqlite(error.orig)
    if isinstance(getattr(error.orig, "__cause__", None), ValueError):
        return Failure.INVALID_VALUES  # asyncpg's DataError: it sends no value that cannot be of the column's type
    return _classify_postgresql(_sqlstate(error))


def rejects_values(error: Exception) -> bool:
    """Whether the database has refused a statement because of its values: it fails again with these."""
    return classify(error) is Failure.INVALID_VALUES


def is_read_only(error: Exception) -> bool:
    """Whether a server has refused a change because it is a standby, or because its sessions are read-only."""
    return _sqlstate(error) == _READ_ONLY


def _classify_postgresql(sqlstate: str) -> Failure:
    if sqlstate in _SCHEMA_STATES:
        return Failure.SCHEMA_MISMATCH
    if sqlstate.startswith(_INVALID_VALUES):
        return Failure.INVALID_VALUES
    return Failure.FAULT if sqlstate.startswith(_FAULTS) and sqlstate != _INSUFFICIENT_PRIVILEGE else Failure.OUTAGE


def _classify_sqlite(error: sqlite3.Error) -> Failure:
    code = getattr(error, "sqlite_errorcode", 0) & _PRIMARY_CODE
    if code in _INVALID_VALUES_SQLITE:
        return Failure.INVALID_VALUES
    if str(error).startswith(_SCHEMA_MESSAGES_SQLITE):
        return Failure.SCHEMA_MISMATCH
    # Python's own errors have no code: those of a wrong call are ProgrammingErrors.
    is_fault = code in _FAULTS_SQLITE or (not code and isinstance(error, sqlite3.ProgrammingError))
    return Failure.FAULT if is_fault else Failure.OUTAGE


def _sqlstate(error: Exception) -> str:
    """The server's code; empty if the error is not the server's."""
    return str(getattr(getattr(error, "orig", None), "sqlstate", None) or "")


def _is_rolled_back(error: Exception) -> bool:
    """Whether the server has reported that it undid the statement, rather than that it ended the session."""
    reported = getattr(getattr(error, "orig", None), "__cause__", None)
    severity = getattr(reported, "severity_en", None)
    return severity == "ERROR" and not _sqlstate(error).startswith(_UNKNOWN_OUTCOMES)


class ErrorTranslator:
    """Raises ``DatabaseUnavailable`` in the place of errors that are an outage."""

    def __init__(self) -> None:
        self._logged: set[str] = set()

    @contextmanager
    def translated(self) -> Iterator[Progress]:
        """Translate what the block raises. An error that is no outage is raised as it is.

        The block must set ``committing`` before the first statement that may commit.

        Raises:
            DatabaseUnavailable: the database is unavailable, or its schema does not match this version.
        """
        progress = Progress()
        try:
            yield progress
        except (OSError, PoolTimeout, DBAPIError) as error:
            failure = classify(error)
            if failure in {Failure.FAULT, Failure.INVALID_VALUES}:
                raise
            if failure is Failure.SCHEMA_MISMATCH:
                self._log_once(str(getattr(error, "orig", error)))
            raise DatabaseUnavailable(unchanged=not progress.committing or _is_rolled_back(error)) from error

    def _log_once(self, reason: str) -> None:
        """Tell the operator what to do, once for each table or column that is missing."""
        if reason not in self._logged:
            self._logged.add(reason)
            _log.error(
                "database schema does not match this version", action="run: image-service migrate", reason=reason
            )
