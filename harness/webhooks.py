"""Webhooks as a worker delivers them, to receivers on loopback."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_network
from uuid import UUID, uuid4

from image_service.database import Database
from image_service.documents.event import encode_event
from image_service.documents.urls import Urls
from image_service.domain.event import EventType
from image_service.domain.recipe import Recipes
from image_service.domain.webhook import Webhook
from image_service.domain.webhook_delivery import WebhookDelivery
from image_service.domain.webhook_signature import new_secret
from image_service.outbound.addresses import AddressPolicy
from image_service.outbound.client import GuardedClient
from image_service.ports import NULL_OBSERVER, EventSignal, Observer
from image_service.queue.signal import LocalSignal
from image_service.services.webhook_dispatch import WebhookDispatcher
from image_service.services.webhook_loop import WebhookLoop
from image_service.services.webhook_sending import WebhookSender

PUBLIC_URL = "https://img.example.org"
LOOPBACK = AddressPolicy([ip_network("127.0.0.0/8")])
encode = partial(encode_event, urls=Urls(PUBLIC_URL), recipes=Recipes())


@dataclass(frozen=True, kw_only=True)
class Delivering:
    """A worker's part that delivers."""

    signal: EventSignal
    sender: WebhookSender
    stop: asyncio.Event
    task: asyncio.Task[None]

    async def killed(self) -> None:
        """End it between two effects, as a signal would: running attempts get no result."""
        self.task.cancel()
        await asyncio.wait({self.task})


@asynccontextmanager
async def delivering(
    database: Database,
    *,
    timeout: float = 20.0,  # noqa: ASYNC109 — of the endpoints
    poll: float = 0.05,
    grace: float = 0.0,
    observer: Observer = NULL_OBSERVER,
) -> AsyncIterator[Delivering]:
    """Deliver for the duration of the block; loopback addresses are allowed."""
    signal, stop = LocalSignal(), asyncio.Event()
    async with GuardedClient(LOOPBACK) as outbound:
        sender = WebhookSender(database=database, outbound=outbound, encode=encode, timeout=timeout, observer=observer)
        loop = WebhookLoop(
            dispatcher=WebhookDispatcher(database=database),
            sender=sender,
            signal=signal,
            observer=observer,
            poll=poll,
            idle_poll=poll,
        )
        task = asyncio.create_task(loop.run(stop.wait, grace=grace))
        try:
            yield Delivering(signal=signal, sender=sender, stop=stop, task=task)
            stop.set()
            await asyncio.wait({task})
        finally:
            task.cancel()
            await asyncio.wait({task})


async def registered(database: Database, url: str, types: Sequence[EventType] | None = None) -> Webhook:
    """Register an endpoint."""
    async with database.transaction() as repositories:
        webhook = await repositories.webhooks.add(uuid4(), url=url, types=types, secret=new_secret("v1"))
    assert webhook is not None
    return webhook


async def deliveries_of(database: Database, webhook_id: UUID) -> Sequence[WebhookDelivery]:
    """The deliveries to an endpoint, the oldest first."""
    async with database.transaction() as repositories:
        return list(reversed(await repositories.deliveries.of_webhook(webhook_id, limit=1000)))


def closed_port() -> int:
    """A port that refuses connections."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
