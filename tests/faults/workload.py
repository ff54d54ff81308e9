"""The clients' random workload: upload, retry, read, delete, reprocess."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from uuid import UUID

from tests.faults.client import Abilities, Client
from tests.faults.finding import DONE
from tests.faults.history import OK, Exchange, History, Picture, Sent
from tests.faults.pictures import Pictures, Upload
from tests.faults.recipes import NAMED, outputs_of
from tests.faults.rules import RECOVERY

CLIENTS = 6
PAUSE = (0.05, 0.35)
"""Minimum and maximum seconds between two actions of a client."""
CORRUPT_SHARE = 0.04
RECIPE_SHARE = 0.5
"""Of uploads and of requests for reprocessing: those that name a recipe."""
RECENT, FINISHED = 20, 80
"""How many images ago one was uploaded that is probably still processed, and one that probably is not."""
CONNECTIONS = 10
"""Connections to the database that each API process keeps: as many uploads at a time use all of them."""
WAIT_SHARE, WAIT = 0.25, 5.0
"""Of uploads and status reads: those that ask the service to wait for the end, and for how many seconds."""
NAMED_ENDPOINT_SHARE = 0.15
"""Of uploads: those whose events go to one webhook endpoint only."""
TRIES = 12
"""Tries of an upload under one key before it is given up."""
RETRY_AFTER = (0.2, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """An uploaded image."""

    image_id: str
    upload: Upload | None
    """For repeating the upload; None for poison images, which are too large to keep in memory."""
    sent: Sent
    kept: bool
    """Whether it is never deleted."""


@dataclass(slots=True)
class Workload:
    """All clients. The same seed gives the same choices as far as the responses are the same."""

    seed: int
    urls: dict[str, str]
    history: History
    pictures: Pictures
    abilities: Abilities
    poison_every: float
    """Seconds. Each costs six CPU seconds and 19 MB, so their number is limited."""
    endpoints: list[str] = field(default_factory=list)
    """The ids of webhook endpoints."""
    known: list[Known] = field(default_factory=list)

    async def run(self, stop: asyncio.Event) -> None:
        """Send requests until ``stop`` is set; then finish the current ones."""
        async with asyncio.TaskGroup() as clients:
            for number in range(CLIENTS):
                clients.create_task(self._client(number, stop))
            clients.create_task(self._poisoner(stop))

    async def upload_until_accepted(self) -> None:
        """After the faults, upload to every API process until all is accepted; the last time after ``RECOVERY``."""
        user = _User(self, random.Random(f"{self.seed}-recovery"), asyncio.Event())
        began = time.monotonic()
        last = False
        while not last:
            last = time.monotonic() - began > RECOVERY
            uploads = [self.pictures.valid(user.rng) for _ in range(CONNECTIONS)]
            exchanges = await asyncio.gather(
                *(
                    user.client.upload(server, upload.content, Sent.of(upload.content, upload.picture))
                    for server in self.urls
                    for upload in uploads
                )
            )
            last = last or all(exchange.outcome == OK for exchange in exchanges)
            if not last:
                await asyncio.sleep(1.0)
        await user.client.close()

    async def _client(self, number: int, stop: asyncio.Event) -> None:
        user = _User(self, random.Random(f"{self.seed}-client-{number}"), stop)
        while not stop.is_set():
            await user.act()
            await _pause(stop, user.rng.uniform(*PAUSE))
        await user.client.close()

    async def _poisoner(self, stop: asyncio.Event) -> None:
        user = _User(self, random.Random(f"{self.seed}-poison"), stop)
        while not stop.is_set():
            await user.upload(self.pictures.poison(user.rng))
            await _pause(stop, self.poison_every)
        await user.client.close()


class _User:
    """One client that acts at random."""

    def __init__(self, workload: Workload, rng: random.Random, stop: asyncio.Event) -> None:
        self.rng = rng
        self.client = Client(workload.urls, workload.history)
        self._workload = workload
        self._stop = stop
        self._actions: dict[Callable[[], Awaitable[object]], int] = {
            self._upload: 60,
            self._read: 25,
            self._follow: 10,
        }
        if workload.abilities.keys:
            self._actions |= {self._race: 4, self._repeat: 4, self._reuse_key: 3}
        if workload.abilities.delete:
            self._actions[self._delete] = 5
        if workload.abilities.reprocess:
            self._actions[self._reprocess] = 5

    async def act(self) -> None:
        (action,) = self.rng.choices([*self._actions], [*self._actions.values()])
        await action()

    async def upload(self, upload: Upload) -> Known | None:
        """Upload a file; with idempotency keys, retry until the outcome is known."""
        keys = self._workload.abilities.keys
        sent = self._sent(upload, self._key() if keys else None)
        for _ in range(TRIES if keys else 1):
            answer = await self.client.upload(self._server(), upload.content, sent, self._wait())
            if answer.outcome == OK and answer.image_id is not None:
                remembered = upload if upload.picture is not Picture.POISON else None
                known = Known(answer.image_id, remembered, sent, kept=self.rng.random() < 0.5)
                self._workload.known.append(known)
                return known
            if not (answer.in_doubt or answer.status_code in {429, 507}) or self._stop.is_set():
                return None
            await _pause(self._stop, self.rng.uniform(*RETRY_AFTER))
        return None

    def _sent(self, upload: Upload, key: str | None) -> Sent:
        sent = Sent.of(upload.content, upload.picture, key, self._recipe())
        if self._workload.endpoints and self.rng.random() < NAMED_ENDPOINT_SHARE:
            endpoint = self.rng.choice(self._workload.endpoints)
            return replace(sent, webhook_id=endpoint, metadata=f"ä {sent.sha256[:8]}")
        return sent

    def _wait(self) -> float:
        """Choose the seconds that the service is to wait; none in most cases."""
        return WAIT if self.rng.random() < WAIT_SHARE else 0

    def _key(self) -> str:
        return str(UUID(int=self.rng.getrandbits(128)))

    def _recipe(self) -> str | None:
        """Choose a recipe; None names none."""
        named = self.rng.random() < RECIPE_SHARE and self._workload.abilities.recipes
        return self.rng.choice(NAMED) if named else None

    def _server(self) -> str:
        return self.rng.choice([*self._workload.urls])

    def _any(self, condition: Callable[[Known], bool] = lambda _: True, near: float = RECENT) -> Known | None:
        """Choose an image, preferably a recent one: on average the one uploaded ``near`` images ago."""
        known = [each for each in self._workload.known[-200:] if condition(each)]
        back = int(self.rng.expovariate(1 / near))
        return known[-1 - back % len(known)] if known else None

    async def _upload(self) -> None:
        corrupt = self.rng.random() < CORRUPT_SHARE
        pictures = self._workload.pictures
        await self.upload(pictures.corrupt(self.rng) if corrupt else pictures.valid(self.rng))

    async def _read(self) -> None:
        """Read an image's status and download one of its files."""
        if known := self._any():
            answer = await self.client.status(self._server(), known.image_id, self._wait())
            if answer.seen is None:
                return
            if answer.seen.state == DONE and self.rng.random() < 0.7:
                await self.client.thumbnail(
                    self._server(), known.image_id, self.rng.choice([*outputs_of(known.sent.recipe)])
                )
            else:
                await self.client.original(self._server(), known.image_id)

    async def _follow(self) -> None:
        """Upload, and read the status several times."""
        if known := await self.upload(self._workload.pictures.valid(self.rng)):
            for _ in range(4):
                await self.client.status(self._server(), known.image_id)

    async def _repeat(self) -> None:
        """Repeat an upload under the same key, as after a lost response."""
        known = self._any(lambda each: each.kept and each.upload is not None)
        if known and known.upload:
            await self.client.upload(self._server(), known.upload.content, known.sent)

    async def _race(self) -> None:
        """Upload the same file under the same key to all servers concurrently."""
        upload = self._workload.pictures.valid(self.rng)
        sent = Sent.of(upload.content, upload.picture, self._key(), self._recipe())
        await asyncio.gather(*(self.client.upload(server, upload.content, sent) for server in self._workload.urls))

    async def _reuse_key(self) -> None:
        """Upload another file under a used key."""
        if known := self._any(lambda each: each.kept):
            upload = self._workload.pictures.valid(self.rng)
            sent = Sent.of(upload.content, upload.picture, known.sent.key, self._recipe())
            await self.client.upload(self._server(), upload.content, sent)

    async def _delete(self) -> None:
        if known := self._any(lambda each: not each.kept):
            self._workload.known.remove(known)
            await self._retry(lambda: self.client.delete(self._server(), known.image_id))
            await self.client.status(self._server(), known.image_id)

    async def _reprocess(self) -> None:
        if known := self._any(lambda each: each.sent.picture is not Picture.POISON, near=FINISHED):
            await self.client.reprocess(self._server(), known.image_id, self._recipe())
            await self.client.status(self._server(), known.image_id)

    async def _retry(self, ask: Callable[[], Awaitable[Exchange]]) -> None:
        for _ in range(TRIES):
            if not (await ask()).in_doubt or self._stop.is_set():
                return
            await _pause(self._stop, self.rng.uniform(*RETRY_AFTER))


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    """Sleep, or return early when ``stop`` is set."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return
