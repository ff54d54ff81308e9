"""The URLs of database and broker: those that hosting providers hand out become those that the adapters understand."""

import re
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urlsplit

from image_service.tls import amqp_tls, postgresql_tls

SQLITE: Final = "sqlite+aiosqlite:///"
"""What the ``DATABASE_URL`` of an SQLite database starts with."""
EMBEDDED_QUEUE: Final = "embedded://"
"""The ``RABBITMQ_URL`` of a queue in the process, without a broker."""

_POSTGRESQL: Final = "postgresql+asyncpg"
_POSTGRESQL_SCHEMES: Final = frozenset({"postgres", "postgresql", _POSTGRESQL})

_ANYTHING: Final = ".+"
_NUMBER: Final = "[0-9]{1,9}"
_SSL_MODES: Final = "disable|allow|prefer|require|verify-ca|verify-full"
_POSTGRESQL_PARAMETERS: Final[Mapping[str, str]] = {
    "host": _ANYTHING,
    "port": _NUMBER,
    "sslmode": _SSL_MODES,
    "sslrootcert": _ANYTHING,
    "sslcert": _ANYTHING,
    "sslkey": _ANYTHING,
    "sslpassword": _ANYTHING,
    "sslnegotiation": "postgres|direct",
    "application_name": _ANYTHING,
    "options": _ANYTHING,
    "target_session_attrs": "any|read-write|primary",
    "prepared_statement_cache_size": _NUMBER,
    # These change nothing: the service has time limits of its own, and asyncpg has neither of the last two.
    "connect_timeout": _NUMBER,
    "gssencmode": "disable|prefer",
    "channel_binding": "disable|prefer|require",
}
_AMQP_PARAMETERS: Final[Mapping[str, str]] = {
    "cacertfile": _ANYTHING,
    "certfile": _ANYTHING,
    "keyfile": _ANYTHING,
    "verify": "verify_peer|verify_none",
    "heartbeat": _NUMBER,
    "auth": "plain|external",
    "connection_timeout": _NUMBER,  # changes nothing: the service has a time limit of its own
}
_SYNONYMS: Final[Mapping[tuple[str, str], tuple[str, str]]] = {
    ("ssl", "true"): ("sslmode", "require"),
    ("ssl", "false"): ("sslmode", "disable"),
    **{("ssl", mode): ("sslmode", mode) for mode in _SSL_MODES.split("|")},
    ("pgbouncer", "true"): ("prepared_statement_cache_size", "0"),
    ("no_verify_ssl", "0"): ("verify", "verify_peer"),
    ("no_verify_ssl", "1"): ("verify", "verify_none"),
    ("auth_mechanism", "plain"): ("auth", "plain"),
    ("auth_mechanism", "external"): ("auth", "external"),
}
_RENAMED: Final[Mapping[str, str]] = {"cafile": "cacertfile"}
_REPEATABLE: Final = frozenset({"host"})
_TLS_FILES: Final = frozenset({"cacertfile", "certfile", "keyfile", "verify"})


def database_url(url: str) -> str:
    """Returns the URL with asyncpg's scheme and with libpq's names for its parameters; an SQLite URL as it is.

    Raises:
        ValueError: it cannot be used. The message repeats no value that may be secret.
    """
    if url.startswith(SQLITE):  # a file's path may contain anything
        return url
    parts = _with_scheme(url, _POSTGRESQL_SCHEMES, f"must start with postgresql:// or {SQLITE}")
    parameters = list(_parameters(parts.query, _POSTGRESQL_PARAMETERS))
    host = parts.netloc.rpartition("@")[2]
    if _is_transaction_pooler(host) and "prepared_statement_cache_size" not in dict(parameters):
        parameters.append(("prepared_statement_cache_size", "0"))
    postgresql_tls(dict(parameters))
    return _joined(parts, _POSTGRESQL, parameters)


def broker_url(url: str) -> str:
    """Returns the URL with RabbitMQ's names for its parameters.

    Raises:
        ValueError: it cannot be used. The message repeats no value that may be secret.
    """
    if url.startswith(EMBEDDED_QUEUE):
        return url
    parts = _with_scheme(url, frozenset({"amqp", "amqps"}), "must start with amqp:// or amqps://")
    parameters = list(_parameters(parts.query, _AMQP_PARAMETERS))
    if parts.scheme == "amqps":
        amqp_tls(dict(parameters))
    elif unused := sorted(_TLS_FILES.intersection(dict(parameters))):
        raise ValueError(f"must start with amqps:// if its parameter {unused[0]} is to be used")
    return _joined(parts, parts.scheme, parameters)


def parts_of(url: str) -> SplitResult:
    """Returns the parts of a URL that may contain a password.

    Some programs take an unescaped character of a password for the end of the host name, and the rest for a port or a
    path, which then is in their error messages.

    Raises:
        ValueError: it can be read in several ways (RFC 3986, section 3.2). The message repeats nothing of it.
    """
    msg = (
        "must look like scheme://user:password@host:port/name, with each character of user and password that is no "
        "letter or digit percent-encoded: %2F for /, %40 for @, %3A for :, %3F for ?, %23 for # and %25 for %"
    )
    try:
        parts = urlsplit(url)
        usable_port = parts.port != 0  # raises where it is no number
    except ValueError:
        raise ValueError(msg) from None
    if not usable_port or parts.netloc.count("@") > 1 or "@" in parts.path + parts.query + parts.fragment:
        raise ValueError(msg)
    return parts


def _with_scheme(url: str, schemes: frozenset[str], otherwise: str) -> SplitResult:
    if not url.startswith(tuple(f"{scheme}://" for scheme in schemes)):
        raise ValueError(otherwise)
    return parts_of(url)


def _parameters(query: str, known: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yields the parameters under their usual names.

    Raises:
        ValueError: one is unknown, has no usable value, or is given twice.
    """
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True, max_num_fields=50) if query else []
    except ValueError:
        raise ValueError("must have parameters of the form ?name=value&name=value") from None
    seen: set[str] = set()
    for given, text in pairs:
        name, value = _SYNONYMS.get((given, text.lower()), (_RENAMED.get(given, given), text))
        if name not in known:
            shown = f" {name}" if re.fullmatch("[A-Za-z_]{1,40}", name) else ""
            raise ValueError(
                f"has a parameter{shown} that is not understood: remove it; known are {', '.join(sorted(known))}"
            )
        if not re.fullmatch(known[name], value):
            raise ValueError(f"has a value of its parameter {name} that is not usable: it must be {_said(known[name])}")
        if name in seen and name not in _REPEATABLE:
            raise ValueError(f"has its parameter {name} twice: remove one")
        seen.add(name)
        yield name, value


def _said(pattern: str) -> str:
    return {_ANYTHING: "at least one character", _NUMBER: "a number"}.get(pattern, pattern.replace("|", ", "))


def _joined(parts: SplitResult, scheme: str, parameters: list[tuple[str, str]]) -> str:
    # Not urlunsplit, which makes "scheme:/path" of a URL without host.
    query = f"?{urlencode(parameters, quote_via=quote)}" if parameters else ""
    return f"{scheme}://{parts.netloc}{parts.path}{query}"


def _is_transaction_pooler(address: str) -> bool:
    """Whether a host, with its port, is a pooler in transaction mode whose provider does not say so in the URL."""
    first, _, domain = address.partition(":")[0].partition(".")
    is_neon = first.endswith("-pooler") and domain.endswith("neon.tech")
    return is_neon or address.endswith(".pooler.supabase.com:6543")
