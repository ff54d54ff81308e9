"""Limits how many uploads are received at the same time, and how slowly.

An upload has a number of seconds *in hand* for which the service goes on waiting for its bytes. Waiting uses them up;
each byte that arrives earns ``1 / min_rate`` of one, but never more than the upload began with. So a rate below the
least one ends an upload, while a pause in one that is otherwise fast does no harm, and bytes sent fast at first do not
pay for slow ones later. Silence ends it sooner. Only waiting counts: a slow disk is not the client's fault.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv6Address
from typing import Final

from image_service.errors import TooManyUploads, UploadDisplaced, UploadStalled

_ALLOWANCE: Final = 2
"""What an upload may be behind the least rate, in idle timeouts: short pauses in a small upload must not end it."""
_LATE: Final = 2.0
"""Seconds that an upload may be behind the least rate without having to give way to another."""


class UploadSlot:
    """The place of one upload among those in progress, and how long it is still waited for.

    Args:
        network: Where it comes from; see ``_network``.
        idle_timeout: Seconds without a byte after which it ends.
        min_rate: Bytes that earn one second.
    """

    def __init__(self, network: str, *, idle_timeout: float, min_rate: float) -> None:
        self.network = network
        self._idle_timeout = idle_timeout
        self._min_rate = min_rate
        self._in_hand = self._allowance = _ALLOWANCE * idle_timeout
        self._waits_since = 0.0
        self._wait: asyncio.Timeout | None = None
        self._displaced = False

    async def receive(self, chunks: AsyncIterator[bytes]) -> bytes | None:
        """Returns the next bytes of the upload's body, or None at its end.

        Raises:
            UploadStalled: there was silence for too long, or no second is in hand any more.
            UploadDisplaced: it gave way to another upload.
        """
        clock = asyncio.get_running_loop().time
        self._waits_since = clock()
        try:
            async with asyncio.timeout_at(self._waits_since + min(self._idle_timeout, self._in_hand)) as self._wait:
                chunk = await anext(chunks, None)
        except TimeoutError:
            raise (UploadDisplaced if self._displaced else UploadStalled) from None
        finally:
            self._wait = None
        if self._displaced:  # the bytes arrived in the same moment, but the slot has another upload already
            raise UploadDisplaced
        if chunk is not None:
            left = self._in_hand - (clock() - self._waits_since)
            self._in_hand = min(self._allowance, left + len(chunk) / self._min_rate)
        return chunk

    @property
    def waits(self) -> bool:
        """Whether the service waits for bytes of it at the moment."""
        return self._wait is not None and not self._wait.expired()

    def behind(self, now: float) -> float:
        """Seconds that it is behind the least rate, while it ``waits``; ``now`` is the event loop's time."""
        return self._allowance - self._in_hand + now - self._waits_since

    def displace(self) -> None:
        """End it, while the service waits for its bytes."""
        self._displaced = True
        if self._wait is not None:
            self._wait.reschedule(asyncio.get_running_loop().time())


class UploadLimit:
    """The uploads in progress: each holds a buffer, a file and sometimes a database connection.

    When all slots are in use, the next upload is not simply refused: one that is late gives way to it. Of several that
    one gives way which comes from the network that holds most slots, and is the latest. If none is late, a network that
    holds more than half of the slots gives the one of its newest upload to a network that holds less. Where all clients
    have one address, as behind a proxy that is not in TRUSTED_PROXIES, only lateness counts.

    Args:
        limit: The number of slots.
        idle_timeout: See ``UploadSlot``.
        min_rate: See ``UploadSlot``.
        late: Seconds behind the least rate from which an upload gives way.
    """

    def __init__(self, limit: int, *, idle_timeout: float, min_rate: float, late: float = _LATE) -> None:
        self._limit = limit
        self._late = late
        self._idle_timeout = idle_timeout
        self._min_rate = min_rate
        self._slots: dict[UploadSlot, None] = {}
        """The slots in use, the oldest first."""

    @contextmanager
    def slot(self, client: str = "") -> Iterator[UploadSlot]:
        """Occupies one slot for the duration of the block.

        Args:
            client: The client's address.

        Raises:
            TooManyUploads: all slots are in use, and no upload gives way.
        """
        network = _network(client)
        if len(self._slots) >= self._limit:
            self._make_room(network)
        slot = UploadSlot(network, idle_timeout=self._idle_timeout, min_rate=self._min_rate)
        self._slots[slot] = None
        try:
            yield slot
        finally:
            self._slots.pop(slot, None)  # a displaced one has none any more

    def _make_room(self, network: str) -> None:
        now = asyncio.get_running_loop().time()
        held = Counter(slot.network for slot in self._slots)
        waiting = [slot for slot in self._slots if slot.waits]
        late = [slot for slot in waiting if slot.behind(now) > self._late]
        share = max(1, self._limit // 2)
        if late:
            chosen = max(late, key=lambda slot: (held[slot.network], slot.behind(now)))
        elif held[network] < share and (beyond := [slot for slot in waiting if held[slot.network] > share]):
            chosen = beyond[-1]
        else:
            raise TooManyUploads
        del self._slots[chosen]
        chosen.displace()


def _network(client: str) -> str:
    """Returns what one client can be assumed to have: an IPv4 address, or the first 64 bits of an IPv6 address."""
    if ":" in client:
        with suppress(ValueError):
            address = IPv6Address(client)
            return str(address.ipv4_mapped or int(address) >> 64)
    return client
