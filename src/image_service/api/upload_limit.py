"""Limits how many uploads are received at the same time, and how slowly.

An upload has a number of seconds *in hand* for which the service goes on waiting for its bytes. Waiting uses them up;
each byte that arrives earns ``1 / min_rate`` of one, but never more than the upload began with. So a rate below the
least one ends an upload, while a pause in one that is otherwise fast does no harm, and bytes sent fast at first do not
pay for slow ones later. Silence ends it sooner. Only waiting counts: a slow disk is not the client's fault.

An upload takes one of the slots only when its first bytes have arrived: as many as a slow one would need seconds for.
So a client that sends next to nothing holds no slot, however often it connects again.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Final

from image_service.api.networks import network_of
from image_service.errors import TooManyUploads, UploadDisplaced, UploadStalled

_ALLOWANCE: Final = 2
"""What an upload may be behind the least rate, in idle timeouts: short pauses in a small upload must not end it."""
_LATE: Final = 2.0
"""Seconds that an upload may be behind the least rate without having to give its slot to another."""
_FIRST: Final = 16 * 1024
"""Bytes of an upload that are received before it takes a slot; at the least rate they need longer than ``_LATE``."""
_MAX_WITHOUT_SLOT: Final = 1024
"""Uploads that have not taken a slot yet: together they hold 16 MB at most."""


class Upload:
    """One upload: where it comes from, and how long its bytes are still waited for.

    Args:
        network: Where it comes from; see ``network_of``.
        idle_timeout: Seconds without a byte after which it ends.
        min_rate: Bytes that earn one second.
        first: Bytes after which it takes a slot; a smaller one takes it when it is complete.
        take_slot: Called then; may raise TooManyUploads.
    """

    def __init__(
        self,
        network: str,
        *,
        idle_timeout: float,
        min_rate: float,
        first: int = _FIRST,
        take_slot: Callable[["Upload"], None],
    ) -> None:
        self.network = network
        self._idle_timeout = idle_timeout
        self._min_rate = min_rate
        self._first = first
        self._take_slot: Callable[[Upload], None] | None = take_slot
        self._in_hand = self._allowance = _ALLOWANCE * idle_timeout
        self._received = 0
        self._waits_since = 0.0
        self._wait: asyncio.Timeout | None = None
        self._displaced = False

    async def receive(self, chunks: AsyncIterator[bytes]) -> bytes | None:
        """Returns the next bytes of the upload's body, or None at its end.

        Raises:
            UploadStalled: there was silence for too long, or no second is in hand any more.
            UploadDisplaced: it gave way to another upload.
            TooManyUploads: it would take a slot now, but all are in use, and no upload gives way.
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
            self._received += len(chunk)
        if chunk is None or self._received >= self._first:
            self.take_slot()
        return chunk

    def take_slot(self) -> None:
        """Take a slot, unless it has one.

        Raises:
            TooManyUploads: all slots are in use, and no upload gives way.
        """
        if self._take_slot is not None:
            self._take_slot(self)
            self._take_slot = None

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


class _Places:
    """A limited number of places for uploads, where one gives way to the next.

    Args:
        limit: The number of places.
        late: Seconds behind the least rate from which an upload gives way.
    """

    def __init__(self, limit: int, late: float) -> None:
        self._limit = limit
        self._late = late
        self._uploads: dict[Upload, None] = {}
        """The oldest first."""

    def __len__(self) -> int:
        return len(self._uploads)

    def check(self, network: str) -> None:
        """Check that an upload from a network would get a place now.

        Raises:
            TooManyUploads: all places are in use, and no upload gives way.
        """
        if len(self._uploads) >= self._limit:
            self._to_displace(network)

    def add(self, upload: Upload) -> None:
        """Give it a place, if necessary the one of another.

        Raises:
            TooManyUploads: all places are in use, and no upload gives way.
        """
        if len(self._uploads) >= self._limit:
            chosen = self._to_displace(upload.network)
            self.remove(chosen)
            chosen.displace()
        self._uploads[upload] = None

    def remove(self, upload: Upload) -> None:
        """Free its place, if it has one."""
        self._uploads.pop(upload, None)

    def _to_displace(self, network: str) -> Upload:
        """Return the upload that gives way to one from a network."""
        now = asyncio.get_running_loop().time()
        held = Counter(upload.network for upload in self._uploads)
        waiting = [upload for upload in self._uploads if upload.waits]
        if late := [upload for upload in waiting if upload.behind(now) > self._late]:
            return max(late, key=lambda upload: (held[upload.network], upload.behind(now)))
        share = max(1, self._limit // 2)
        if held[network] < share and (beyond := [upload for upload in waiting if held[upload.network] > share]):
            return beyond[-1]
        raise TooManyUploads


class UploadLimit:
    """The uploads in progress. Those with a slot hold a buffer, a file and sometimes a database connection.

    When all slots are in use, the next upload is not simply refused: one that is late gives way to it. Of several that
    one gives way which comes from the network that holds most slots, and is the latest. If none is late, a network that
    holds more than half of the slots gives the one of its newest upload to a network that holds less. Where all clients
    have one address, as behind a proxy that is not in TRUSTED_PROXIES, only lateness counts.

    Uploads without a slot are limited in the same way, but for them every second counts as late: there is always one
    that gives way, so that a new one gets its chance to send its first bytes.

    Args:
        limit: The number of slots.
        idle_timeout: See ``Upload``.
        min_rate: See ``Upload``.
        late: Seconds behind the least rate from which an upload gives its slot to another.
        first: See ``Upload``.
        max_without_slot: Uploads that have not taken a slot yet.
    """

    def __init__(
        self,
        limit: int,
        *,
        idle_timeout: float,
        min_rate: float,
        late: float = _LATE,
        first: int = _FIRST,
        max_without_slot: int = _MAX_WITHOUT_SLOT,
    ) -> None:
        self._idle_timeout = idle_timeout
        self._min_rate = min_rate
        self._first = first
        self._without_slot = _Places(max_without_slot, late=0)
        self._slots = _Places(limit, late)

    @property
    def in_use(self) -> int:
        """How many slots are in use."""
        return len(self._slots)

    @contextmanager
    def upload(self, client: str = "") -> Iterator[Upload]:
        """Counts one upload for the duration of the block; it takes its slot while it is received.

        Args:
            client: The client's address.

        Raises:
            TooManyUploads: it would get no slot now, or too many uploads have none yet, and none gives way.
        """
        network = network_of(client)
        self._slots.check(network)
        upload = Upload(
            network,
            idle_timeout=self._idle_timeout,
            min_rate=self._min_rate,
            first=self._first,
            take_slot=self._take_slot,
        )
        self._without_slot.add(upload)
        try:
            yield upload
        finally:
            self._without_slot.remove(upload)
            self._slots.remove(upload)

    def _take_slot(self, upload: Upload) -> None:
        self._slots.add(upload)
        self._without_slot.remove(upload)
