"""What clients do all the time: upload, try again, ask, look, delete."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from uuid import UUID

from tests.faults.client import Abilities, Client
from tests.faults.history import OK, Exchange, History, Picture, Sent
from tests.faults.pictures import Pictures, Upload
from tests.faults.rules import DONE, PRESETS

CLIENTS = 6
PAUSE = (0.05, 0.35)
"""Seconds between two things that a client does, at least and at most."""
CORRUPT_SHARE = 0.04
TRIES = 12
"""How often an upload is repeated under its key before it is given up."""
TRY_AGAIN_AFTER = (0.2, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """An image that somebody has uploaded."""

    image_id: str
    upload: Upload | None
    """What can be uploaded once more; the poison is too large to be remembered."""
    sent: Sent
    kept: bool
    """Whether nobody deletes it."""


@dataclass(slots=True)
class Workload:
    """All clients. The same seed makes the same choices, as far as the answers allow."""

    seed: int
    urls: dict[str, str]
    history: History
    pictures: Pictures
    abilities: Abilities
    poison_every: float
    """Seconds. Each costs six seconds of one core and 19 MB, so there cannot be many."""
    known: list[Known] = field(default_factory=list)

    async def run(self, stop: asyncio.Event) -> None:
        """Do things until ``stop`` is set; then end with the request that is under way."""
        async with asyncio.TaskGroup() as clients:
            for number in range(CLIENTS):
                clients.create_task(self._client(number, stop))
            clients.create_task(self._poisoner(stop))

    async def _client(self, number: int, stop: asyncio.Event) -> None:
        person = _User(self, random.Random(f"{self.seed}-client-{number}"), stop)
        while not stop.is_set():
            await person.do_something()
            await _pause(stop, person.chance.uniform(*PAUSE))
        await person.client.close()

    async def _poisoner(self, stop: asyncio.Event) -> None:
        person = _User(self, random.Random(f"{self.seed}-poison"), stop)
        while not stop.is_set():
            await person.upload(self.pictures.poison(person.chance))
            await _pause(stop, self.poison_every)
        await person.client.close()


class _User:
    """One client, with a will of its own."""

    def __init__(self, workload: Workload, chance: random.Random, stop: asyncio.Event) -> None:
        self.chance = chance
        self.client = Client(workload.urls, workload.history)
        self._workload = workload
        self._stop = stop
        self._habits: dict[Callable[[], Awaitable[object]], int] = {
            self._upload: 60,
            self._look: 25,
            self._follow: 10,
        }
        if workload.abilities.keys:
            self._habits |= {self._race: 4, self._repeat: 4, self._reuse_key: 3}
        if workload.abilities.delete:
            self._habits[self._delete] = 5
        if workload.abilities.reprocess:
            self._habits[self._reprocess] = 5

    async def do_something(self) -> None:
        (habit,) = self.chance.choices([*self._habits], [*self._habits.values()])
        await habit()

    async def upload(self, upload: Upload) -> Known | None:
        """Send a file; if the service knows keys, again and again until it is known what became of it."""
        keys = self._workload.abilities.keys
        sent = Sent.of(upload.content, upload.picture, self._key() if keys else None)
        for _ in range(TRIES if keys else 1):
            answer = await self.client.upload(self._server(), upload.content, sent)
            if answer.outcome == OK and answer.image_id is not None:
                remembered = upload if upload.picture is not Picture.POISON else None
                known = Known(answer.image_id, remembered, sent, kept=self.chance.random() < 0.5)
                self._workload.known.append(known)
                return known
            if not (answer.in_doubt or answer.status_code in {429, 507}) or self._stop.is_set():
                return None
            await _pause(self._stop, self.chance.uniform(*TRY_AGAIN_AFTER))
        return None

    def _key(self) -> str:
        return str(UUID(int=self.chance.getrandbits(128)))

    def _server(self) -> str:
        return self.chance.choice([*self._workload.urls])

    def _any(self, condition: Callable[[Known], bool] = lambda _: True) -> Known | None:
        """An image, and rather a new one."""
        known = [each for each in self._workload.known[-200:] if condition(each)]
        back = int(self.chance.expovariate(1 / 20))
        return known[-1 - back % len(known)] if known else None

    async def _upload(self) -> None:
        corrupt = self.chance.random() < CORRUPT_SHARE
        pictures = self._workload.pictures
        await self.upload(pictures.corrupt(self.chance) if corrupt else pictures.valid(self.chance))

    async def _look(self) -> None:
        """Ask for an image's status, and download one of its files."""
        if known := self._any():
            answer = await self.client.status(self._server(), known.image_id)
            if answer.seen is None:
                return
            if answer.seen.state == DONE and self.chance.random() < 0.7:
                await self.client.thumbnail(self._server(), known.image_id, self.chance.choice([*PRESETS]))
            else:
                await self.client.original(self._server(), known.image_id)

    async def _follow(self) -> None:
        """Upload, and ask until something changes."""
        if known := await self.upload(self._workload.pictures.valid(self.chance)):
            for _ in range(4):
                await self.client.status(self._server(), known.image_id)

    async def _repeat(self) -> None:
        """Upload once more under the same key, as after an answer that got lost."""
        known = self._any(lambda each: each.kept and each.upload is not None)
        if known and known.upload:
            await self.client.upload(self._server(), known.upload.content, known.sent)

    async def _race(self) -> None:
        """Upload the same under the same key to all servers at once."""
        upload = self._workload.pictures.valid(self.chance)
        sent = Sent.of(upload.content, upload.picture, self._key())
        await asyncio.gather(*(self.client.upload(server, upload.content, sent) for server in self._workload.urls))

    async def _reuse_key(self) -> None:
        """Upload something else under a key that is taken."""
        if known := self._any(lambda each: each.kept):
            upload = self._workload.pictures.valid(self.chance)
            sent = Sent.of(upload.content, upload.picture, known.sent.key)
            await self.client.upload(self._server(), upload.content, sent)

    async def _delete(self) -> None:
        if known := self._any(lambda each: not each.kept):
            self._workload.known.remove(known)
            await self._insist(lambda: self.client.delete(self._server(), known.image_id))
            await self.client.status(self._server(), known.image_id)

    async def _reprocess(self) -> None:
        if known := self._any(lambda each: each.sent.picture is not Picture.POISON):
            await self.client.reprocess(self._server(), known.image_id)
            await self.client.status(self._server(), known.image_id)

    async def _insist(self, ask: Callable[[], Awaitable[Exchange]]) -> None:
        for _ in range(TRIES):
            if not (await ask()).in_doubt or self._stop.is_set():
                return
            await _pause(self._stop, self.chance.uniform(*TRY_AGAIN_AFTER))


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    """Wait, but not beyond the end."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return
