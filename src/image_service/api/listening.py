"""The socket that the API listens on."""

import socket
from typing import Final

import structlog

from image_service.errors import StartError

_BACKLOG: Final = 2048
"""Connections that the kernel keeps until they are accepted."""

_log = structlog.get_logger(__name__)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; "::" listens on all addresses, of IPv4 as well.

    Raises:
        StartError: the address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        both = host == "::" and socket.has_dualstack_ipv6()
        return socket.create_server((host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=both)
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while")[0]  # Python repeats the address after it
        raise StartError(
            f"Cannot listen on {host} port {port}: {reason}. "
            "Stop what uses it, or choose another with --port or API_PORT."
        ) from error


def url_of(listener: socket.socket) -> str:
    """Return the API's URL, as seen from this machine."""
    host, port = listener.getsockname()[:2]
    if host in {"0.0.0.0", "::"}:  # noqa: S104 — compared, not listened on
        host = "localhost"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def warn_of_open_access(listener: socket.socket) -> None:
    """Log that every client that reaches the socket may do everything."""
    host, port = listener.getsockname()[:2]
    _log.warning(
        "no authentication: every client that reaches the API can read, upload and delete images",
        host=host,
        port=port,
        action="let only trusted clients reach it, such as through a proxy that asks who they are",
    )
