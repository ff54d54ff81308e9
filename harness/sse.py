"""A client of event streams that resumes after its last event, as browsers do."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import httpx

from harness.plain_http import NO_TLS

_ANSWER_SECONDS = 60.0
_FIRST_LINES = 3
"""Of a stream, that say where to resume."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """One block of a stream: an event, or only an id, a time or a comment."""

    id: str | None = None
    event: str | None = None
    data: str | None = None
    retry: str | None = None

    @property
    def json(self) -> dict[str, Any]:
        assert self.data is not None
        content: dict[str, Any] = json.loads(self.data)
        return content


class Stream:
    """An open stream."""

    def __init__(self, answer: httpx.Response, last_id: str | None = None) -> None:
        self.answer = answer
        self.last_id = last_id
        """What the client resumes after."""
        self.lines_left: int | None = None
        """Lines after which the client reads no more, although it may be within an event; None: no limit."""
        self._blocks = self._read()

    async def block(self) -> Block | None:
        """Return the next block, whatever is in it; None at the end of the stream."""
        async with asyncio.timeout(_ANSWER_SECONDS):
            return await anext(self._blocks, None)

    async def event(self) -> Block:
        """Return the next block that is an event."""
        while block := await self.block():
            if block.data is not None:
                return block
        raise EOFError

    async def rest(self) -> list[Block]:
        """Return the events until the end of the stream."""
        found = []
        while block := await self.block():
            found += [block] if block.data is not None else []
        return found

    async def _read(self) -> AsyncIterator[Block]:
        fields: dict[str, str] = {}
        async for line in self.answer.aiter_lines():
            if self.lines_left is not None:
                self.lines_left -= 1
                if self.lines_left < 0:
                    return
            if not line:
                self.last_id = fields.get("id", self.last_id)
                yield Block(**fields)
                fields = {}
            elif not line.startswith(":"):
                name, _, value = line.partition(":")
                assert name not in fields, "every field, the data as well, is in one line"
                fields[name] = value.removeprefix(" ")
        assert not fields, "the stream ended within an event"


@asynccontextmanager
async def stream(url: str, last_id: str | None = None, **headers: str) -> AsyncIterator[Stream]:
    """Open a stream for the duration of the block; then its connection is cut.

    Args:
        url: Of the stream.
        last_id: Where to resume.
        headers: Additional ones.
    """
    headers = {"Accept": "text/event-stream", **headers}
    headers |= {} if last_id is None else {"Last-Event-ID": last_id}
    limits = httpx.Timeout(_ANSWER_SECONDS)
    async with (
        httpx.AsyncClient(timeout=limits, trust_env=False, verify=NO_TLS) as client,
        client.stream("GET", url, headers=headers) as answer,
    ):
        yield Stream(answer, last_id)


@dataclass(kw_only=True)
class Follower:
    """A client whose connection is cut again and again, at random, often within an event."""

    urls: Sequence[str]
    """Of the stream at each replica: each connection is to one of them, at random."""
    cuts: int
    """Connections that are cut; the next one stays."""
    lines: int
    """The most lines of a connection that is cut."""
    seed: int = 0
    events: list[Block] = field(default_factory=list)
    connections: int = 0
    lost: int = 0
    """Connections that failed, or that the server ended."""
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the client can resume: it must miss nothing from then on."""

    async def follow(self, number: int) -> None:
        """Collect events until there are so many different ones."""
        chance = random.Random(self.seed)  # noqa: S311 — repeatable
        last_id, cuts = None, self.cuts
        seen = set[str | None]()
        while len(seen) < number:
            try:
                async with stream(chance.choice(self.urls), last_id) as opened:
                    opened.answer.raise_for_status()
                    self.connections += 1
                    opened.lines_left = chance.randint(_FIRST_LINES, self.lines) if cuts else None
                    try:
                        while len(seen) < number and (block := await opened.block()):
                            self.begun.set()
                            if block.data is not None:
                                self.events.append(block)
                                seen.add(block.id)
                    finally:
                        last_id = opened.last_id
                if opened.lines_left is not None:
                    cuts -= 1
                else:
                    self.lost += 1
            except httpx.HTTPError:
                self.lost += 1
                await asyncio.sleep(0.05)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What a client has received, beside what the log of events has."""

    gaps: int
    """Events that it did not receive."""
    repeats: int
    """Events that it received again."""
    disorder: int
    """Images of which it received the events in another order."""

    @classmethod
    def of(cls, received: Sequence[Block], logged: Sequence[dict[str, Any]]) -> Self:
        """Compare them."""
        ids, wanted = [block.id for block in received], [event["id"] for event in logged]
        orders = [_by_image((block.id, block.json) for block in received), _by_image((e["id"], e) for e in logged)]
        return cls(
            gaps=len(set(wanted) - set(ids)),
            repeats=len(ids) - len(set(ids)),
            disorder=sum(orders[0].get(image) != order for image, order in orders[1].items()),
        )


def _by_image(events: Iterable[tuple[str | None, dict[str, Any]]]) -> dict[str, list[str | None]]:
    found: dict[str, list[str | None]] = {}
    for name, event in events:
        found.setdefault(event["data"]["id"], []).append(name)
    return found


async def logged(api: httpx.AsyncClient) -> list[dict[str, Any]]:
    """Return all events that are kept, from JSON pages."""
    found: list[dict[str, Any]] = []
    url = "/events?limit=200"
    while True:
        answer = await api.get(url)
        answer.raise_for_status()
        page = answer.json()
        if not page["events"]:
            return found
        found += page["events"]
        url = page["next"]
