"""The database's clock, which all leases and delays are measured with.

Workers on machines whose clocks differ, or jump, still agree about who holds a lease.
"""

from typing import Any

from sqlalchemy import BindParameter, Float, literal, type_coerce
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import ColumnElement
from sqlalchemy.sql.functions import GenericFunction

from image_service.models.base import UtcDateTime


class in_seconds(GenericFunction[Any]):  # noqa: N801 — SQLAlchemy names functions in lower case
    """The database's time so many seconds from now; negative for the past."""

    type = UtcDateTime()
    inherit_cache = True

    def __init__(self, seconds: float | BindParameter[Any]) -> None:
        super().__init__(type_coerce(seconds, Float) if isinstance(seconds, BindParameter) else literal(float(seconds)))


def now() -> ColumnElement[Any]:
    """The database's time."""
    return in_seconds(0)


@compiles(in_seconds, "postgresql")
def _postgresql(element: in_seconds, compiler: SQLCompiler, **options: object) -> str:
    # Not now(): that is when the transaction began, which may be long ago if it waited for a lock. And not
    # clock_timestamp(): that changes while a statement runs, so no index could be searched for it.
    seconds = compiler.process(element.clauses, **options)
    return f"(statement_timestamp() + make_interval(secs => {seconds}))"


@compiles(in_seconds, "sqlite")
def _sqlite(element: in_seconds, compiler: SQLCompiler, **options: object) -> str:
    # The same text that SQLAlchemy stores for a datetime, so that both compare as text.
    seconds = compiler.process(element.clauses, **options)
    return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', {seconds} || ' seconds')"
