"""Receivers of events: event streams that are cut at random, pages, webhook endpoints that fail, a bound queue.

They record what they get in the history. Independent of the service's code: they speak HTTP, SSE, Standard Webhooks and
AMQP themselves.
"""

import asyncio
import hashlib
import hmac
import json
import random
import time
from abc import ABC, abstractmethod
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from enum import StrEnum
from typing import Any, Final

import aio_pika
import httpx
from aio_pika.exceptions import AMQPError, ChannelNotFoundEntity

from harness.broker import CONNECT_LIMIT
from harness.plain_http import NO_TLS
from tests.faults.event_rules import BOUND, RESET
from tests.faults.history import History, Received, Receiver, Way

EXCHANGE: Final = "image.events"
CUTS: Final = (0.3, 4.0)
"""Minimum and maximum seconds after which a reader cuts its own connection."""
PAUSE: Final = (0.0, 0.5)
"""Between two connections, or two pages."""
FAILURE: Final = (1.0, 4.0)
"""Minimum and maximum seconds for which an endpoint answers in one way."""
HANGS: Final = 30.0
"""Longer than any sender waits."""
_PAGE: Final = 50
_LIMIT: Final = 20.0
_MOST: Final = 1 << 20


class Answer(StrEnum):
    """How an endpoint answers."""

    ACCEPTS = "accepts"
    FAILS = "fails"
    """500."""
    THROTTLES = "throttles"
    """429 with Retry-After."""
    HANGS = "hangs"
    """No answer, though it has the event."""
    IS_SLOW = "is slow"
    DROPS = "drops"
    """It closes the connection after the event has arrived."""


class _Loop(ABC):
    """Something that receives events until it is closed."""

    def __init__(self, name: str, history: History) -> None:
        self.name = name
        self._history = history
        self.begun = asyncio.Event()
        """Set once it is to get every later event: once it knows where it begins, or its queue exists."""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    @abstractmethod
    async def _run(self) -> None: ...

    def _got(self, event_id: str, kind: str, document: bytes, **more: Any) -> None:  # noqa: ANN401  (its own fields)
        """Record an event."""
        data = json.loads(document) if document else {}
        image_id = data.get("data", {}).get("id") if kind.startswith("image.") else None
        if kind != data.get("type", kind):
            more["wrong"] = f"its document says {data['type']}"
        digest = hashlib.sha256(document).hexdigest()
        self._history.append(
            Received(
                receiver=self.name,
                event_id=event_id,
                type=kind,
                image_id=image_id,
                at=time.time(),
                document=digest,
                **more,
            )
        )


class _Reader(_Loop):
    """Reads the log from any of several API processes, each time from where it was."""

    way: Way

    def __init__(self, name: str, history: History, urls: Mapping[str, str], rng: random.Random) -> None:
        super().__init__(name, history)
        self._urls = urls
        self._rng = rng
        self._last: str | None = None
        """Where it goes on."""

    def _begin(self, after: str | None) -> None:
        if not self.begun.is_set():
            self._history.append(Receiver(name=self.name, way=self.way, after=after))
            self.begun.set()

    async def _run(self) -> None:
        async with httpx.AsyncClient(timeout=_LIMIT, trust_env=False, verify=NO_TLS) as http:
            while True:
                url = self._rng.choice([*self._urls.values()])
                with suppress(httpx.HTTPError, TimeoutError):
                    await self._read(http, url)
                await asyncio.sleep(self._rng.uniform(*PAUSE))

    @abstractmethod
    async def _read(self, http: httpx.AsyncClient, url: str) -> None: ...


class Stream(_Reader):
    """Reads an event stream, and cuts it at random."""

    way = Way.STREAM

    async def _read(self, http: httpx.AsyncClient, url: str) -> None:
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": self._last} if self._last else {})
        async with http.stream("GET", f"{url}/events", headers=headers) as answer:
            if answer.status_code != httpx.codes.OK:
                return
            async with asyncio.timeout(self._rng.uniform(*CUTS)):
                async for block in _blocks(answer.aiter_lines()):
                    self._take(block)

    def _take(self, block: Mapping[str, str]) -> None:
        self._last = block.get("id", self._last)
        if self._last is not None:
            self._begin(self._last)
        if "data" in block:
            kind = block["event"]
            self._got("" if kind == RESET else block["id"], kind, b"" if kind == RESET else block["data"].encode())


async def _blocks(lines: AsyncIterator[str]) -> AsyncIterator[Mapping[str, str]]:
    """Return the complete blocks of a stream: what is cut off counts for nothing."""
    block: dict[str, str] = {}
    async for line in lines:
        if not line:
            yield block
            block = {}
        elif not line.startswith(":"):
            field, _, value = line.partition(":")
            block[field] = value.removeprefix(" ")


class Pages(_Reader):
    """Reads the log page by page."""

    way = Way.PAGES

    async def _read(self, http: httpx.AsyncClient, url: str) -> None:
        path = self._last or f"/events?limit={_PAGE}"
        answer = await http.get(f"{url}{path}", headers={"Accept": "application/json"})
        if answer.status_code == httpx.codes.GONE:
            self._got("", RESET, b"")
        if answer.status_code != httpx.codes.OK:
            return
        self._begin(None)
        page = answer.json()
        for event in page["events"]:
            self._got(event["id"], event["type"], json.dumps(event).encode())
        # Every replica has its own address.
        self._last = httpx.URL(page["next"]).raw_path.decode()


class Endpoint:
    """A webhook endpoint, which fails at random until it recovers."""

    def __init__(self, name: str, rng: random.Random, failures: Sequence[Answer]) -> None:
        self.name = name
        self.secret = ""
        self.answer = Answer.ACCEPTS
        self.recovered = False
        self._rng = rng
        self._failures = failures

    async def fail_at_random(self) -> None:
        """Change how it answers now and then, until it recovers."""
        while self._failures and not self.recovered:
            self.answer = self._rng.choice([Answer.ACCEPTS, *self._failures])
            await asyncio.sleep(self._rng.uniform(*FAILURE))


class Endpoints(_Loop):
    """All webhook endpoints, on one server."""

    def __init__(self, history: History) -> None:
        super().__init__("webhooks", history)
        self._server: asyncio.Server | None = None
        self._endpoints: dict[str, Endpoint] = {}
        self._failing: list[asyncio.Task[None]] = []
        self._connections: set[asyncio.Task[None]] = set()

    async def listen(self) -> None:
        """Listen at a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def _run(self) -> None:
        assert self._server is not None
        await self._server.serve_forever()

    async def close(self) -> None:
        await super().close()
        tasks = [*self._failing, *self._connections]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def answer(self, answer: Answer) -> None:
        """Let every endpoint answer like this from now on."""
        for endpoint in self._endpoints.values():
            endpoint.answer = answer

    def recover(self) -> None:
        """Let every endpoint accept everything from now on."""
        for endpoint in self._endpoints.values():
            endpoint.recovered = True
        self.answer(Answer.ACCEPTS)

    async def register(self, api_url: str, endpoint: Endpoint, types: Sequence[str] | None = None) -> str:
        """Register an endpoint at the service; return the id that it gives it."""
        assert self._server is not None
        self._endpoints[endpoint.name] = endpoint
        url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/{endpoint.name}"
        async with httpx.AsyncClient(base_url=api_url, timeout=_LIMIT, trust_env=False, verify=NO_TLS) as http:
            body = {"url": url} | ({"types": [*types]} if types else {})
            created = (await http.post("/webhooks", json=body)).raise_for_status().json()
        endpoint.secret = created["secret"]
        receiver = Receiver(name=endpoint.name, way=Way.WEBHOOK, types=types, webhook_id=created["id"])
        self._history.append(receiver)
        self._failing.append(asyncio.create_task(endpoint.fail_at_random()))
        return str(created["id"])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        assert connection is not None
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)
        with suppress(asyncio.CancelledError):  # at the end
            await self._serve_all(reader, writer)
        writer.close()

    async def _serve_all(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                request, *lines = head.splitlines()
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                body = await reader.readexactly(min(_MOST, int(headers.get("content-length", "0"))))
                endpoint = self._endpoints[request.split()[1].strip("/")]
                if not await self._answer(endpoint, headers, body, writer):
                    return

    async def _answer(
        self, endpoint: Endpoint, headers: Mapping[str, str], body: bytes, writer: asyncio.StreamWriter
    ) -> bool:
        """Answer as the endpoint does now; return whether the connection stays."""
        answer = endpoint.answer
        accepts = answer in {Answer.ACCEPTS, Answer.IS_SLOW}
        self._take(endpoint, headers, body, accepts=accepts)
        if answer in {Answer.HANGS, Answer.IS_SLOW}:
            await asyncio.sleep(HANGS if answer is Answer.HANGS else 0.5)
        if answer in {Answer.HANGS, Answer.DROPS}:
            return False
        status = {Answer.FAILS: "500 Failed", Answer.THROTTLES: "429 Slowly\r\nRetry-After: 1"}.get(answer, "200 OK")
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok".encode())
        await writer.drain()
        return True

    def _take(self, endpoint: Endpoint, headers: Mapping[str, str], body: bytes, *, accepts: bool) -> None:
        document = json.loads(body)
        wrong = None if is_signed(endpoint.secret, headers, body) else "its signature is wrong"
        self._history.append(
            Received(
                receiver=endpoint.name,
                event_id=headers["webhook-id"],
                type=document["type"],
                image_id=document["data"]["id"] if document["type"].startswith("image.") else None,
                at=time.time(),
                document=hashlib.sha256(body).hexdigest(),
                accepted=accepts,
                wrong=wrong,
            )
        )


def is_signed(secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    """Whether one of a delivery's signatures is right (Standard Webhooks, v1)."""
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    digest = hmac.digest(b64decode(secret.removeprefix("whsec_")), signed, "sha256")
    right = f"v1,{b64encode(digest).decode()}"
    return any(hmac.compare_digest(right, each) for each in headers["webhook-signature"].split())


class BoundQueue(_Loop):
    """A durable queue that is bound to the exchange for all events. The receiver declares the exchange, too."""

    def __init__(self, name: str, history: History, url: str) -> None:
        super().__init__(name, history)
        self._url = url

    async def _run(self) -> None:
        while True:
            with suppress(AMQPError, OSError, TimeoutError):
                await self._consume()
            await asyncio.sleep(0.3)

    async def _consume(self) -> None:
        async with await aio_pika.connect(self._url, timeout=CONNECT_LIMIT) as connection:
            if not await self._exists(connection):
                channel = await connection.channel()
                exchange = await channel.declare_exchange(EXCHANGE, aio_pika.ExchangeType.TOPIC, durable=True)
                queue = await channel.declare_queue(self.name, durable=True)
                await queue.bind(exchange, "#")
                self._got("", BOUND, b"")
            if not self.begun.is_set():
                self._history.append(Receiver(name=self.name, way=Way.EXCHANGE))
                self.begun.set()
            channel = await connection.channel()
            await channel.set_qos(prefetch_count=100)
            queue = await channel.get_queue(self.name)
            async with queue.iterator() as messages:
                async for message in messages:
                    self._got(message.message_id or "", message.routing_key or "", message.body)
                    await message.ack()

    async def _exists(self, connection: aio_pika.abc.AbstractConnection) -> bool:
        async with connection.channel() as channel:
            try:
                await channel.declare_queue(self.name, passive=True)
            except ChannelNotFoundEntity:
                return False
        return True
