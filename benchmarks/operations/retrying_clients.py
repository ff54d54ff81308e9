"""Clients that retry an upload under its idempotency key until the response is final."""

import asyncio
import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

import httpx

from harness.images import encoded, gradient, jpeg_segment, png_chunk

RESPONSE_LIMIT: Final = 10.0
DISCONNECT_AFTER: Final = 0.005
"""Seconds after which a disconnecting client closes its connection, whatever the state of its request."""
GIVE_UP_AFTER: Final = 120.0
RETRY_AFTER: Final = 0.5

_COMMENT: Final = 0xFE
_PHOTO: Final = encoded(gradient(64, 48), "JPEG")
_POSTER: Final = encoded(gradient(1600, 1200), "PNG")
_BEFORE_PIXELS: Final = 8 + 25
"""A PNG file's signature and header."""


def photo(number: int) -> bytes:
    """Returns a small JPEG for the express lane; each number has other bytes."""
    return _PHOTO[:2] + jpeg_segment(_COMMENT, str(number).encode()) + _PHOTO[2:]


def poster(number: int) -> bytes:
    """Returns a PNG for the normal lane; each number has other bytes."""
    comment = png_chunk(b"tEXt", f"Comment\0{number}".encode())
    return _POSTER[:_BEFORE_PIXELS] + comment + _POSTER[_BEFORE_PIXELS:]


@dataclass
class Clients:
    """Clients of one API, and the responses that they received."""

    api: httpx.AsyncClient
    accepted: dict[UUID, str] = field(default_factory=dict)
    """SHA-256 of each accepted file, by the id of its image."""
    answers: Counter[str] = field(default_factory=Counter)
    """Number of requests by their outcome: HTTP status or error."""
    refused: list[str] = field(default_factory=list)
    """Uploads that got a final refusal, or were not accepted within two minutes."""

    async def upload(self, name: str, content: bytes, *, disconnect: bool = False) -> None:
        """Upload a file, always under the same key, until the response is final.

        Args:
            name: Name of the file, and the idempotency key.
            content: Content of the file.
            disconnect: Whether the client closes the connection during its first try, and cannot know its outcome.
        """
        try:
            async with asyncio.timeout(GIVE_UP_AFTER):
                if disconnect:
                    await self._try(name, content, DISCONNECT_AFTER)
                pause = await self._try(name, content, RESPONSE_LIMIT)
                while pause is not None:
                    await asyncio.sleep(pause)
                    pause = await self._try(name, content, RESPONSE_LIMIT)
        except TimeoutError:
            self.refused.append(f"{name}: not within {GIVE_UP_AFTER:g} s")

    async def _try(self, name: str, content: bytes, limit: float) -> float | None:
        """Send one request; returns None if the response is final, else the seconds before the next try."""
        files, headers = {"file": (name, content)}, {"Idempotency-Key": name}
        try:
            answer = await self.api.post("/images", files=files, headers=headers, timeout=limit)
        except httpx.TransportError as error:
            self.answers[type(error).__name__] += 1
            return RETRY_AFTER
        self.answers[str(answer.status_code)] += 1
        if answer.status_code == httpx.codes.ACCEPTED:
            self.answers["accepted as NEW"] += answer.json()["status"] == "NEW"
            self.accepted[UUID(answer.json()["id"])] = hashlib.sha256(content).hexdigest()
        elif answer.status_code in {429, 503}:
            return float(answer.headers.get("Retry-After", RETRY_AFTER))
        else:
            self.refused.append(f"{name}: {answer.text}")
        return None
