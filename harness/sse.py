"""A client of event streams that resumes after its last event, as browsers do."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from harness.plain_http import NO_TLS

_ANSWER_SECONDS = 60.0


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

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self.last_id: str | None = None
        """What the client resumes after."""
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
        yield Stream(answer)
