"""Refuses what the pages of other sites make a browser send: to a rebound host name, or to change something.

Without authentication every request that reaches the service is allowed, and a browser inside a private network reaches
it for every page that it shows. Other programs send none of these headers but ``Host``, and are not affected.
"""

import re
import socket
from collections.abc import Collection, Iterator
from functools import lru_cache
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from image_service.api.middleware import RECEIVED_HOSTS
from image_service.api.problems import refusal
from image_service.errors import HostNotAllowed, OriginNotAllowed, ServiceError

ANY: Final = "*"
"""In either setting: all of them."""

_HOST: Final = re.compile(r"(?P<name>[A-Za-z0-9._-]{1,255})(:\d{0,5})?|\[(?P<address>[0-9A-Fa-f:.]{2,45})\](:\d{0,5})?")
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing (RFC 9110, section 9.2.1)."""
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}
_REMEMBERED: Final = 64
"""Values of ``Host`` whose check is remembered: clients send the same few again and again."""
_LOGGED: Final = 255
"""Characters of a header that a log line shows: as many as a host name has at most."""

_log = structlog.get_logger(__name__)


class CrossSiteProtection:
    """Refuses requests to unknown host names, and changes that pages of other sites ask for.

    *Host names* (DNS rebinding): a page whose host name its owner points to this service's address is of the same site
    as the service, for the browser. Only the name shows it. IP addresses cannot be rebound.

    *Changes* (request forgery): the browser says where a request comes from (Fetch Metadata: ``Sec-Fetch-Site``), or at
    least from which page (``Origin``), and no page can change what it says.

    Args:
        app: The application.
        hosts: Names that requests may be addressed to, besides IP addresses, localhost, this machine's name and that of
            ``public_url``; None, or ``*`` among them: any.
        origins: Origins whose pages may change something, besides the service's own; ``*`` among them: any.
        public_url: The URL at which clients reach the service, if that is known.
    """

    def __init__(
        self, app: ASGIApp, *, hosts: Collection[str] | None, origins: Collection[str], public_url: str | None
    ) -> None:
        self._app = app
        own = urlsplit(public_url or "")
        self._is_known = lru_cache(_REMEMBERED)(self._has_known_name)
        self._names = None if hosts is None or ANY in hosts else {*_own_names(own.hostname), *hosts}
        self._origins = None if ANY in origins else frozenset(origins)
        self._own_authority = own.netloc.rpartition("@")[2].lower()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on or refuses it."""
        if scope["type"] == "http" and (error := self._objection(scope)) is not None:
            await refusal(scope, error)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _objection(self, scope: Scope) -> ServiceError | None:
        if self._names is not None:
            # A trusted proxy is itself addressed by a name, and forwards the one that the client addressed.
            forwarded_or_received = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
            for host in forwarded_or_received + scope["state"].get(RECEIVED_HOSTS, []):
                if not self._is_known(host):
                    _log.warning("host not allowed", host=host[:_LOGGED], setting="ALLOWED_HOSTS")
                    return HostNotAllowed()
        if scope["method"] not in _SAFE and self._origins is not None:
            headers = Headers(scope=scope)
            if not self._may_change(headers):
                _log.warning(
                    "origin not allowed", origin=headers.get("origin", "")[:_LOGGED], setting="ALLOWED_ORIGINS"
                )
                return OriginNotAllowed()
        return None

    def _has_known_name(self, host: str) -> bool:
        match = _HOST.fullmatch(host)
        if match is None or self._names is None:
            return False
        name = match["address"] or match["name"].lower().removesuffix(".")
        return name in self._names or _is_address(name)

    def _may_change(self, headers: Headers) -> bool:
        origins = headers.getlist("origin")
        if origins and self._origins is not None and self._origins.issuperset(map(str.lower, origins)):
            return True
        site = headers.get("sec-fetch-site")
        if site is not None and site not in {"same-origin", "none"}:
            return False
        # Behind a proxy that changes Host without saying so, only the browser knows that the page is the service's.
        return site == "same-origin" or all(self._is_own(origin.lower(), headers) for origin in origins)

    def _is_own(self, origin: str, headers: Headers) -> bool:
        """Whether a page belongs to the service: the scheme is left out, as a proxy need not say that it speaks TLS."""
        scheme, separator, authority = origin.partition("://")
        port = _DEFAULT_PORTS.get(scheme, "")
        addressed = {self._own_authority, *map(str.lower, headers.getlist("host"))} - {""}
        return bool(separator) and authority.removesuffix(port) in {each.removesuffix(port) for each in addressed}


def _own_names(public_name: str | None) -> Iterator[str]:
    """Yields the names that no other site's owner can point to this machine: its own, with and without a domain."""
    machine = socket.gethostname().lower()
    short = machine.partition(".")[0]
    yield from ("localhost", machine, short, f"{short}.local")
    if public_name is not None:
        yield public_name


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
