"""Letting what can wait be done when there is nothing better to do."""

import asyncio
from contextlib import suppress

from image_service.ports import Delivery, Handler


class IdleGate:
    """Whether a worker has nothing to do that anybody waits for."""

    def __init__(self) -> None:
        self._busy = 0
        self._here = asyncio.Event()
        self._here.set()

    def foreground(self, handler: Handler) -> Handler:
        """The same handler; while it runs there is no leisure."""

        async def handle(delivery: Delivery) -> None:
            self._busy += 1
            self._here.clear()
            try:
                await handler(delivery)
            finally:
                self._busy -= 1
                if not self._busy:
                    self._here.set()

        return handle

    def background(self, handler: Handler, *, patience: float) -> Handler:
        """The same handler, which begins when there is leisure, or after ``patience`` seconds without any."""

        async def handle(delivery: Delivery) -> None:
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    while self._busy:  # again: it may have come and gone since it was told of
                        await self._here.wait()
            await handler(delivery)

        return handle
