"""Connections that lead only to addresses that were checked.

The address that is dialled is the one that was checked, at every connection, so that a name which resolves to another
address the next time (DNS rebinding) changes nothing. Host, SNI and the certificate's check keep the name.
"""

import asyncio
import ssl
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from typing import Any, Final

import httpcore2

from image_service.outbound.addresses import Address, AddressPolicy, Reach
from image_service.outbound.resolver import Resolve
from image_service.outbound.urls import reaches
from image_service.ports import OutboundFailed

_MAX_TRIES: Final = 4
"""Addresses of a name that are dialled, one after another."""
_TRY_SECONDS: Final = 5.0
"""For each of them but the last."""
_READ_BYTES: Final = 8 * 1024
MAX_ANSWER_BYTES: Final = 64 * 1024
"""Read of an answer: its headers, and a bit of its body."""


class GuardedBackend(httpcore2.AsyncNetworkBackend):
    """Looks up, checks and dials, for connections that need addresses of a kind at least."""

    def __init__(
        self,
        *,
        policy: AddressPolicy,
        resolve: Resolve,
        needs: Reach,
        tcp: httpcore2.AsyncNetworkBackend | None = None,
    ) -> None:
        self._policy = policy
        self._resolve = resolve
        self._needs = needs
        self._tcp = tcp or httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 — the interface's; the whole request has a limit
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to the first address of the host that answers, if all of its addresses may be sent to.

        Raises:
            OutboundFailed: there is none, or one must not be sent to.
        """
        _ = timeout, local_address, socket_options
        addresses = await self._addresses(host)
        if not all(reaches(self._policy.reach(address), self._needs) for address in addresses):
            raise OutboundFailed("address-not-allowed")
        *others, last = addresses[:_MAX_TRIES]
        for address in others:
            try:
                async with asyncio.timeout(_TRY_SECONDS):
                    return await self._dial(address, port)
            except (TimeoutError, OutboundFailed):
                continue
        return await self._dial(last, port)

    async def _addresses(self, host: str) -> Sequence[Address]:
        try:
            return (ip_address(host),)
        except ValueError:
            return await self._resolve(host)

    async def _dial(self, address: Address, port: int) -> httpcore2.AsyncNetworkStream:
        try:
            return _Stream(await self._tcp.connect_tcp(str(address), port))
        except httpcore2.ConnectError:
            raise OutboundFailed("connect-failed") from None


class _Stream(httpcore2.AsyncNetworkStream):
    """Bounds what is read of an answer, and tells failures of TLS from others."""

    def __init__(self, stream: httpcore2.AsyncNetworkStream) -> None:
        self._stream = stream
        self._received = 0

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 — the interface's
        data = await self._stream.read(min(max_bytes, _READ_BYTES), timeout)
        if not data and not self._received:
            raise OutboundFailed("connection-closed")
        self._received += len(data)
        if self._received > MAX_ANSWER_BYTES:
            raise OutboundFailed("answer-too-large")
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 — the interface's
        self._received = 0  # the next answer begins
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 — the interface's
    ) -> httpcore2.AsyncNetworkStream:
        try:
            return _Stream(await self._stream.start_tls(ssl_context, server_hostname, timeout))
        except (httpcore2.NetworkError, OSError, ValueError) as error:
            await self.aclose()
            invalid = isinstance(error.__cause__, ssl.SSLCertVerificationError)
            raise OutboundFailed("certificate-invalid" if invalid else "tls-failed") from None
        except BaseException:  # the time is over, which the library leaves the connection open at
            await self.aclose()
            raise

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 — the interface's
        return self._stream.get_extra_info(info)
