"""TLS to the database and the broker, as the parameters of their URLs ask for it, and to web servers.

The settings use it to refuse unusable files at the start, the adapters to connect.
"""

import ssl
from collections.abc import Callable, Mapping
from typing import Any, Final

_OPPORTUNISTIC: Final = frozenset({"allow", "prefer"})


def postgresql_tls(query: Mapping[str, Any]) -> ssl.SSLContext | str | None:
    """Returns asyncpg's argument ``ssl`` for the parameters that libpq defines; None leaves the choice to asyncpg.

    Raises:
        ValueError: a file cannot be used, or the parameters contradict each other.
    """
    mode, ca = query.get("sslmode"), query.get("sslrootcert")
    if mode is None or mode in {"disable", *_OPPORTUNISTIC}:
        if any(query.get(name) for name in ("sslrootcert", "sslcert", "sslkey")):
            raise ValueError("certificates need sslmode=require, verify-ca or verify-full")
        return mode
    if ca in {None, "system"} and mode == "verify-ca":
        raise ValueError("sslmode=verify-ca needs sslrootcert, the file of a private authority; or use verify-full")
    # As with libpq, a root certificate makes `require` verify the certificate, but not the name in it.
    return _context(
        ca=None if ca == "system" else ca,
        certificate=query.get("sslcert"),
        key=query.get("sslkey"),
        password=query.get("sslpassword"),
        verified=mode != "require" or ca is not None,
        host_checked=mode == "verify-full" or ca == "system",
    )


def amqp_tls(query: Mapping[str, Any]) -> ssl.SSLContext:
    """Returns the context for the parameters that RabbitMQ defines. The server is verified unless they say otherwise.

    Raises:
        ValueError: a file cannot be used.
    """
    verified = query.get("verify") != "verify_none"
    return _context(
        ca=query.get("cacertfile"),
        certificate=query.get("certfile"),
        key=query.get("keyfile"),
        password=None,
        verified=verified,
        host_checked=verified,
    )


def web_tls() -> ssl.SSLContext:
    """Returns the context for web servers, which are verified by the authorities that the system trusts."""
    return _context(ca=None, certificate=None, key=None, password=None, verified=True, host_checked=True)


def _context(
    *,
    ca: str | None,
    certificate: str | None,
    key: str | None,
    password: str | None,
    verified: bool,
    host_checked: bool,
) -> ssl.SSLContext:
    """Returns a context that trusts the authorities of the file ``ca``; without one, those that the system trusts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = host_checked
    context.verify_mode = ssl.CERT_REQUIRED if verified else ssl.CERT_NONE
    if ca is not None:
        _use(ca, lambda: context.load_verify_locations(cafile=ca))
    elif verified:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if certificate is not None:
        # Without a password Python would ask for one on the terminal.
        _use(certificate, lambda: context.load_cert_chain(certificate, key, password or ""))
    elif key is not None:
        raise ValueError("a key needs its certificate")
    return context


def _use(file: str, load: Callable[[], None]) -> None:
    try:
        load()
    except ssl.SSLError as error:  # a subclass of OSError
        raise ValueError(f"{file} is no usable certificate in PEM format ({error.reason or error})") from None
    except OSError as error:
        raise ValueError(f"{file} or its key cannot be read ({error.strerror or error})") from None
