"""Looks up host names in threads of its own.

The event loop's own threads are few, and others need them: a name server that does not answer would occupy them. A
look-up cannot be cancelled: its thread goes on after its waiter has given up. It does not keep the process from ending.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from ipaddress import ip_address
from threading import Thread
from typing import Final

from image_service.outbound.addresses import Address
from image_service.ports import OutboundFailed

Resolve = Callable[[str], Awaitable[Sequence[Address]]]
"""Returns the addresses of a host name, in the order in which to try them; raises OutboundFailed if there are none."""

LookUp = Callable[[str], Sequence[Address]]
"""The same, but blocking."""

MAX_LOOKUPS: Final = 64
_NO_SUCH_NAME: Final = frozenset({socket.EAI_NONAME, socket.EAI_NODATA})


class Resolver:
    """Looks up names as the system does, ``limit`` at the same time; further ones wait."""

    def __init__(self, *, look_up: LookUp | None = None, limit: int = MAX_LOOKUPS) -> None:
        self._look_up = look_up or _look_up
        self._free = asyncio.Semaphore(limit)

    async def __call__(self, host: str) -> Sequence[Address]:
        """Return a host's addresses.

        Raises:
            OutboundFailed: there are none, or the name server does not answer.
        """
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        found: asyncio.Future[Sequence[Address]] = loop.create_future()

        def end(addresses: Sequence[Address], error: Exception | None) -> None:
            self._free.release()
            if found.done():  # its waiter has given up
                return
            if error is None:
                found.set_result(addresses)
            else:
                found.set_exception(error)

        def work() -> None:
            addresses: Sequence[Address] = ()
            error: Exception | None = None
            try:
                addresses = self._look_up(host)
            except Exception as raised:  # noqa: BLE001 — whatever it is belongs to the waiter
                error = raised
            with suppress(RuntimeError):  # at the end of the process the loop may be closed
                loop.call_soon_threadsafe(end, addresses, error)

        try:
            Thread(target=work, name="look-up", daemon=True).start()
        except RuntimeError:  # the system allows no more threads
            self._free.release()
            raise OutboundFailed("name-lookup-failed") from None
        return await found


def _look_up(host: str) -> Sequence[Address]:
    try:
        entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        no_such_name = isinstance(error, socket.gaierror) and error.errno in _NO_SUCH_NAME
        raise OutboundFailed("name-not-found" if no_such_name else "name-lookup-failed") from None
    return tuple(dict.fromkeys(ip_address(entry[4][0]) for entry in entries))
