"""From the URL in the settings: what SQLAlchemy and asyncpg need for a connection."""

from typing import Any, Final

from sqlalchemy import URL, make_url

from image_service.database import pgbouncer
from image_service.tls import postgresql_tls

_NOT_ASYNCPGS: Final = (
    *("sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslnegotiation"),
    *("application_name", "options", "connect_timeout", "gssencmode", "channel_binding"),
)
"""Parameters of libpq: SQLAlchemy would hand them to asyncpg, which does not have them as arguments."""


def connect_arguments(url: str) -> tuple[URL, dict[str, Any]]:
    """Return the URL for SQLAlchemy, and the arguments for asyncpg that stand for its other parameters.

    Args:
        url: As the settings have it. Certificates are read now: a change of their files needs a restart.

    Raises:
        ValueError: a certificate cannot be used.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() != "postgresql":
        return parsed, {}
    query = parsed.query
    arguments: dict[str, Any] = {
        "server_settings": {"application_name": query.get("application_name", "image-service")}
    }
    if "options" in query:
        arguments["server_settings"]["options"] = query["options"]
    if (tls := postgresql_tls(query)) is not None:
        arguments["ssl"] = tls
    if query.get("sslnegotiation") == "direct":
        arguments["direct_tls"] = True
    if pgbouncer.behind_pgbouncer(parsed):
        arguments |= pgbouncer.CONNECT_ARGS
    return parsed.difference_update_query(_NOT_ASYNCPGS), arguments
