"""POST requests by HTTP/1.1.

No redirect is followed, no proxy or setting of the environment is used, nothing is kept between requests but idle
connections, and of an answer only its beginning is read.
"""

import asyncio
import ssl
from collections.abc import Mapping
from contextlib import aclosing, suppress
from typing import Final

import httpcore2

from image_service import __version__
from image_service.outbound.addresses import AddressPolicy, Reach
from image_service.outbound.connections import GuardedBackend
from image_service.outbound.resolver import Resolve
from image_service.outbound.urls import Target
from image_service.ports import Answer, OutboundFailed

_BODY_BYTES: Final = 1024
_RETRY_AFTER_CHARACTERS: Final = 64
_IDLE_CONNECTIONS: Final = 20
_IDLE_SECONDS: Final = 3.0
"""Less than servers keep idle connections: Node.js, for one, ends them after 5 s."""
_USER_AGENT: Final = f"image-processing-service/{__version__}"
_REASONS: Final[dict[type[Exception], str]] = {
    TimeoutError: "timed-out",
    httpcore2.NetworkError: "connection-closed",
    httpcore2.ProtocolError: "malformed-answer",
}


class Requests:
    """Sends requests to targets that were checked, and dials only addresses that are."""

    def __init__(self, *, policy: AddressPolicy, resolve: Resolve, tls: ssl.SSLContext, body_timeout: float) -> None:
        self._body_timeout = body_timeout
        self._pools = {
            needs: httpcore2.AsyncConnectionPool(
                ssl_context=tls,
                max_connections=None,  # the caller bounds how many are sent at once
                max_keepalive_connections=_IDLE_CONNECTIONS,
                keepalive_expiry=_IDLE_SECONDS,
                network_backend=GuardedBackend(policy=policy, resolve=resolve, needs=needs),
            )
            for needs in (Reach.PUBLIC, Reach.ALLOWED)
        }

    async def post(self, target: Target, headers: Mapping[str, str], body: bytes, timeout: float) -> Answer:  # noqa: ASYNC109 — see the port
        """Send a request, and return the beginning of its answer.

        Raises:
            OutboundFailed: there was no answer.
        """
        try:
            async with asyncio.timeout(timeout):
                response = await self._pools[target.needs].handle_async_request(_request(target, headers, body))
        except tuple(_REASONS) as error:
            raise OutboundFailed(next(_REASONS[kind] for kind in _REASONS if isinstance(error, kind))) from None
        try:
            return Answer(status=response.status, headers=_kept(response), body=await self._beginning(response))
        finally:
            await response.aclose()

    async def close(self) -> None:
        """Close all connections."""
        for pool in self._pools.values():
            await pool.aclose()

    async def _beginning(self, response: httpcore2.Response) -> bytes:
        """Returns what arrived of the body in time, up to its limit. Only after a whole body the connection is kept."""
        body = bytearray()
        with suppress(OutboundFailed, *_REASONS):
            async with asyncio.timeout(self._body_timeout), aclosing(response.aiter_stream()) as chunks:
                async for chunk in chunks:
                    body += chunk
                    if len(body) > _BODY_BYTES:
                        break
        return bytes(body[:_BODY_BYTES])


def _request(target: Target, headers: Mapping[str, str], body: bytes) -> httpcore2.Request:
    return httpcore2.Request(
        "POST",
        httpcore2.URL(scheme=target.scheme, host=target.host, port=target.port, target=target.path),
        headers=[
            ("Host", target.host_header),
            ("User-Agent", _USER_AGENT),
            ("Accept-Encoding", "identity"),
            ("Content-Length", str(len(body))),
            *headers.items(),
        ],
        content=body,
    )


def _kept(response: httpcore2.Response) -> dict[str, str]:
    for name, value in response.headers:
        if name.lower() == b"retry-after" and len(value) <= _RETRY_AFTER_CHARACTERS:
            return {"retry-after": value.decode("latin-1")}
    return {}
