"""Delays background work while foreground work is running."""

import asyncio
from contextlib import suppress

from image_service.ports import Delivery, Handler


class IdleGate:
    """Runs background handlers only while no foreground handler runs."""

    def __init__(self) -> None:
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def foreground(self, handler: Handler) -> Handler:
        """Returns the handler, counted as foreground work while it runs."""

        async def handle(delivery: Delivery) -> None:
            self._running += 1
            self._idle.clear()
            try:
                await handler(delivery)
            finally:
                self._running -= 1
                if not self._running:
                    self._idle.set()

        return handle

    def background(self, handler: Handler, *, max_wait: float) -> Handler:
        """Returns the handler, which starts once no foreground handler runs, or after ``max_wait`` seconds."""

        async def handle(delivery: Delivery) -> None:
            with suppress(TimeoutError):
                async with asyncio.timeout(max_wait):
                    while self._running:  # foreground work may have started since the event was set
                        await self._idle.wait()
            await handler(delivery)

        return handle
