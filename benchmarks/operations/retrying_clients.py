"""Clients that do not give up: what they upload is accepted in the end, once, whatever happens meanwhile."""

import asyncio
import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

import httpx

from harness.images import encoded, gradient, jpeg_segment, png_chunk

ANSWER_LIMIT: Final = 10.0
IMPATIENCE: Final = 0.005
"""Seconds after which an impatient client hangs up, wherever its request is."""
GIVE_UP_AFTER: Final = 120.0
RETRY_AFTER: Final = 0.5

_COMMENT: Final = 0xFE
_PHOTO: Final = encoded(gradient(64, 48), "JPEG")
_POSTER: Final = encoded(gradient(1600, 1200), "PNG")
_BEFORE_PIXELS: Final = 8 + 25
"""A PNG file's signature and header."""


def photo(number: int) -> bytes:
    """A small JPEG, for the express lane; no two numbers have the same bytes."""
    return _PHOTO[:2] + jpeg_segment(_COMMENT, str(number).encode()) + _PHOTO[2:]


def poster(number: int) -> bytes:
    """A PNG for the normal lane; no two numbers have the same bytes."""
    comment = png_chunk(b"tEXt", f"Comment\0{number}".encode())
    return _POSTER[:_BEFORE_PIXELS] + comment + _POSTER[_BEFORE_PIXELS:]


@dataclass
class Clients:
    """Many clients of one API."""

    api: httpx.AsyncClient
    accepted: dict[UUID, str] = field(default_factory=dict)
    """The SHA-256 of what was sent, by the id it was given."""
    answers: Counter[str] = field(default_factory=Counter)
    """How requests ended."""
    refused: list[str] = field(default_factory=list)
    """Uploads that were not accepted: by an answer that is final, or not within two minutes."""

    async def upload(self, name: str, content: bytes, *, impatient: bool = False) -> None:
        """Upload a file until there is an answer that is final, always under the same key.

        Args:
            name: The file's, and the key.
            content: The file's.
            impatient: Whether the client hangs up on the first try, so that it cannot know what came of it.
        """
        try:
            async with asyncio.timeout(GIVE_UP_AFTER):
                if impatient:
                    await self._try(name, content, IMPATIENCE)
                pause = await self._try(name, content, ANSWER_LIMIT)
                while pause is not None:
                    await asyncio.sleep(pause)
                    pause = await self._try(name, content, ANSWER_LIMIT)
        except TimeoutError:
            self.refused.append(f"{name}: not within {GIVE_UP_AFTER:g} s")

    async def _try(self, name: str, content: bytes, limit: float) -> float | None:
        """One request; None if it is settled, else the seconds after which to try again."""
        files, headers = {"file": (name, content)}, {"Idempotency-Key": name}
        try:
            answer = await self.api.post("/images", files=files, headers=headers, timeout=limit)
        except httpx.TransportError as error:
            self.answers[type(error).__name__] += 1
            return RETRY_AFTER
        self.answers[str(answer.status_code)] += 1
        if answer.status_code == httpx.codes.ACCEPTED:
            self.answers["of these as NEW"] += answer.json()["status"] == "NEW"
            self.accepted[UUID(answer.json()["id"])] = hashlib.sha256(content).hexdigest()
        elif answer.status_code in {429, 503}:
            return float(answer.headers.get("Retry-After", RETRY_AFTER))
        else:
            self.refused.append(f"{name}: {answer.text}")
        return None
